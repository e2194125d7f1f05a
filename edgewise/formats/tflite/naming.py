"""Which node of a converted file computes which layer of the source.

Converted names are unreliable, so layers are found by their weights. A batch norm folded into a convolution scales each output
channel by a number of its own, so rows (one an output channel) are compared by their direction alone, either sign. Where
several layers have equal weights, the order of execution decides.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.formats.tflite import facts
from edgewise.formats.tflite.facts import Node

CHANNELS_LAST = ("DEPTHWISE_CONV_2D", "CONV_3D")  # their constants have the output channel as the last dimension
LEAST_COSINE = 0.999


def match(layers: Mapping[str, Mapping[str, Any]], weights: Mapping[str, np.ndarray], nodes: Sequence[Node]) -> dict[str, list[int]]:
    """Positions in `nodes` for each layer path. layers: {path: {"type", "weight", "shape"}}; weights by those names.
    ValueError names the layer that is in no node."""
    rows = {i: _node_rows(node) for i, node in enumerate(nodes) if node.weights and node.weights[0].dtype == "float32"}
    sharing: dict[tuple[int, ...], list[str]] = {}
    for path, layer in layers.items():
        same = _same_embedding if layer["type"] == "Embedding" else _same_directions
        wanted = _layer_rows(layer["type"], weights[layer["weight"]])
        found = tuple(i for i, candidates in rows.items() if any(same(wanted, candidate) for candidate in candidates))
        if not found:
            shape = "x".join(map(str, layer["shape"]))
            raise ValueError(f"layer '{path}' ({layer['type']} {shape}) is in no node of the converted file: its weights were rewritten")
        sharing.setdefault(found, []).append(path)
    return {path: mine for found, paths in sharing.items() for path, mine in _share(paths, found).items()}


def _share(paths: Sequence[str], found: Sequence[int]) -> dict[str, list[int]]:
    """Nodes in order to layers in order; the last layer takes those that are left (a single one, called repeatedly, all)."""
    final = len(found) - 1  # more layers than nodes: the converter merged equal ones, and the rest share the last node
    shared = {path: [found[min(i, final)]] for i, path in enumerate(paths[:-1])}
    return {**shared, paths[-1]: list(found[min(len(paths) - 1, final) :])}


def _layer_rows(kind: str, weight: np.ndarray) -> np.ndarray:
    """[output channels, the rest with input channels last], as TFLite stores weights."""
    if kind.startswith("ConvTranspose") or kind == "Conv1D":  # both keep the input channel first
        weight = np.swapaxes(weight, 0, 1)
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)


def _node_rows(node: Node) -> list[np.ndarray]:
    """The layouts in which a node's constant may hold a layer's rows."""
    values = node.weights[0].values()
    if node.operator in CHANNELS_LAST:
        return [values.reshape(-1, values.shape[-1]).T]
    if node.operator == "TRANSPOSE_CONV":
        return [values.reshape(len(values), -1), values[:, ::-1, ::-1].reshape(len(values), -1)]
    if values.ndim == 2:
        return [values, values.T]
    return [values.reshape(len(values), -1), values.reshape(-1, values.shape[-1])]


def _same_directions(layer: np.ndarray, node: np.ndarray) -> bool:
    """Every row of the node is a multiple of the layer's; a row of zeros (a dead channel) is a multiple of any."""
    return layer.shape == node.shape and _parallel(layer[:4], node[:4]) and _parallel(layer, node)


def _parallel(ours: np.ndarray, theirs: np.ndarray) -> bool:
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    return bool(np.all(np.abs(np.einsum("ij,ij->i", ours, theirs)) >= LEAST_COSINE * lengths))


def _same_embedding(layer: np.ndarray, node: np.ndarray) -> bool:
    """Every row of the node is a row of the table: look-ups of fixed positions are folded into the rows they give."""
    if layer.shape[1] != node.shape[1] or not node.any():
        return False
    table = {row.tobytes() for row in np.ascontiguousarray(layer)}
    return all(row.tobytes() in table for row in np.ascontiguousarray(node))


# Names inside a TFLite file: of the signature as the source has them, of nodes by the layers that they compute.

SIGNATURE = "serving_default"


def name_signature(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give a model one signature with these names; files of older converters have none. ValueError for another count."""
    from ai_edge_litert import schema_py_generated as generated

    graph = model.subgraphs[0]
    if not model.signatureDefs:
        sides = [[generated.TensorMapT(tensorIndex=index) for index in indices] for indices in (graph.inputs, graph.outputs)]
        model.signatureDefs = [generated.SignatureDefT(inputs=sides[0], outputs=sides[1], signatureKey=SIGNATURE.encode(), subgraphIndex=0)]
    if len(model.signatureDefs) != 1:
        keys = ", ".join(entry.signatureKey.decode() for entry in model.signatureDefs)
        raise ValueError(f"the file has several signatures ({keys}); Edgewise takes files with one")
    signature = model.signatureDefs[0]
    for entries, names, side in ((signature.inputs, inputs, "inputs"), (signature.outputs, outputs, "outputs")):
        if len(entries) != len(names):
            raise ValueError(f"the file has {len(entries)} {side}, the source {len(names)} ({', '.join(names)})")
        for entry, name in zip(entries, names, strict=True):
            entry.name = name.encode()


def name_nodes(model: Any, found: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Name all tensors anew: those of the signature as it has them, a layer's nodes by its path (PATH#2 where it is called
    again), the others tensor_N. found: positions of a layer's nodes. Returns the node names of each layer."""
    nodes = facts.read_nodes(model)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor_{index}".encode()
    for entry in (*signature.inputs, *signature.outputs):
        graph.tensors[entry.tensorIndex].name = entry.name
    named = {path: [f"{path}#{n}" if n > 1 else path for n in range(1, len(places) + 1)] for path, places in found.items()}
    for path, places in found.items():
        for place, name in zip(places, named[path], strict=True):
            graph.tensors[nodes[place].output].name = name.encode()
    return named


def copy_names(original: Any, model: Any) -> None:
    """Name the nodes of a quantized model as those of its float original, where both hold the same weights in the same order."""
    ours, theirs = ([node for node in facts.read_nodes(each) if node.weights] for each in (model, original))
    if [(n.operator, n.weights[0].shape) for n in ours] == [(n.operator, n.weights[0].shape) for n in theirs]:
        for mine, other in zip(ours, theirs, strict=True):
            model.subgraphs[0].tensors[mine.output].name = other.name.encode()
