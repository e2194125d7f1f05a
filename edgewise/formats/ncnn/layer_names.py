"""Names of the layers of a net: those of the source's layers, found by their weights, since pnnx numbers its own."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.weighted_nodes import is_part_of_table, match_layers, number_names
from edgewise.formats.ncnn.net_files import Layer, plain_name

TABLE = "Embedding"


def name_layers(layers: Sequence[Layer], source: Path, manifest: Mapping[str, Any]) -> tuple[list[Layer], dict[str, list[str]]]:
    """The layers with their names, and the names for each source layer. A layer of the source that is in none keeps its own name, which is
    that of no layer: only a setting that keeps it float has to fail then."""
    known = READERS[manifest["format"]](source, manifest)
    rows = {place: found for place, layer in enumerate(layers) if (found := node_rows(layer))}
    matched = match_layers(known, lambda layer: layer["rows"], rows, is_part_of_table)
    names: dict[int, str] = {}
    for path, places in matched.items():
        for place, name in zip(places, number_names(plain_name(path), len(places)), strict=True):
            names.setdefault(place, name)
    taken = set(names.values())
    others = {layer.name: f"{layer.name}/{layer.kind}" for layer in layers if layer.name in taken}
    named = [replace(layer, name=names.get(i, others.get(layer.name, layer.name))) for i, layer in enumerate(layers)]
    return named, {path: [names[place] for place in places] or [plain_name(path)] for path, places in matched.items()}


def node_rows(layer: Layer) -> list[np.ndarray]:
    """The layouts in which a layer may hold [output channels, rest]."""
    held = [array for name, array in layer.arrays.items() if name.startswith(("weight", "constant")) and array.ndim == 2]
    joined = [np.concatenate([layer.arrays[f"weight_{part}"] for part in ("query", "key", "value")])] if mixes(layer) else []
    return [view for array in (*held, *joined) for view in (array, array.T)]


def mixes(layer: Layer) -> bool:
    """Whether queries, keys and values have inputs of one size, as in torch's in_proj_weight."""
    shapes = {array.shape for name, array in layer.arrays.items() if name in ("weight_query", "weight_key", "weight_value")}
    return layer.kind == "MultiHeadAttention" and len(shapes) == 1


def read_torch_layers(source: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    from safetensors.numpy import load_file

    weights = load_file(source / "weights.safetensors")
    return {
        path: {"type": layer["type"], "rows": turn(weights[layer["weight"]], layer["type"].startswith("ConvTranspose"))}
        for path, layer in manifest["details"]["layers"].items()
    }


def turn(weight: np.ndarray, transposed: bool) -> np.ndarray:
    """[output channels, rest], float32. transposed: the weight of a transposed convolution, whose input channels come first."""
    weight = np.swapaxes(weight, 0, 1) if transposed else weight
    return np.ascontiguousarray(weight.reshape(len(weight), -1), np.float32)


def read_onnx_layers(source: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The layers whose node reads its weight from the file itself."""
    import onnx

    graph = onnx.load(source / "model.onnx").graph
    held = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) >= 2}
    nodes = {node.name: node for node in graph.node}
    layers: dict[str, list[str]] = json.loads((source / "layers.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = {}
    for path, names in layers.items():
        node = nodes.get(next(iter(names), ""))
        weight = next((held[name] for name in node.input if name in held), None) if node is not None else None
        values = np.zeros((1, 0), np.float32) if weight is None or node is None else read_onnx_rows(node, weight)
        found[path] = {"type": TABLE if node is not None and node.op_type == "Gather" else "", "rows": values}
    return found


def read_onnx_rows(node: Any, weight: Any) -> np.ndarray:
    """The weight of a node as [output channels, rest]; of a product also the other way round would do, see `node_rows`."""
    import onnx

    values = turn(onnx.numpy_helper.to_array(weight), node.op_type == "ConvTranspose")
    return values.T if node.op_type == "MatMul" else values


READERS = {"torch": read_torch_layers, "onnx": read_onnx_layers}
