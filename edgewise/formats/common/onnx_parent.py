"""What formats that are made from models/onnx read of it: the float graph and its ports."""

from pathlib import Path
from typing import Any

from edgewise.formats.common.onnx_graphs import describe_port, find_integer_operator

MODEL = "model.onnx"


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
