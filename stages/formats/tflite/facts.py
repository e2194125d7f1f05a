"""What a TFLite file really is, read from its flatbuffer."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.formats.tflite import schema

CONVERSIONS = ("QUANTIZE", "DEQUANTIZE")


def facts(folder: Path) -> Mapping[str, Any]:
    """plugins.Facts of model.tflite. Operators are spelt as the schema does; weights that several nodes share count once, at
    the first of them. A node that meets float tensors with integer weights computes in the runtime's hybrid kernels: "dynamic"."""
    nodes = schema.nodes(schema.read(Path(folder) / schema.FILE))
    unique = {weight.buffer: weight for node in reversed(nodes) for weight in node.weights}
    bytes_by_dtype: Counter[str] = Counter()
    for weight in unique.values():
        bytes_by_dtype[weight.dtype] += len(weight.data)
    return {
        "operators": dict(sorted(Counter(f"{node.operator}[{activations(node)}]" for node in nodes).items())),
        "weights_bytes_by_dtype": dict(sorted(bytes_by_dtype.items())),
        "weights_elements": sum(weight.elements for weight in unique.values()),
        "nodes": [_describe(node, unique) for node in nodes if node.weights],
        "conversions": dict(Counter(node.operator for node in nodes if node.operator in CONVERSIONS)),
    }


def activations(node: schema.Node) -> str:
    integer = any(weight.direct and "int" in weight.dtype for weight in node.weights)
    return "dynamic" if integer and node.output_dtype.startswith("float") else node.output_dtype


def _describe(node: schema.Node, firsts: Mapping[int, schema.Weight]) -> dict[str, Any]:
    return {
        "name": node.name,
        "operator": node.operator,
        "weights_dtype": "+".join(sorted({weight.dtype for weight in node.weights})),
        "activations_dtype": activations(node),
        "elements": sum(weight.elements for weight in node.weights if firsts[weight.buffer] is weight),
    }
