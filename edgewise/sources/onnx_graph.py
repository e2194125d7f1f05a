"""Bring an ONNX graph of any origin to one shape, so that every quantizer and converter can take it.

One opset, float32, unique names of nodes, inputs and output under the names of the data, constants folded and batch norms fused.
What was changed is told in notes.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

OPSET = 20  # what an older file is brought to; see conf/format/onnx.yaml
QUANTIZABLE = 13  # the first opset with a scale per channel
OLDEST = 7
DOMAINS = ("", "ai.onnx", "com.microsoft")
UNPACKING = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
PRODUCTS = ("Conv", "ConvTranspose", "Gather", "Gemm", "MatMul")
BATCH = "batch"


def unsupported(model: Any) -> str | None:
    """What in the model no runtime here can execute, or None."""
    opset = _opset(model)
    if opset < OLDEST:
        return f"opset {opset} is too old; export it again with opset {OLDEST} or later"
    foreign = next((node for graph in graphs(model.graph) for node in graph.node if node.domain not in DOMAINS), None)
    if foreign is not None and foreign.domain not in {function.domain for function in model.functions}:
        return f"node {foreign.name or foreign.output[0]} is {foreign.domain}.{foreign.op_type}, a custom operator; export it without"
    unknown = None if foreign is not None else _unknown(model, opset)
    if unknown is not None:
        return unknown
    if not inputs(model):
        return "it has no inputs; export it with what it computes from as inputs"
    strange = next((tensor.name for tensor in inputs(model) if not tensor.type.HasField("tensor_type")), None)
    return f"input {strange} is no tensor" if strange is not None else None


def _unknown(model: Any, opset: int) -> str | None:
    """The first node whose operator the model's opset does not have."""
    import onnx

    for graph in graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and not _is_known(node.op_type, min(opset, onnx.defs.onnx_opset_version())):
                return f"node {node.name or node.output[0]} is {node.op_type}, an operator that ONNX opset {opset} does not have"
    return None


def _is_known(operator: str, opset: int) -> bool:
    import onnx

    try:
        onnx.defs.get_schema(operator, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return False
    return True


def inputs(model: Any) -> list[Any]:
    """The real inputs: old files list their weights among them."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [tensor for tensor in model.graph.input if tensor.name not in held]


def describe(tensor: Any) -> dict[str, Any]:
    import onnx

    kind = tensor.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return {"name": tensor.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name}


def normalize(model: Any, names: Mapping[str, str], shapes: Mapping[str, tuple[int | None, ...]]) -> tuple[Any, list[str]]:
    """The model in one shape, and what was changed. names: input or output -> its new name, other outputs are dropped;
    shapes: new name of an input -> shape of the data."""
    from onnxscript import optimizer

    notes = [*_to_one_opset(model), *_to_float32(model)]
    real = inputs(model)
    model.graph.ClearField("input")
    model.graph.input.extend(real)
    wanted = [tensor for tensor in model.graph.output if tensor.name in names]
    notes += [f"output {tensor.name} is left out" for tensor in model.graph.output if tensor.name not in names]
    model.graph.ClearField("output")
    model.graph.output.extend(wanted)
    _name_nodes(model)
    _rename(model.graph, names)
    notes += _fix_shapes(model, shapes)
    owners = {weight: node.name for node, weight, _ in _weighted(model)}
    model = optimizer.optimize(model, onnx_shape_inference=False)
    for node, weight, _ in _weighted(model):
        node.name = owners.get(weight, node.name)  # a convolution that took in its batch norm got another name
    return model, notes


def layers(model: Any) -> dict[str, dict[str, Any]]:
    """Every node that multiplies by a weight matrix, by its name: type, name of the weight, shape."""
    return {node.name: {"type": node.op_type, "weight": weight, "shape": shape} for node, weight, shape in _weighted(model)}


def graphs(graph: Any) -> Iterator[Any]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from graphs(inner)


def _opset(model: Any) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _to_one_opset(model: Any) -> list[str]:
    """Raise the opset where quantizers need it. What onnx cannot raise stays; quantizers may then refuse it with their own reason."""
    from onnx import version_converter

    opset = _opset(model)
    if opset > OPSET:
        return [f"opset {opset} is newer than {OPSET}: runtimes of two years ago may refuse it"]
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

    for graph in graphs(model.graph):
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
    """Give a name to nodes that have none, or one that another has."""
    taken: set[str] = set()
    for graph in graphs(model.graph):
        for place, node in enumerate(graph.node):
            if not node.name or node.name in taken:
                node.name = next(name for name in _candidates(node.op_type, place) if name not in taken)
            taken.add(node.name)


def _candidates(kind: str, place: int) -> Iterator[str]:
    yield f"{kind}_{place}"
    yield from (f"{kind}_{place}_{number}" for number in range(1, 1_000_000))


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename values everywhere; what bears a new name by chance gives way."""
    changed = {new: f"{new}/inner" for new in names.values()} | dict(names)
    for inner in graphs(graph):
        for tensor in (*inner.input, *inner.output, *inner.initializer):
            tensor.name = changed.get(tensor.name, tensor.name)
        for node in inner.node:
            for values in (node.input, node.output):
                values[:] = [changed.get(name, name) for name in values]


def _fix_shapes(model: Any, shapes: Mapping[str, tuple[int | None, ...]]) -> list[str]:
    """Sides that the file leaves open become those of the data; an open batch stays open. Notes where the batch is not."""
    notes = []
    for tensor in model.graph.input:
        batch, *sides = tensor.type.tensor_type.shape.dim
        if batch.HasField("dim_value"):
            notes.append(f"input {tensor.name} takes batches of {batch.dim_value} only")
        for side, size in zip(sides, shapes[tensor.name][1:], strict=True):
            side.dim_value = size or side.dim_value
    for tensor in (*model.graph.input, *model.graph.output):
        batch = tensor.type.tensor_type.shape.dim[0]
        if not batch.HasField("dim_value"):
            batch.dim_param = BATCH
    return notes


def _weighted(model: Any) -> list[tuple[Any, str, list[int]]]:
    """(node, name of its weight, shape) of every product with a constant, also through nodes that only unpack it."""
    held = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}

    def origin(name: str) -> str:
        producer = producers.get(name)
        return origin(producer.input[0]) if producer is not None and producer.op_type in UNPACKING else name

    found = []
    for node in model.graph.node:
        weight = next((w for w in map(origin, node.input) if len(held.get(w, ())) >= 2), None) if node.op_type in PRODUCTS else None
        if weight is not None:
            found.append((node, weight, held[weight]))
    return found
