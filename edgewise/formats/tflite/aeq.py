"""Edgewise's schemes as recipes of the AI Edge Quantizer (AEQ)."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.quiet import quietly
from edgewise.formats.tflite import facts

TABLES = "EMBEDDING_LOOKUP"  # static recipes have no rule for look-up tables and would leave them float
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")  # as the schema spells them
MATRICES = (*LAYERS, "BATCH_MATMUL")
CONVERTER_LEAST = 1024  # TFLiteConverter leaves smaller weights float in its dynamic strategy (minimum_elements_for_weights)

SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": (*MATRICES, TABLES)},
    "fp16": {"weights": "float16", "activations": "float32", "covers": (*LAYERS, TABLES)},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": (*MATRICES, TABLES), "least_elements": CONVERTER_LEAST},
    "int8-static": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int8-mixed": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int8-qat": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int16x8-static": {"weights": "int8", "activations": "int16", "covers": MATRICES},
    "int4-weight": {"weights": "int4", "activations": "dynamic", "covers": ("CONV_2D", "FULLY_CONNECTED", TABLES)},
}
CALIBRATION = {"calibration.method": ("minmax", "moving_average"), "per_channel": (True, False), "io": ("integer", "float")}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "fp32": {},
    "fp16": {},
    "int8-dynamic": {},  # per channel only: with one scale, depthwise convolutions give other results at every load (runtime 2.3.0)
    "int8-static": CALIBRATION,
    "int8-mixed": CALIBRATION,
    "int8-qat": CALIBRATION,
    "int16x8-static": CALIBRATION,
    "int4-weight": {"per_channel": (True, False)},
}


def build(scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The AEQ recipe of a scheme; the nodes named in keep_nodes are left as they are. settings: as for aeq.quantize."""
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    granularity = qtyping.QuantGranularity.CHANNELWISE if settings["per_channel"] is not False else qtyping.QuantGranularity.TENSORWISE
    everything, tables = qtyping.TFLOperationName.ALL_SUPPORTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP
    if scheme == "fp16":
        manager.add_weight_only_config(".*", everything, 16, algorithm_key=recipe_manager.AlgorithmName.FLOAT_CASTING)
    elif scheme == "int8-dynamic":
        manager.add_dynamic_config(".*", everything, 8, granularity)
    elif scheme == "int4-weight":  # OCTAV clips where the squared error is least; from extremes, 4 bits lose 10 points on a ResNet-8
        manager.add_dynamic_config(".*", everything, 4, granularity, algorithm_key=recipe_manager.AlgorithmName.OCTAV)
        for name in settings.get("keep_int8", ()):
            manager.add_dynamic_config(scope(name), everything, 8, granularity)
    else:
        manager.add_static_config(".*", everything, 16 if scheme == "int16x8-static" else 8, 8, granularity)
        manager.add_dynamic_config(".*", tables, 8, granularity)
        if settings.get("io") == "float":
            for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                manager.add_quantization_config(".*", border, algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE)
    for name in keep_nodes:
        manager.add_quantization_config(scope(name), everything, algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE)
    steps: list[dict[str, Any]] = manager.get_quantization_recipe()
    return steps


def scope(node: str) -> str:
    """A regular expression for one node: AEQ searches it in the output tensors' names, each followed by a semicolon."""
    return f"(^|;){re.escape(node)};"


# Torch programs by litert-torch.
#
# The file has batch 1: litert-torch 0.10 cannot convert these programs with a dynamic batch (a flatten and an arange over the batch fail).

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


# Quantize a float TFLite file with the AI Edge Quantizer (AEQ).

Arrays = dict[str, np.ndarray]


def quantize(
    float_file: Path, path: Path, scheme: str, settings: Mapping[str, Any], calibration: Sequence[Arrays], keep_nodes: Sequence[str]
) -> None:
    """Write the quantized file. ValueError: AEQ cannot.

    settings: `per_channel`; `calibration` {"method"} and `io` of the static schemes; `keep_int8` of int4-weight: nodes in 8 bits.
    """
    from ai_edge_quantizer import quantizer

    between = facts.between(facts.read(float_file), keep_nodes) if settings.get("calibration") else []
    steps = build(scheme, settings, [*keep_nodes, *between])
    try:
        with quietly():
            work = quantizer.Quantizer(str(float_file), steps)
            ranges = _calibrate(float_file, steps, settings["calibration"]["method"], calibration) if work.need_calibration else None
            work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).export_model(str(path))
    except REFUSALS as error:
        raise ValueError(f"the AI Edge Quantizer cannot make {scheme} of this model: {first_line(error)}") from error


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
    ranges: dict[str, Any] = work.get_model_qsvs()
    return ranges


def _narrow(array: np.ndarray) -> np.ndarray:
    """litert-torch turns 64-bit inputs into 32-bit ones."""
    return array.astype(np.int32) if array.dtype == np.int64 else array
