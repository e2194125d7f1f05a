"""Cut an ONNX model into parts that together compute the same as the whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.formats.onnx.run import MODEL

UNSUPPORTED = None
QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> "Graph":
    """plugins.Splitter.cuttable: read from the file alone."""
    import onnx

    return Graph(onnx.shape_inference.infer_shapes(onnx.load(folder / MODEL)))


class Graph:
    """plugins.Cuttable. Nodes that dequantize, or depend on constants only, are not steps: each part has its own copy of those it uses.
    So quantized tensors cross a cut as integers, and each part fuses its operators as the whole does."""

    channel_axis = 1

    def __init__(self, model: Any):
        import onnx

        self.model, graph = model, model.graph
        self.files = (MODEL,)
        self._stored = {t.name: onnx.numpy_helper.to_array(t).nbytes for t in graph.initializer}
        self._typed = {value.name for value in (*graph.value_info, *graph.output) if value.type.tensor_type.elem_type}
        self.inputs = [_describe(value) for value in graph.input if value.name not in self._stored]
        self.outputs = [_describe(value) for value in graph.output]
        self._copied = _find_copied(graph, set(self._stored))
        self._nodes = [node for node in _sort_nodes(graph) if not self._copied.keys() & set(_outputs(node))]
        self._fused = {name for node in self._nodes if node.op_type == QUANTIZE for name in node.input}
        self.steps = self._steps()

    def write(self, start: int, end: int, folder: Path) -> None:
        import onnx
        from onnx.utils import Extractor

        given, wanted = self._crossing(start), self._crossing(end)
        part = Extractor(self.model).extract_model(given, wanted)
        part.ir_version = self.model.ir_version
        onnx.save(part, folder / MODEL)

    def _steps(self) -> list[Mapping[str, Any]]:
        seen: set[str] = set()
        steps: list[Mapping[str, Any]] = []
        for place, node in enumerate(self._nodes):
            fresh = self._held(node.input) - seen
            seen |= fresh
            crossing = self._crossing(place + 1)
            steps.append(
                {
                    "node": node.name,
                    "weights_bytes": sum(self._stored[name] for name in fresh),
                    "crossing": len(crossing) if all(map(self._can_cross, crossing)) else 0,
                }
            )
        return steps

    def _held(self, names: Any) -> set[str]:
        """Initializers among these tensors, or behind them through copied nodes."""
        found = {name for name in names if name in self._stored}
        for name in set(names) & set(self._copied):
            found |= self._held(self._copied[name].input)
        return found

    def _reads(self, names: Any) -> set[str]:
        """Tensors that these are computed from and that are results of steps, or inputs of the model."""
        found = {name for name in names if name and name not in self._stored and name not in self._copied}
        for name in set(names) & set(self._copied):
            found |= self._reads(self._copied[name].input)
        return found

    def _crossing(self, place: int) -> list[str]:
        """Tensors that cross a cut before step `place`; at the ends, the model's inputs and outputs."""
        given, wanted = ([entry["name"] for entry in side] for side in (self.inputs, self.outputs))
        if place in (0, len(self._nodes)):
            return wanted if place else given
        later = {name for node in self._nodes[place:] for name in self._reads(_inputs(node))} | self._reads(wanted)
        return [name for name in (*given, *(n for node in self._nodes[:place] for n in _outputs(node))) if name in later]

    def _can_cross(self, name: str) -> bool:
        """Whether its type is known and it is not between an operator and its quantization, which the runtime fuses."""
        return (name in self._typed or any(name == entry["name"] for entry in self.inputs)) and name not in self._fused


def _find_copied(graph: Any, stored: set[str]) -> dict[str, Any]:
    """Tensor -> its node, for tensors that are dequantized or depend on constants only."""
    copied: dict[str, Any] = {}
    constant = set(stored)
    for node in _sort_nodes(graph):
        fixed = constant.issuperset(filter(None, node.input))
        if fixed or node.op_type == DEQUANTIZE:
            copied.update(dict.fromkeys(_outputs(node), node))
        if fixed:
            constant.update(_outputs(node))
    return copied


def _sort_nodes(graph: Any) -> list[Any]:
    """The nodes in topological order, which quantizers do not keep."""
    nodes = list(graph.node)
    makers = {name: place for place, node in enumerate(nodes) for name in _outputs(node)}
    done: dict[int, Any] = {}
    for last in range(len(nodes)):
        waiting = [last]
        while waiting:
            due = [makers[name] for name in _inputs(nodes[waiting[-1]]) if name in makers and makers[name] not in done]
            if due:
                waiting += due
            else:
                place = waiting.pop()
                done.setdefault(place, nodes[place])
    return list(done.values())


def _outputs(node: Any) -> list[str]:
    """Tensors that a node gives, without those that it leaves out, whose names are empty."""
    return [name for name in node.output if name]


def _inputs(node: Any) -> list[str]:
    """Tensors that a node reads, in its subgraphs too."""
    inner = [name for a in node.attribute if a.HasField("g") for sub in a.g.node for name in _inputs(sub)]
    return [*node.input, *inner]


def _describe(value: Any) -> dict[str, Any]:
    import onnx

    kind = value.type.tensor_type
    shape = [size.dim_value if size.HasField("dim_value") else None for size in kind.shape.dim]
    return {"name": value.name, "shape": shape, "dtype": str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))}
