"""Make TFLite files: from a torch program with litert-torch, quantized by the AI Edge Quantizer (AEQ).

The file has batch 1: litert-torch 0.10 cannot convert these programs with a dynamic batch (a flatten and an arange over the batch fail).
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.formats.tflite import layers, recipe, schema
from stages.formats.tflite.quiet import quietly

SOURCES = ("torch",)
REQUIRES = {"ai_edge_litert": "tflite", "ai_edge_quantizer": "tflite", "litert_torch": "tflite"}
SCHEMES = recipe.SCHEMES
SETTINGS = recipe.SETTINGS
Arrays = dict[str, np.ndarray]
REFUSALS = (ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, AssertionError)  # how the tools say "cannot"


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """plugins.Maker.convert. Tensors are renamed: a node that computes a layer of the source bears the layer's path."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    path = folder / schema.FILE
    try:
        with quietly():
            used = _convert_program(source, path, [entry["name"] for entry in manifest["inputs"]])
    except REFUSALS as error:
        raise ValueError(f"litert-torch cannot convert this program: {_first_line(error)}") from error
    model = schema.read(path)
    found = _find_layers(model, source, manifest["details"]["layers"], used)
    named = rename(model, found, *([entry["name"] for entry in manifest[side]] for side in ("inputs", "outputs")))
    schema.write(model, path)
    sides = {side: [{**entry, "shape": [1, *entry["shape"][1:]]} for entry in manifest[side]] for side in ("inputs", "outputs")}
    return {**sides, "layers": named}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[Arrays],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize. settings: `per_channel`, and `calibration` {"method"} of the static schemes."""
    float_file, path = parent / schema.FILE, folder / schema.FILE
    if scheme == "fp32":
        shutil.copyfile(float_file, path)
        return
    from ai_edge_quantizer import quantizer

    steps = recipe.build(scheme, settings, keep_nodes)
    try:
        with quietly():
            work = quantizer.Quantizer(str(float_file), steps)
            ranges = _calibrate(float_file, steps, settings["calibration"]["method"], calibration) if work.need_calibration else None
            work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).export_model(str(path))
    except REFUSALS as error:
        raise ValueError(f"the AI Edge Quantizer cannot make {scheme} of this model: {_first_line(error)}") from error


def _convert_program(source: Path, path: Path, names: Sequence[str]) -> set[str]:
    """Write the TFLite file; returns the names of the program's weights that its graph uses, a tied weight under all of its names."""
    import litert_torch
    import torch

    program = torch.export.load(source / "program.pt2")
    with np.load(source / "probe.npz") as probe:
        example = tuple(torch.from_numpy(probe[f"in:{name}"][:1]) for name in names)
    litert_torch.convert(program.module(), example).export(str(path))
    placeholders = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    held = program.graph_signature.inputs_to_parameters
    storages = {program.state_dict[held[name]].data_ptr() for name in placeholders & held.keys()}
    return {name for name, tensor in program.state_dict.items() if tensor.data_ptr() in storages}


def _find_layers(model: Any, source: Path, described: Mapping[str, Any], used: set[str]) -> dict[str, list[int]]:
    """Node positions of each layer; none for a layer that the program never calls."""
    from safetensors.numpy import load_file

    called = {path: layer for path, layer in described.items() if layer["weight"] in used}
    found = layers.match(called, load_file(source / "weights.safetensors"), schema.nodes(model))
    return {path: found.get(path, []) for path in described}


def rename(model: Any, found: Mapping[str, Sequence[int]], inputs: Sequence[str], outputs: Sequence[str]) -> dict[str, list[str]]:
    """Name the tensors of a single-signature model in place: tensor_N; a layer's nodes by its path (PATH#2 where it is called
    again); inputs and outputs of the signature as the source has them. Returns the node names of each layer."""
    nodes = schema.nodes(model)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor_{index}".encode()
    for entries, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for entry, name in zip(entries, names, strict=True):
            entry.name = graph.tensors[entry.tensorIndex].name = name.encode()
    named = {path: [f"{path}#{n}" if n > 1 else path for n in range(1, len(places) + 1)] for path, places in found.items()}
    for path, places in found.items():
        for place, name in zip(places, named[path], strict=True):
            graph.tensors[nodes[place].output].name = name.encode()
    return named


def _calibrate(path: Path, steps: list[dict[str, Any]], method: str, feeds: Sequence[Arrays]) -> dict[str, Any]:
    """Value ranges of the activations: the extremes of all samples, or AEQ's own moving average of each sample's extremes."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    update = {"minmax": qsv_utils.min_max_update, "moving_average": qsv_utils.moving_average_update}[method]
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(steps)
    work = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=update)
    samples = [{name: _narrow(array) for name, array in sample.items()} for sample in feeds]
    (signature,) = work.get_signature_list()
    work.calibrate({signature: samples}, manager)
    return work.get_model_qsvs()


def _narrow(array: np.ndarray) -> np.ndarray:
    """litert-torch turns 64-bit inputs into 32-bit ones."""
    return array.astype(np.int32) if array.dtype == np.int64 else array


def _first_line(error: BaseException) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
