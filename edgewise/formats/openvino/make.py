"""Make model.xml: convert the ONNX file, a Keras model or a float TFLite file, and quantize with NNCF."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.nncf_settings import METHODS
from edgewise.formats.common.onnx_graphs import find_integer_operator
from edgewise.formats.openvino import facts, readers, recipes
from edgewise.formats.openvino.facts import MODEL, PRODUCTS, list_operators, weights
from edgewise.formats.openvino.readers import NodeFinder

SOURCES = ("onnx", *readers.READERS)
ELSEWHERE: Mapping[str, str] = {}
REQUIRES = {"openvino": "openvino", "nncf": "openvino", "onnx": "onnx", "tensorflow": "keras"}
OPEN_SIZES = True
INT8 = {"weights": "int8", "activations": "int8", "covers": PRODUCTS}
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": PRODUCTS},
    "fp16": {
        "weights": "float16",
        "activations": "float32",
        "covers": PRODUCTS,
    },  # decompressed at load; the precision of the computation is an engine setting
    "int8-static": INT8,
    "int8-mixed": INT8,
    "int8-qat": INT8,
    "int4-weight": {"weights": "int4", "activations": "float32", "covers": ("MatMul",)},
}
STATIC = {"calibration.method": tuple(METHODS), "per_channel": (False, True), "symmetric": (False, True)}
STATIC |= {"tail": ("float", "int8")}
SETTINGS = {
    "int8-static": STATIC,
    "int8-mixed": STATIC,
    "int8-qat": STATIC,
    "int4-weight": {"block_size": (16, 32, 64, 128, 256), "symmetric": (False, True)},
}
ONNX = "model.onnx"


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. source: models/onnx, with layers.json, or models/source of a format that OpenVINO reads itself."""
    model, found = (_convert_onnx if (source / ONNX).exists() else _convert_source)(source, folder)
    return {"inputs": [_describe(p) for p in model.inputs], "outputs": [_describe(p) for p in model.outputs], "layers": found}


def _convert_onnx(source: Path, folder: Path) -> tuple[Any, dict[str, list[str]]]:
    """The model, and the nodes of each layer. ValueError if it is quantized already."""
    import onnx
    import openvino

    quantized = find_integer_operator(onnx.load(source / ONNX, load_external_data=False))
    if quantized:
        raise ValueError(
            f"the file is quantized already ({quantized}): OpenVINO would round it in another way; measure it as it is, with onnx"
        )
    model = openvino.convert_model(source / ONNX)
    layers = json.loads((source / "layers.json").read_text(encoding="utf-8"))
    finder = NodeFinder(source / ONNX, model)
    recipes.save(model, folder, finder.names)
    found = finder.find([node for nodes in layers.values() for node in nodes])
    return model, {layer: list(dict.fromkeys(name for node in nodes for name in found[node])) for layer, nodes in layers.items()}


def _convert_source(source: Path, folder: Path) -> tuple[Any, dict[str, list[str]]]:
    model, found = readers.read_source(source)
    recipes.save(model, folder, [name for names in found.values() for name in names])
    return model, found


def _describe(port: Any) -> dict[str, Any]:
    shape = [None if size.is_dynamic else size.get_length() for size in port.get_partial_shape()]
    return {"name": port.get_any_name(), "shape": shape, "dtype": np.dtype(port.get_element_type().to_dtype()).name}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
    validation: tuple[Sequence[dict[str, np.ndarray]], np.ndarray] | None = None,
) -> None:
    """plugins.Maker.quantize. validation: labelled samples, with which NNCF controls accuracy."""
    import openvino

    model = openvino.Core().read_model(parent / MODEL)
    nodes = list_operators(model)
    known = [node.get_friendly_name() for node in nodes]
    _check_kept(keep_nodes, {node.get_friendly_name() for node in nodes if weights(node)})
    kept = [*keep_nodes, *(facts.find_tail(parent).operators if settings.get("tail") == "float" else ())]
    if validation is not None:
        quantized = recipes.int8_accuracy_control(model, settings, calibration, kept, validation)
    else:
        quantized = recipes.RECIPES[scheme](model, settings, calibration, kept)
    recipes.save(quantized, folder, known)


def _check_kept(keep_nodes: Sequence[str], known: set[str]) -> None:
    """ValueError for nodes to keep float that are not among those with weights, see NodeFinder."""
    lost = sorted(set(keep_nodes) - known)
    if lost:
        raise ValueError(
            f"no node of the OpenVINO graph has the weights of {', '.join(lost)}, so it cannot stay float; remove it from keep_float"
        )
