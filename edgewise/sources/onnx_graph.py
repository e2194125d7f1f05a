"""Normalize an ONNX graph, so that every quantizer and converter accepts it.

One opset, float32, unique names of nodes, inputs and output named as in the data, constants folded, batch norms fused. Notes tell the user
what was changed.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

OPSET = 20  # older files are converted to it; see conf/format/onnx.yaml
QUANTIZABLE = 13  # the first opset with scales per channel
OLDEST = 7
DOMAINS = ("", "ai.onnx", "com.microsoft")
UNPACKING = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
PRODUCTS = ("Conv", "ConvTranspose", "Gather", "Gemm", "MatMul")
BATCH = "batch"


def find_unsupported(model: Any) -> str | None:
    """What in the model no runtime here can execute, and the next step; or None."""
    opset = _opset(model)
    if opset < OLDEST:
        return f"opset {opset} is too old; export it again with opset {OLDEST} or later"
    foreign = next((node for graph in iterate_graphs(model.graph) for node in graph.node if node.domain not in DOMAINS), None)
    if foreign is not None and foreign.domain not in {function.domain for function in model.functions}:
        return f"node {foreign.name or foreign.output[0]} is {foreign.domain}.{foreign.op_type}, a custom operator; export without it"
    unknown = None if foreign is not None else _find_unknown_operator(model, opset)
    if unknown is not None:
        return unknown
    if not list_inputs(model):
        return "it has no inputs; export it with its inputs"
    strange = next((tensor.name for tensor in list_inputs(model) if not tensor.type.HasField("tensor_type")), None)
    return f"input {strange} is not a tensor; export it with tensors as inputs" if strange is not None else None


def _find_unknown_operator(model: Any, opset: int) -> str | None:
    """The first node with an operator that the model's opset does not have; or None."""
    import onnx

    for graph in iterate_graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and not _is_known(node.op_type, min(opset, onnx.defs.onnx_opset_version())):
                return f"node {node.name or node.output[0]} is {node.op_type}, which ONNX opset {opset} does not have; export it again"
    return None


def _is_known(operator: str, opset: int) -> bool:
    import onnx

    try:
        onnx.defs.get_schema(operator, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return False
    return True


def list_inputs(model: Any) -> list[Any]:
    """Inputs without weights, which old files list among them."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [tensor for tensor in model.graph.input if tensor.name not in held]


def describe_tensor(tensor: Any) -> dict[str, Any]:
    """Name, shape (None for a dynamic dimension) and dtype as numpy spells it."""
    import onnx

    kind = tensor.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return {"name": tensor.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name}


def normalize(model: Any, names: Mapping[str, str], shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[Any, list[str]]:
    """The normalized model and notes on what was changed.

    names: input or output -> new name; other outputs are removed. shapes: new name of an input -> shape of the data.
    """
    from onnxscript import optimizer

    notes = [*_convert_opset(model), *_to_float32(model)]
    real = list_inputs(model)
    model.graph.ClearField("input")
    model.graph.input.extend(real)
    kept = [tensor for tensor in model.graph.output if tensor.name in names]
    notes += [f"output {tensor.name} is removed" for tensor in model.graph.output if tensor.name not in names]
    model.graph.ClearField("output")
    model.graph.output.extend(kept)
    _name_nodes(model)
    lift_constants(model)
    _rename(model.graph, names)
    notes += _fix_shapes(model, shapes)
    owners = _find_owners(model)
    model = optimizer.optimize(model, onnx_shape_inference=False)
    for node, weight, _ in _nodes_with_weights(model):
        node.name = owners.get(weight, node.name)  # a convolution that was fused with its batch norm gets another name
    _name_nodes(model)
    return model, notes


def lift_constants(model: Any) -> None:
    """Make initializers of the tensors in Constant nodes, where some exporters keep all weights: fusions and quantizers look for
    initializers."""
    for graph in iterate_graphs(model.graph):
        kept = []
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in DOMAINS and node.attribute[0].name == "value":
                lifted = graph.initializer.add()
                lifted.CopyFrom(node.attribute[0].t)
                lifted.name = node.output[0]
            else:
                kept.append(node)
        if len(kept) < len(graph.node):
            _replace_nodes(graph, kept)


def _replace_nodes(graph: Any, nodes: list[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)


def _find_owners(model: Any) -> dict[str, str]:
    """Weight -> name of the one node that uses it. Those of a shared weight keep their own names: no fusion changes them."""
    users = [(weight, node.name) for node, weight, _ in _nodes_with_weights(model)]
    count = Counter(weight for weight, _ in users)
    return {weight: name for weight, name in users if count[weight] == 1}


def list_layers(model: Any) -> dict[str, dict[str, Any]]:
    """All nodes with a weight matrix, by name: type, name of the weight, shape."""
    return {node.name: {"type": node.op_type, "weight": weight, "shape": shape} for node, weight, shape in _nodes_with_weights(model)}


def iterate_graphs(graph: Any) -> Iterator[Any]:
    """A graph and the subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from iterate_graphs(inner)


def _opset(model: Any) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _convert_opset(model: Any) -> list[str]:
    """Convert to OPSET if quantizers need it. An opset that onnx cannot convert stays; quantizers may then reject it."""
    from onnx import version_converter

    opset = _opset(model)
    if opset > OPSET:
        return [f"opset {opset} is newer than {OPSET}: runtimes that are two years old may reject it"]
    if opset >= QUANTIZABLE:
        return []
    try:
        raised = version_converter.convert_version(model, OPSET)
    except RuntimeError as error:
        return [f"opset {opset} is kept, onnx cannot convert it to {OPSET}: {' '.join(str(error).split())[:160]}"]
    model.CopyFrom(raised)
    return [f"opset {opset} was converted to {OPSET}, since quantizers need {QUANTIZABLE} or later"]


def _to_float32(model: Any) -> list[str]:
    from onnx import TensorProto, numpy_helper

    names = {TensorProto.FLOAT16: "float16", TensorProto.BFLOAT16: "bfloat16", TensorProto.DOUBLE: "float64"}
    found: set[str] = set()

    def widen(tensor: Any) -> None:
        if tensor.data_type in names:
            found.add(names[tensor.data_type])
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))

    for graph in iterate_graphs(model.graph):
        graph.ClearField("value_info")
        for tensor in graph.initializer:
            widen(tensor)
        for tensor in (*graph.input, *graph.output):
            if tensor.type.tensor_type.elem_type in names:
                found.add(names[tensor.type.tensor_type.elem_type])
                tensor.type.tensor_type.elem_type = TensorProto.FLOAT
        for node in graph.node:
            for attribute in node.attribute:
                widen(attribute.t)
                if node.op_type == "Cast" and attribute.name == "to" and attribute.i in names:
                    attribute.i = TensorProto.FLOAT
    return [f"{name} was converted to float32" for name in sorted(found)]


def _name_nodes(model: Any) -> None:
    """Give a unique name to nodes that have none, or the same as another."""
    taken: set[str] = set()
    for graph in iterate_graphs(model.graph):
        for place, node in enumerate(graph.node):
            if not node.name or node.name in taken:
                node.name = next(name for name in _candidates(node.op_type, place) if name not in taken)
            taken.add(node.name)


def _candidates(kind: str, place: int) -> Iterator[str]:
    yield f"{kind}_{place}"
    yield from (f"{kind}_{place}_{number}" for number in range(1, 1_000_000))


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename values everywhere; other values that already have a new name are renamed too."""
    changed = {new: f"{new}/inner" for new in names.values()} | dict(names)
    for inner in iterate_graphs(graph):
        for tensor in (*inner.input, *inner.output, *inner.initializer):
            tensor.name = changed.get(tensor.name, tensor.name)
        for node in inner.node:
            for values in (node.input, node.output):
                values[:] = [changed.get(name, name) for name in values]


def _fix_shapes(model: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> list[str]:
    """Set dynamic dimensions to those of the data, except the batch. Returns a note for each fixed batch size."""
    notes = []
    for tensor in model.graph.input:
        batch, *sides = tensor.type.tensor_type.shape.dim
        if batch.HasField("dim_value"):
            notes.append(f"input {tensor.name} has the fixed batch size {batch.dim_value}")
        for side, size in zip(sides, shapes[tensor.name][1:], strict=True):
            side.dim_value = size or side.dim_value
    for tensor in (*model.graph.input, *model.graph.output):
        batch = tensor.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_param = BATCH
    return notes


def _nodes_with_weights(model: Any) -> list[tuple[Any, str, list[int]]]:
    """(node, name of its weight, shape) of every product with a constant, also through nodes that only unpack the constant."""
    constants = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}

    def find_constant(name: str) -> str:
        producer = producers.get(name)
        return find_constant(producer.input[0]) if producer is not None and producer.op_type in UNPACKING else name

    found = []
    for node in model.graph.node:
        weight = (
            next((w for w in map(find_constant, node.input) if len(constants.get(w, ())) >= 2), None) if node.op_type in PRODUCTS else None
        )
        if weight is not None:
            found.append((node, weight, constants[weight]))
    return found
