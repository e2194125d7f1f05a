"""A source as an ONNX graph: of a torch program, with the names of its weights kept and repeatable bytes, or of an ONNX file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.formats.common.quiet import suppress_warnings

BATCH = "batch"  # name of the dynamic dimension
DERIVED = "/"  # a constant computed from weight W is named W/Transpose, W/Gather ...
SHAPE_OPERATORS = ("Shape", "Size")  # their results are not values of the weight


def from_onnx(source: Path, opset: int) -> tuple[Any, dict[str, list[str]]]:
    """source/model.onnx unchanged; its layers are its nodes."""
    import onnx

    return onnx.load(source / "model.onnx"), json.loads((source / "layers.json").read_text(encoding="utf-8"))


def from_torch(source: Path, opset: int) -> tuple[Any, dict[str, list[str]]]:
    """source/program.pt2 as a ModelProto, and the nodes of each source layer.

    ValueError names the layers whose weights are in no node of the graph.
    """
    import torch

    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    with suppress_warnings():
        program = torch.export.load(source / "program.pt2")
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            optimize=False,  # weights are named first: folding a constant would lose the name
            input_names=[tensor["name"] for tensor in manifest["inputs"]],
            output_names=[tensor["name"] for tensor in manifest["outputs"]],
            opset_version=opset,
        )
        _name_derived_weights(exported.model.graph)
        exported.optimize()
        model = exported.model_proto
    _strip_metadata(model)
    return model, find_layer_nodes(model, _weight_names(program, manifest["details"]["layers"]))


def _name_derived_weights(graph: Any) -> None:
    """Name each value that is computed from one weight and constants after that weight."""
    weights = {id(value): name for name, value in graph.initializers.items()}
    constants = set(weights)
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if not all(id(value) in constants for value in inputs):
            continue
        constants.update(id(value) for value in node.outputs)
        weight = next((weights[id(value)] for value in inputs if id(value) in weights), None)
        if weight is not None and node.op_type not in SHAPE_OPERATORS:
            node.outputs[0].name = f"{weight}{DERIVED}{node.op_type}"
            weights[id(node.outputs[0])] = node.outputs[0].name


def _strip_metadata(model: Any) -> None:
    """Remove stack traces, paths, and inferred shapes, which quantizers infer again and differently."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    for tensor in (*graph.input, *graph.output):
        for dim in tensor.type.tensor_type.shape.dim[:1]:
            if dim.dim_param:
                dim.dim_param = BATCH


def _weight_names(program: Any, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Source layer -> possible names of its weight: its own, and those of equal weights, with which it may have been merged."""
    import torch

    tensors = program.state_dict

    def names(weight: str) -> list[str]:
        own = tensors[weight]
        equal = [name for name, other in tensors.items() if other.shape == own.shape and torch.equal(other, own)]
        return [weight, *equal]

    return {layer: names(entry["weight"]) for layer, entry in layers.items()}


def find_layer_nodes(model: Any, weights: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Source layer -> names of the nodes that use its weight. weights: source layer -> names of its weight, best first.

    ValueError names the layers without a node.
    """
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name.partition(DERIVED)[0], []).append(node.name)
    found = {layer: next((users[n] for n in names if n in users), []) for layer, names in weights.items()}
    lost = [layer for layer, nodes in found.items() if not nodes]
    if lost:
        raise ValueError(f"no node of the ONNX graph uses the weights of layer {', '.join(lost)}: keep_float could not reach it")
    return found


READERS = {"torch": from_torch, "onnx": from_onnx}
