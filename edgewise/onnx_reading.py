"""Walk an ONNX graph: its subgraphs, its nodes, its constants. Sources and formats may both import it, beside errors and plugins."""

from collections.abc import Iterator
from typing import Any


def iterate_graphs(graph: Any) -> Iterator[Any]:
    """A graph and the subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from iterate_graphs(inner)


def make_names(kind: str, place: int) -> Iterator[str]:
    """Names for a node of this kind at this place, best first."""
    yield f"{kind}_{place}"
    yield from (f"{kind}_{place}_{number}" for number in range(1, 1_000_000))


def list_nodes(model: Any) -> list[Any]:
    """The nodes of a graph and of its subgraphs."""
    return [node for graph in iterate_graphs(model.graph) for node in graph.node]


def find_constants(model: Any) -> dict[str, Any]:
    """Name -> tensor, of initializers and Constant nodes, those of subgraphs included."""
    held = {tensor.name: tensor for graph in iterate_graphs(model.graph) for tensor in graph.initializer}
    nodes = (node for node in list_nodes(model) if node.op_type == "Constant" and node.attribute[0].name == "value")
    return held | {node.output[0]: node.attribute[0].t for node in nodes}


def read_shapes(model: Any) -> dict[str, list[int | None]]:
    """Name of a value -> its shape as onnx infers it, None for an open dimension; values of unknown rank are missing."""
    from onnx import shape_inference

    inferred = shape_inference.infer_shapes(model, data_prop=True)
    found: dict[str, list[int | None]] = {}
    for graph in iterate_graphs(inferred.graph):
        for tensor in (*graph.value_info, *graph.input, *graph.output):
            kind = tensor.type.tensor_type
            if kind.HasField("shape"):
                found[tensor.name] = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
    return found | {name: list(tensor.dims) for name, tensor in find_constants(model).items()}


def read_attributes(node: Any) -> dict[str, Any]:
    """The attributes of a node by name, as Python values."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
