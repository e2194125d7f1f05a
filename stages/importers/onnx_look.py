"""What an ONNX file expects and is, without running it."""

from collections import Counter
from pathlib import Path
from typing import Any

from stages.core.inspection import Inspection, Port, product, total
from stages.importers import onnx_file, onnx_graph


def look(path: Path) -> Inspection:
    import onnx

    model = onnx_file.load(path)
    held = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for graph in onnx_graph.graphs(model.graph) for node in graph.node]
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    notes = [f"opset {opset} is raised to {onnx_graph.OPSET} for the quantizers"] if opset < onnx_graph.QUANTIZABLE else []
    return Inspection(
        kind=f"ONNX model, opset {opset}, IR version {model.ir_version}, by {model.producer_name or 'an unnamed tool'}",
        inputs=tuple(_port(tensor) for tensor in onnx_graph.inputs(model)),
        outputs=tuple(_port(tensor) for tensor in model.graph.output),
        operators=Counter(node.op_type for node in nodes),
        parameters=sum(onnx.numpy_helper.to_array(tensor).size for tensor in model.graph.initializer if _is_weight(tensor)),
        multiply_adds=_multiply_adds(model, nodes, held),
        notes=tuple(notes),
        model={"name": "onnx_file", "path": str(path)},
    )


def _port(tensor: Any) -> Port:
    entry = onnx_graph.describe(tensor)
    return Port(entry["name"], tuple(entry["shape"]), entry["dtype"])


def _is_weight(tensor: Any) -> bool:
    import onnx

    return onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f"


def _multiply_adds(model: Any, nodes: list[Any], held: dict[str, tuple[int, ...]]) -> int | None:
    """By inferred shapes, for a batch of 1."""
    import onnx

    for tensor in onnx_graph.inputs(model):
        tensor.type.tensor_type.shape.dim[0].dim_value = 1
    for tensor in model.graph.output:
        tensor.ClearField("type")  # it may say another batch
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = (*inferred.value_info, *inferred.input, *inferred.output)
    sides = {t.name: [d.dim_value if d.HasField("dim_value") else None for d in t.type.tensor_type.shape.dim] for t in known}
    shapes: dict[str, Any] = {**{name: shape for name, shape in sides.items() if shape}, **held}
    return total([_of(node, shapes) for node in nodes])


def _of(node: Any, shapes: dict[str, Any]) -> int | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    a, b, out = (shapes.get(name, (None,)) for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type in ("Conv", "ConvTranspose"):
        return product(a if node.op_type == "ConvTranspose" else out, b[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return product(out, a[-2:-1] if transposed else a[-1:])
