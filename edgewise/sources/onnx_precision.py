"""Float types of an ONNX graph.

Converters and quantizers take float32. So a file of another type is widened for them, which changes no weight. A float16 file is kept
beside it, as the fp16 variant: narrowing the widened graph again would compute in float16 what such a file may hold in float32 on purpose.
Its outputs, with which all variants are compared, are rounded at each of its operators; how far a variant has to agree with them is
therefore a matter of float16, see edgewise.proof.checks.least_sqnr_db.
"""

from typing import Any

import numpy as np

from edgewise.sources.onnx_reading import find_constants, iterate_graphs, list_nodes

PRODUCTS = ("Conv", "ConvTranspose", "GRU", "Gemm", "LSTM", "MatMul", "RNN")
SMALL = ("float16", "bfloat16")
INNER = "/float16"  # ending of the name of a port inside the graph, where the file has float16 and the port has float32


def find_precision(model: Any) -> str | None:
    """float16 or bfloat16, if that is the type of all weights of its products; None for any other file."""
    constants = find_constants(model)
    names = {name for node in list_nodes(model) if node.op_type in PRODUCTS for name in node.input}
    kinds = {_dtype(constants[name].data_type) for name in names & constants.keys()}
    return kinds.pop() if len(kinds) == 1 and kinds <= {*SMALL} else None


def to_float32(model: Any) -> list[str]:
    """Widen all of the graph. Returns a note for each type that was converted."""
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
                if attribute.name in ("to", "dtype") and attribute.i in names:
                    attribute.i = TensorProto.FLOAT
    return [f"{name} was converted to float32" for name in sorted(found)]


def widen_ports(graph: Any) -> None:
    """Give float16 inputs and outputs of a graph the type float32, with casts behind and before them."""
    from onnx import TensorProto, helper

    ports = {t.name: t for t in (*graph.input, *graph.output) if t.type.tensor_type.elem_type == TensorProto.FLOAT16}
    for inner in iterate_graphs(graph):
        for node in inner.node:
            for values in (node.input, node.output):
                values[:] = [f"{name}{INNER}" if name in ports else name for name in values]
    given = [tensor.name for tensor in graph.input if tensor.name in ports]
    casts = {name: helper.make_node("Cast", [name], [f"{name}{INNER}"], f"{name}/Cast", to=TensorProto.FLOAT16) for name in given}
    made = [name for name in ports if name not in given]
    ends = [helper.make_node("Cast", [f"{name}{INNER}"], [name], f"{name}/Cast", to=TensorProto.FLOAT) for name in made]
    nodes = [*casts.values(), *(type(node).FromString(node.SerializeToString()) for node in graph.node), *ends]
    graph.ClearField("node")
    graph.node.extend(nodes)
    for tensor in ports.values():
        tensor.type.tensor_type.elem_type = TensorProto.FLOAT


def _dtype(code: int) -> str:
    from onnx import helper

    return str(helper.tensor_dtype_to_np_dtype(code).name)
