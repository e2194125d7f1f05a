"""The graphs of an ONNX model, its own and the bodies of If, Loop and Scan, and whether they are quantized already."""

from collections.abc import Iterator
from typing import Any

TF2ONNX = "`python -m tf2onnx.convert {} --opset 18 --output mine.onnx` makes an ONNX file of it, to be brought in its place"
WAYS_TO_ONNX = {  # for plugins.Maker.ELSEWHERE of formats that read ONNX and not these
    "keras": f"{TF2ONNX.format('--keras FILE')} (a SavedModel: `--saved-model FOLDER`)",
    "tflite": TF2ONNX.format("--tflite FILE"),
}
INTEGER = (  # operators of graphs that are quantized; a source that has one stays as it is (see edgewise.sources.onnx_quantized)
    *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeLinear", "DynamicQuantizeMatMul", "MatMulInteger"),
    *("MatMulIntegerToFloat", "MatMulNBits", "QGemm", "QLinearConv", "QLinearMatMul", "QuantizeLinear"),
)


def iterate_graphs(graph: Any) -> Iterator[Any]:
    """A graph and the subgraphs of its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from iterate_graphs(inner)


def find_integer_operator(model: Any) -> str | None:
    """The first operator of a graph that is quantized; None in a float graph."""
    return next((node.op_type for graph in iterate_graphs(model.graph) for node in graph.node if node.op_type in INTEGER), None)
