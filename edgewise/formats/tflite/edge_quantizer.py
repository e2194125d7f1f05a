"""Quantize a float TFLite file with the AI Edge Quantizer (AEQ): Edgewise's schemes as its recipes."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.quiet import capture_output
from edgewise.formats.tflite import facts, naming

TABLES = "EMBEDDING_LOOKUP"  # static recipes skip lookup tables; they are quantized separately
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")  # names of the schema
MATRICES = (*LAYERS, "BATCH_MATMUL")
CONVERTER_MIN_ELEMENTS = 1024  # TFLiteConverter's dynamic strategy keeps smaller weights in float (minimum_elements_for_weights)

SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": (*MATRICES, TABLES)},
    "fp16": {"weights": "float16", "activations": "float32", "covers": (*LAYERS, TABLES)},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": (*MATRICES, TABLES), "least_elements": CONVERTER_MIN_ELEMENTS},
    "int8-static": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int8-mixed": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int8-qat": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int16x8-static": {"weights": "int8", "activations": "int16", "covers": MATRICES},
    "int4-weight": {"weights": "int4", "activations": "dynamic", "covers": ("CONV_2D", "FULLY_CONNECTED", TABLES)},
}
CALIBRATION = {"calibration.method": ("minmax", "moving_average"), "per_channel": (True, False), "io": ("integer", "float")}
CALIBRATION |= {"tail": ("float", "int8")}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "fp32": {},
    "fp16": {},
    "int8-dynamic": {},  # per channel only: per tensor, depthwise convolutions give different results at each load (runtime 2.3.0)
    "int8-static": CALIBRATION,
    "int8-mixed": CALIBRATION,
    "int8-qat": CALIBRATION,
    "int16x8-static": CALIBRATION,
    "int4-weight": {"per_channel": (True, False)},
}
REFUSALS = (ValueError, RuntimeError, TypeError, KeyError, NotImplementedError, AssertionError)  # what AEQ and litert-torch raise
Arrays = dict[str, np.ndarray]


def quantize(
    float_file: Path, path: Path, scheme: str, settings: Mapping[str, Any], calibration: Sequence[Arrays], keep_nodes: Sequence[str]
) -> None:
    """Write the quantized file. ValueError if AEQ cannot make it.

    settings: `per_channel`; for static schemes `calibration` {"method"} and `io`; for int4-weight `keep_int8`: nodes that stay at 8 bits.
    """
    from ai_edge_quantizer import quantizer

    unweighted = facts.find_between(facts.read(float_file), keep_nodes) if settings.get("calibration") else []
    recipe = build_recipe(scheme, settings, [*keep_nodes, *unweighted])
    try:
        with capture_output():
            work = quantizer.Quantizer(str(float_file), recipe)
            ranges = _find_ranges(float_file, recipe, settings["calibration"]["method"], calibration) if work.need_calibration else None
            work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).export_model(str(path))
    except REFUSALS as error:
        raise ValueError(f"the AI Edge Quantizer cannot make {scheme} of this model: {first_line(error)}") from error
    _restore_signature(float_file, path)


def _restore_signature(float_file: Path, path: Path) -> None:
    """AEQ gives an output that other operators read too a tensor of its own, and leaves the signature at the old one."""
    model = facts.read(path)
    if {int(index) for index in model.subgraphs[0].outputs} != {entry.tensorIndex for entry in model.signatureDefs[0].outputs}:
        naming.name_signature(model, *naming.port_names(facts.read(float_file)))
        facts.write(model, path)


def _find_ranges(path: Path, recipe: list[dict[str, Any]], method: str, feeds: Sequence[Arrays]) -> dict[str, Any]:
    """Value ranges of activations: the extremes of all samples, or AEQ's moving average of the extremes of each sample."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    update = {"minmax": qsv_utils.min_max_update, "moving_average": qsv_utils.moving_average_update}[method]
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(recipe)
    work = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=update)
    types = _input_types(path)
    samples = [{name: array.astype(types[name], copy=False) for name, array in sample.items()} for sample in feeds]
    (signature,) = work.get_signature_list()
    work.calibrate({signature: samples}, manager)
    ranges: dict[str, Any] = work.get_model_qsvs()
    return ranges


def _input_types(path: Path) -> dict[str, str]:
    """Input -> its type in the file: litert-torch converts int64 inputs to int32."""
    model = facts.read(path)
    tensors, (signature,) = model.subgraphs[0].tensors, model.signatureDefs
    return {entry.name.decode(): facts.tensor_dtype(tensors[entry.tensorIndex]) for entry in signature.inputs}


def build_recipe(scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The AEQ recipe of a scheme; keep_nodes stay float. settings: as for `quantize`."""
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    granularity = qtyping.QuantGranularity.CHANNELWISE if settings["per_channel"] is not False else qtyping.QuantGranularity.TENSORWISE
    everything, tables = qtyping.TFLOperationName.ALL_SUPPORTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP
    if scheme == "fp16":
        manager.add_weight_only_config(".*", everything, 16, algorithm_key=recipe_manager.AlgorithmName.FLOAT_CASTING)
    elif scheme == "int8-dynamic":
        manager.add_dynamic_config(".*", everything, 8, granularity)
    elif (
        scheme == "int4-weight"
    ):  # OCTAV clips to minimize the squared error; with minmax ranges, 4 bits lose 10 points of accuracy on a ResNet-8
        manager.add_dynamic_config(".*", everything, 4, granularity, algorithm_key=recipe_manager.AlgorithmName.OCTAV)
        for name in settings.get("keep_int8", ()):
            manager.add_dynamic_config(node_pattern(name), everything, 8, granularity)
    else:
        manager.add_static_config(".*", everything, 16 if scheme == "int16x8-static" else 8, 8, granularity)
        manager.add_dynamic_config(".*", tables, 8, granularity)
        if settings.get("io") == "float":
            for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                manager.add_quantization_config(".*", border, algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE)
    for name in keep_nodes:
        manager.add_quantization_config(node_pattern(name), everything, algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE)
    steps: list[dict[str, Any]] = manager.get_quantization_recipe()
    return steps


def node_pattern(node: str) -> str:
    """A regular expression for one node: AEQ searches it in the names of the output tensors, each followed by a semicolon."""
    return f"(^|;){re.escape(node)};"


def first_line(error: BaseException) -> str:
    """Type and first line of another library's error."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line}"
