"""Names inside a TFLite file: the signature gets those of the source, nodes those of the layers that they compute."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.formats.common.weighted_nodes import is_part_of_table, match_layers, number_names
from edgewise.formats.tflite import facts
from edgewise.formats.tflite.facts import Node

CHANNELS_LAST = ("DEPTHWISE_CONV_2D", "CONV_3D")  # their constants have the output channel as the last dimension
SIGNATURE = "serving_default"
NODE = "#node"  # behind the name of a layer that a port has too


def match_nodes(layers: Mapping[str, Mapping[str, Any]], weights: Mapping[str, np.ndarray], nodes: Sequence[Node]) -> dict[str, list[int]]:
    """Positions in `nodes` for each layer path. layers: {path: {"type", "weight", "shape"}}; weights by those names.
    ValueError names a layer that is in no node."""
    rows = {i: _node_rows(node) for i, node in enumerate(nodes) if node.weights and node.weights[0].dtype == "float32"}
    found = match_layers(layers, lambda layer: _layer_rows(layer["type"], weights[layer["weight"]]), rows, is_part_of_table)
    path = next((path for path, places in found.items() if not places), None)
    if path is not None:
        kind, shape = layers[path]["type"], "x".join(map(str, layers[path]["shape"]))
        dtype = weights[layers[path]["weight"]].dtype
        if dtype != np.float32:
            raise ValueError(
                f"layer '{path}' ({kind} {shape}) computes in {dtype}, which TFLite casts; export the model after model.float()"
            )
        raise ValueError(f"layer '{path}' ({kind} {shape}) is in no node of the converted file: its weights were rewritten")
    return found


def _layer_rows(kind: str, weight: np.ndarray) -> np.ndarray:
    """The weight as [output channels, rest with input channels last], as TFLite stores it."""
    if kind.startswith("ConvTranspose") or kind == "Conv1D":  # input channels come first
        weight = np.swapaxes(weight, 0, 1)
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)


def _node_rows(node: Node) -> list[np.ndarray]:
    """The layouts in which a node's constant may hold the rows of a layer."""
    values = node.weights[0].values()
    if node.operator in CHANNELS_LAST:
        return [values.reshape(-1, values.shape[-1]).T]
    if node.operator == "TRANSPOSE_CONV":
        return [values.reshape(len(values), -1), values[:, ::-1, ::-1].reshape(len(values), -1)]
    if values.ndim == 2:
        return [values, values.T]
    return [values.reshape(len(values), -1), values.reshape(-1, values.shape[-1])]


def sort_ports(model: Any) -> None:
    """Put the inputs and the outputs of the graph in the order of their names in the signature; TensorFlow's converter has none."""
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    graph.inputs, graph.outputs = (
        [entry.tensorIndex for entry in sorted(entries, key=lambda entry: entry.name)] for entries in (signature.inputs, signature.outputs)
    )


def port_names(model: Any) -> tuple[list[str], list[str]]:
    """Names of the inputs and of the outputs in the signature, in the order of the graph."""
    graph, (signature,) = model.subgraphs[0], model.signatureDefs
    sides = []
    for entries, indices in ((signature.inputs, graph.inputs), (signature.outputs, graph.outputs)):
        names = [(entry.tensorIndex, entry.name.decode()) for entry in entries]
        sides.append([names.pop([at for at, _ in names].index(int(index)))[1] for index in indices])
    return sides[0], sides[1]


def name_signature(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Give the model one signature with these names, in the order of the graph's inputs and outputs; files of older converters have none.
    ValueError if the numbers do not match."""
    from ai_edge_litert import schema_py_generated as generated

    graph, signatures = model.subgraphs[0], model.signatureDefs or []
    if len(signatures) > 1:
        keys = ", ".join(entry.signatureKey.decode() for entry in signatures)
        raise ValueError(
            f"the file has several signatures ({keys}); Edgewise supports files with one; convert the model with a single signature"
        )
    sides = []
    for indices, names, side in ((graph.inputs, inputs, "inputs"), (graph.outputs, outputs, "outputs")):
        if len(indices) != len(names):
            raise ValueError(f"the file has {len(indices)} {side}, the source {len(names)} ({', '.join(names)})")
        sides.append([generated.TensorMapT(name=name.encode(), tensorIndex=int(i)) for i, name in zip(indices, names, strict=True)])
    key = signatures[0].signatureKey if signatures else SIGNATURE.encode()
    model.signatureDefs = [generated.SignatureDefT(inputs=sides[0], outputs=sides[1], signatureKey=key, subgraphIndex=0)]


def name_nodes(model: Any, found: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """Rename all tensors: those of the signature as in the signature, nodes of a layer by its path (PATH#2 for a second call), others
    tensor_N. found: positions of the nodes of each layer. Returns their names, each once: a port may be called as a layer is."""
    nodes = facts.read_nodes(model)
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    ports = {entry.name.decode(): entry.tensorIndex for entry in (*signature.inputs, *signature.outputs)}
    for index, tensor in enumerate(graph.tensors):
        tensor.name = f"tensor_{index}".encode()
    for name, index in ports.items():
        graph.tensors[index].name = name.encode()
    named: dict[str, list[str]] = {}
    for path, places in found.items():
        outputs = [nodes[place].output for place in places]
        names = zip(number_names(path, len(places)), outputs, strict=True)
        named[path] = [name if ports.get(name, output) == output else f"{name}{NODE}" for name, output in names]
        for output, name in zip(outputs, named[path], strict=True):
            graph.tensors[output].name = name.encode()
    return named


def copy_names(original: Any, model: Any) -> None:
    """Name the nodes of a quantized model as in its float original, if both have the same weights in the same order."""
    ours, theirs = ([node for node in facts.read_nodes(each) if node.weights] for each in (model, original))
    if [(n.operator, n.weights[0].shape) for n in ours] == [(n.operator, n.weights[0].shape) for n in theirs]:
        for mine, other in zip(ours, theirs, strict=True):
            model.subgraphs[0].tensors[mine.output].name = other.name.encode()
