"""Torch programs by litert-torch.

The file has batch 1: litert-torch 0.10 cannot convert these programs with a dynamic batch (a flatten and an arange over the batch fail).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stages.formats.tflite.quiet import quietly

REFUSALS = (ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, AssertionError)  # how the tools say "cannot"


def write(source: Path, path: Path, inputs: Sequence[str]) -> set[str]:
    """Write the TFLite file; returns the names of the program's weights that its graph uses, a tied weight under all of its names.
    ValueError where the program cannot be converted."""
    try:
        with quietly():
            return _convert(source, path, inputs)
    except REFUSALS as error:
        raise ValueError(f"litert-torch cannot convert this program: {first_line(error)}") from error


def _convert(source: Path, path: Path, inputs: Sequence[str]) -> set[str]:
    import litert_torch
    import torch

    program = torch.export.load(source / "program.pt2")
    with np.load(source / "probe.npz") as probe:
        example = tuple(torch.from_numpy(probe[f"in:{name}"][:1]) for name in inputs)
    litert_torch.convert(program.module(), example).export(str(path))
    placeholders = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    held = program.graph_signature.inputs_to_parameters
    storages = {program.state_dict[held[name]].data_ptr() for name in placeholders & held.keys()}
    return {name for name, tensor in program.state_dict.items() if tensor.data_ptr() in storages}


def first_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
