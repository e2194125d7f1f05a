"""What a float ONNX file really holds, read from its graph.

Weights are float constants of products with two or more dimensions, and of other operators with two or more above 1. What tract computes
with stands in no file: it is an engine setting.
"""

from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from edgewise.formats.common.weighted_nodes import collect_facts
from edgewise.formats.tract.make import PRODUCTS
from edgewise.formats.tract.run import MODEL
from edgewise.onnx_reading import iterate_graphs

BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
PASSED_ON = ("Cast", "Identity")


class Weight(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return prod(self.shape)


def facts(folder: Path) -> dict[str, Any]:
    """plugins.Facts of model.onnx."""
    import onnx

    nodes = read_nodes(onnx.load(Path(folder) / MODEL))
    return collect_facts(nodes, describe, lambda weight: (weight.dtype, 8 * BYTES[weight.dtype]))


def read_nodes(model: Any) -> list[tuple[Any, list[Weight]]]:
    """The nodes that read weights, and these."""
    graphs = [*iterate_graphs(model.graph)]
    held = {tensor.name: read_weight(tensor) for graph in graphs for tensor in graph.initializer}
    nodes = [node for graph in graphs for node in graph.node]
    for node in nodes:  # a producer stands before its readers
        if node.op_type in PASSED_ON and node.input[0] in held:
            held[node.output[0]] = held[node.input[0]]
    readers = [node for node in nodes if node.op_type not in PASSED_ON]
    read = [(node, [held[name] for name in node.input if name in held]) for node in readers]
    return [(node, found) for node, weights in read if (found := [weight for weight in weights if is_weight(node, weight)])]


def read_weight(tensor: Any) -> Weight:
    import onnx

    return Weight(tensor.name, onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).name, tuple(tensor.dims))


def is_weight(node: Any, weight: Weight) -> bool:
    dimensions = len(weight.shape) if node.op_type in PRODUCTS else sum(size > 1 for size in weight.shape)
    return dimensions >= 2 and weight.dtype in BYTES


def describe(node: Any, weights: list[Weight], elements: int) -> dict[str, Any]:
    return {
        "name": node.name,
        "operator": node.op_type,
        "weights_dtype": max(weights, key=lambda weight: weight.elements).dtype,
        "activations_dtype": "float32",
        "elements": elements,
    }
