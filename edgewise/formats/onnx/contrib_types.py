"""The types of what operators of com.microsoft return. ONNX's own inference does not know these operators, and ONNX Runtime's static
quantizer leaves layers float whose inputs have no type."""

from typing import Any

STANDARD = ("", "ai.onnx")
FLOAT = "tensor(float)"  # as ONNX Runtime calls the type


def declare(model: Any) -> None:
    """Add the types of the float outputs of such nodes to the model, in place, as ONNX Runtime infers them."""
    known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    nodes = (node for node in model.graph.node if node.domain not in STANDARD)
    names = [name for node in nodes for name in node.output if name and name not in known]
    if names:
        model.graph.value_info.extend(_infer(model, names))


def _infer(model: Any, names: list[str]) -> list[Any]:
    import onnx
    import onnxruntime

    watched = type(model).FromString(model.SerializeToString())
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    ports = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"]).get_outputs()
    return [onnx.helper.make_tensor_value_info(port.name, onnx.TensorProto.FLOAT, port.shape) for port in ports if port.type == FLOAT]
