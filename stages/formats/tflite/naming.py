"""Names inside a TFLite file: of the signature as the source has them, of nodes by the layers that they compute."""

from collections.abc import Mapping, Sequence
from typing import Any

from stages.formats.tflite import schema

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
    nodes = schema.nodes(model)
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
    ours, theirs = ([node for node in schema.nodes(each) if node.weights] for each in (model, original))
    if [(n.operator, n.weights[0].shape) for n in ours] == [(n.operator, n.weights[0].shape) for n in theirs]:
        for mine, other in zip(ours, theirs, strict=True):
            model.subgraphs[0].tensors[mine.output].name = other.name.encode()
