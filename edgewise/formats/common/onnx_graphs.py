"""The graphs of an ONNX model, its own and the bodies of If, Loop and Scan: their nodes, ports and weights, and whether they are quantized
already; and the float model in models/onnx, of which other formats are made."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.onnx_reading import list_nodes

MODEL = "model.onnx"
BATCH = "batch"  # name of the dimension that counts samples, where it is open
TF2ONNX = "`python -m tf2onnx.convert {} --opset 18 --output mine.onnx` makes an ONNX file of it, to be brought in its place"
WAYS_TO_ONNX = {  # for plugins.Maker.ELSEWHERE of formats that read ONNX and not these
    "keras": f"{TF2ONNX.format('--keras FILE')} (a SavedModel: `--saved-model FOLDER`)",
    "tflite": TF2ONNX.format("--tflite FILE"),
}
INTEGER = (  # operators of graphs that are quantized; a source that has one stays as it is (see edgewise.sources.onnx_numbers)
    *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger"),
    *("MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QLinearConv", "QLinearMatMul", "QuantizeLinear"),
)

RECURRENT = ("GRU", "LSTM", "RNN")


def find_integer_operator(model: Any) -> str | None:
    """The first operator of a graph that is quantized; None in a float graph."""
    return next((node.op_type for node in list_nodes(model) if node.op_type in INTEGER), None)


def describe_port(tensor: Any) -> dict[str, Any]:
    """An input or output of a graph: name, shape (None: open), dtype."""
    import onnx

    kind = tensor.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return {"name": tensor.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name}


def read_rows(node: Any, tensors: Mapping[str, Any]) -> np.ndarray | None:
    """The weights of a node as [output channels, the rest]; None if it has none of that form. tensors: the initializers by name."""
    from onnx import helper, numpy_helper

    tensor = next((tensors[name] for name in node.input if name in tensors and len(tensors[name].dims) >= 2), None)
    if tensor is None or node.op_type in RECURRENT:
        return None
    held = numpy_helper.to_array(tensor)
    transposed = any(attribute.name == "transB" and helper.get_attribute_value(attribute) for attribute in node.attribute)
    if node.op_type in ("ConvTranspose", "MatMul") or (node.op_type == "Gemm" and not transposed):
        held = np.swapaxes(held, 0, 1)
    return np.asarray(held.reshape(len(held), -1))


def read_float(folder: Path, refusal: str) -> tuple[Any, dict[str, list[dict[str, Any]]]]:
    """The model of models/onnx, and its {"inputs", "outputs"} as plugins.Maker.convert returns them.

    refusal: why the format takes no graph that is quantized already; the ValueError says it.
    """
    import onnx

    model = onnx.load(folder / MODEL)
    quantized = find_integer_operator(model)
    if quantized:
        raise ValueError(f"the file is quantized already ({quantized}): {refusal}; measure it as it is, with onnx")
    held = {tensor.name for tensor in model.graph.initializer}
    inputs = [describe_port(tensor) for tensor in model.graph.input if tensor.name not in held]
    return model, {"inputs": inputs, "outputs": [describe_port(tensor) for tensor in model.graph.output]}
