"""Which node of OpenVINO's graph computes which layer of a source that it read itself: found by the weights.

A batch norm folded into a convolution scales each output channel by a number of its own, so rows (one an output channel) are
compared by their direction alone, either sign. Where several layers have equal weights, the order of execution decides.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from stages.formats.openvino.facts import constant, weights

LEAST_COSINE = 0.999


def match(layers: Mapping[str, Mapping[str, Any]], values: Mapping[str, np.ndarray], model: Any) -> dict[str, list[Any]]:
    """Nodes of each layer path, in the order of execution. layers: {path: {"type", "weight", "shape"}}; values: weights by those names,
    in torch's layout. ValueError names a layer that is in no node."""
    nodes = [node for node in model.get_ordered_ops() if weights(node)]
    rows = [_node_rows(node) for node in nodes]
    sharing: dict[tuple[int, ...], list[str]] = {}
    for path, layer in layers.items():
        same = _same_table if layer["type"] == "Embedding" else _same_directions
        wanted = _layer_rows(layer["type"], values[layer["weight"]])
        found = tuple(i for i, candidates in enumerate(rows) if any(same(wanted, candidate) for candidate in candidates))
        if not found:
            raise ValueError(f"layer '{path}' ({layer['type']}) is in no node of OpenVINO's graph: keep_float could not reach it")
        sharing.setdefault(found, []).append(path)
    return {path: [nodes[i] for i in mine] for found, paths in sharing.items() for path, mine in _share(paths, found).items()}


def _share(paths: list[str], found: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Layers with equal weights get their nodes in order; the last of them those that are left."""
    final = len(found) - 1
    shared = {path: (found[min(i, final)],) for i, path in enumerate(paths[:-1])}
    return {**shared, paths[-1]: found[min(len(paths) - 1, final) :]}


def _layer_rows(kind: str, weight: np.ndarray) -> np.ndarray:
    """[output channels, the rest], in torch's order."""
    weight = np.swapaxes(weight, 0, 1) if kind.startswith("ConvTranspose") else weight
    return weight.reshape(len(weight), -1)


def _node_rows(node: Any) -> list[np.ndarray]:
    """The layouts in which a node's largest constant may hold a layer's rows."""
    origins = (constant(value.get_node()) for value in node.input_values())
    held = max((origin.get_data() for origin in origins if origin is not None), key=lambda array: array.size)
    kind = node.get_type_name()
    if kind == "ConvolutionBackpropData":
        held = np.swapaxes(held, 0, 1)
    if kind.startswith("Group"):  # [groups, outputs of each, ...]
        held = held.reshape(-1, *held.shape[2:])
    return [held, held.T] if held.ndim == 2 else [held.reshape(len(held), -1)] if held.ndim else []


def _same_directions(layer: np.ndarray, node: np.ndarray) -> bool:
    """Every row of the node is a multiple of the layer's; a row of zeros (a dead channel) is a multiple of any."""
    if layer.shape != node.shape:
        return False
    lengths = np.linalg.norm(layer, axis=1) * np.linalg.norm(node, axis=1)
    return bool(np.all(np.abs(np.einsum("ij,ij->i", layer, node)) >= LEAST_COSINE * lengths))


def _same_table(layer: np.ndarray, node: np.ndarray) -> bool:
    return layer.shape == node.shape and np.array_equal(layer, node)
