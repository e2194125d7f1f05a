"""Make model.mnn with MNN's converter, from the ONNX file, and find the nodes of that file in it.

MNN names an operator after the value that the node computes, or after that of a later node that it folds into it; the weights say which.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import MODEL as ONNX
from edgewise.formats.common.onnx_graphs import WAYS_TO_ONNX, read_float, read_rows
from edgewise.formats.common.weighted_nodes import match_layers
from edgewise.formats.mnn import converter, graph, recipes
from edgewise.formats.mnn.run import CONVERTED, MODEL
from edgewise.formats.mnn.scales import METHODS
from edgewise.onnx_reading import iterate_graphs

SOURCES = ("onnx",)
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"MNN": "mnn", "onnx": "onnx"}
PRODUCTS = ("Convolution", "ConvolutionDepthwise", "Deconvolution", "DeconvolutionDepthwise", "MatMul")
STATIC = {"weights": "int8", "activations": "int8", "covers": recipes.STATIC}
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": PRODUCTS},
    "fp16": {"weights": "float16", "activations": "float32", "covers": PRODUCTS},  # how they are computed is an engine setting
    "int8-weight": {"weights": "int8", "activations": "float32", "covers": PRODUCTS},
    "int8-static": STATIC,
    "int8-mixed": STATIC,
    "int8-qat": STATIC,
    "int4-weight": {"weights": "int4", "activations": "float32", "covers": PRODUCTS},
}
STATIC_SETTINGS = {"calibration.method": tuple(METHODS)}
SPREAD_SETTINGS = {**STATIC_SETTINGS, "spread": ("float", "int8")}
BLOCKS = (None, 32, 64, 128, 256)
SETTINGS = {
    "int8-weight": {"block_size": BLOCKS, "symmetric": (False, True)},
    **dict.fromkeys(("int8-static", "int8-mixed"), SPREAD_SETTINGS),
    "int8-qat": STATIC_SETTINGS,
    "int4-weight": {"block_size": BLOCKS, "symmetric": (False, True)},
}
BITS = {"int8-weight": 8, "int4-weight": 4}
# recurrent layers as operators of their own: as loops, MNN 3.6 aborts on LSTMs and computes GRUs wrongly (SQNR 21 dB)
FROM_ONNX = ("-f", "ONNX", "--useOriginRNNImpl")
UNFED = ("int8", "int4", "uint4")


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. source: models/onnx, with layers.json."""
    model, ports = read_float(source, "MNN would round it in another way")
    refused = [f"{port['name']} is {port['dtype']}" for port in ports["inputs"] if port["dtype"] in UNFED]
    if refused:
        raise ValueError(f"input {', '.join(refused)}, which MNN's Python interface cannot be given; use onnx for this model")
    converter.convert([*FROM_ONNX, "--modelFile", source / ONNX, "--bizCode", json.dumps(ports)], folder / MODEL)
    layers = json.loads((source / "layers.json").read_text(encoding="utf-8"))
    found = find_nodes(model, folder, [node for nodes in layers.values() for node in nodes])
    named = {layer: list(dict.fromkeys(name for node in nodes for name in found[node])) for layer, nodes in layers.items()}
    return {**ports, "layers": named}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> Sequence[str] | None:
    """plugins.Maker.quantize."""
    chosen = {**settings, "bits": BITS.get(scheme)}
    return recipes.RECIPES[scheme](parent / MODEL, folder / MODEL, chosen, calibration, keep_nodes)


def find_nodes(model: Any, folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Names of the operators of folder/model.mnn that hold the weights of each of these ONNX nodes. If MNN has lost them it is the name
    itself, which is in no file: only a setting that keeps this node float has to fail then."""
    graphs = [*iterate_graphs(model.graph)]
    written = {node.name: node for one in graphs for node in one.node}
    tensors = {tensor.name: tensor for one in graphs for tensor in one.initializer}
    weighted = {operator.name: operator for operator, _ in graph.read(folder).read_weights()}
    found = {name: _find_by_name(written[name].output[0], weighted) for name in names}
    claimed = {operator for operators in found.values() for operator in operators}
    free = [operator for name, operator in weighted.items() if name not in claimed]
    rows = {name: held for name in names if not found[name] and (held := read_rows(written[name], tensors)) is not None}
    layers = {name: {"type": written[name].op_type, "name": name} for name in rows}
    theirs = {place: _read_rows(operator) for place, operator in enumerate(free)}
    matched = match_layers(layers, lambda layer: rows[layer["name"]], theirs, np.array_equal)
    by_weights = {name: [free[place].name for place in places] for name, places in matched.items()}
    return {name: own or by_weights.get(name) or [name] for name, own in found.items()}


def _find_by_name(value: str, weighted: dict[str, graph.Operator]) -> list[str]:
    return [name for name in (value, f"{value}{CONVERTED}") if name in weighted][:1]


def _read_rows(operator: graph.Operator) -> list[np.ndarray]:
    """The layouts in which an operator may hold the rows of a layer."""
    if operator.weight is None:
        return []
    held = operator.float_values()
    return [held, held.reshape(operator.weight.shape).swapaxes(0, 1).reshape(operator.weight.shape[1], -1)]
