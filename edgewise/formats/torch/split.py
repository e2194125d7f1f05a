"""Cut a torch program into parts and compile each; a TorchScript file itself cannot be cut."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.formats.torch import make
from edgewise.formats.torch.facts import layer_of, unpack_weight
from edgewise.formats.torch.run import MODEL

UNSUPPORTED = None
CALLS = ("call_function", "call_module", "call_method")


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> "Graph":
    module, tensors = make.build(source, scheme, settings, keep_nodes)
    return Graph(module, tensors)


class Graph:
    """plugins.Cuttable of a GraphModule. Reading a weight is not a step of its own, but part of the operator that uses it."""

    channel_axis = 1

    def __init__(self, module: Any, tensors: Mapping[str, Any]):
        self._module, self.files = module, (MODEL,)
        self.inputs, self.outputs = tensors["inputs"], tensors["outputs"]
        graph = module.graph
        self._given = graph.find_nodes(op="placeholder")
        (output,) = graph.find_nodes(op="output")
        self._wanted = list(output.all_input_nodes)
        self._names = {
            node: e["name"]
            for nodes, side in ((self._given, self.inputs), (self._wanted, self.outputs))
            for node, e in zip(nodes, side, strict=True)
        }
        self._nodes = [node for node in graph.nodes if node.op in CALLS]
        self.steps = self._steps()

    def write(self, start: int, end: int, folder: Path) -> None:
        import torch

        given, wanted = self._crossing(start), self._crossing(end)
        part = torch.fx.Graph()
        copies = {node: part.placeholder(self._name(node)) for node in given}
        for node in self._nodes[start:end]:
            for read in node.all_input_nodes:
                if read.op == "get_attr" and read not in copies:
                    copies[read] = part.node_copy(read)
            copies[node] = part.node_copy(node, copies.__getitem__)
        answers = tuple(copies[node] for node in wanted)
        part.output(answers if len(answers) > 1 else answers[0])
        sides = {"inputs": [self._describe(node) for node in given], "outputs": [self._describe(node) for node in wanted]}
        make.compile_graph(folder / MODEL, torch.fx.GraphModule(self._module, part).eval(), sides)

    def _steps(self) -> list[Mapping[str, Any]]:
        seen: set[str] = set()
        steps: list[Mapping[str, Any]] = []
        for place, node in enumerate(self._nodes):
            held = {name: size for name, size in self._weights(node).items() if name not in seen}
            seen |= set(held)
            crossing = self._crossing(place + 1)
            names = [layer_of(name) for name in held]
            count = len(crossing) if all(map(_is_tensor, crossing)) else 0
            steps.append({"node": names[0] if names else node.name, "weights_bytes": sum(held.values()), "crossing": count})
        return steps

    def _weights(self, node: Any) -> dict[str, int]:
        """Bytes of the weights that a node reads, by attribute name; of a packed weight, those of its integers."""
        stored = {read.target: _attribute(self._module, read.target) for read in node.all_input_nodes if read.op == "get_attr"}
        tensors = {name: held if hasattr(held, "numel") else unpack_weight(held) for name, held in stored.items()}
        return {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}

    def _crossing(self, place: int) -> list[Any]:
        """Nodes whose results cross a cut before step `place`; at the ends, the model's inputs and outputs."""
        if place in (0, len(self._nodes)):
            return self._wanted if place else self._given
        later = {read for node in self._nodes[place:] for read in node.all_input_nodes} | set(self._wanted)
        return [node for node in (*self._given, *self._nodes[:place]) if node in later]

    def _name(self, node: Any) -> str:
        return str(self._names.get(node, node.name))

    def _describe(self, node: Any) -> dict[str, Any]:
        known: dict[str, Any] | None = next((e for e in (*self.inputs, *self.outputs) if e["name"] == self._names.get(node)), None)
        if known:
            return known
        value = node.meta["val"]
        shape = [size if isinstance(size, int) else None for size in value.shape]
        return {"name": self._name(node), "shape": shape, "dtype": str(value.dtype).removeprefix("torch.")}


def _is_tensor(node: Any) -> bool:
    return hasattr(node.meta.get("val"), "dtype")


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module
