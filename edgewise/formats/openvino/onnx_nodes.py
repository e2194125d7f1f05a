"""Find the nodes of an ONNX file in the graph that OpenVINO makes of it: by name, by the name of their output, or by their weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgewise.formats.common.matching import match_layers
from edgewise.formats.common.onnx_graphs import iterate_graphs, read_rows
from edgewise.formats.openvino import readers
from edgewise.formats.openvino.facts import list_operators, weights

FOLDED = ("BatchNormalization", "Div", "Mul")  # OpenVINO folds a constant scale behind a product into its weights
MAX_STEPS_BACK = 2  # from the output of an ONNX node to the product inside it: bias, product
RECURRENT = {"GRU": "GRUSequence", "LSTM": "LSTMSequence", "RNN": "RNNSequence"}


class NodeFinder:
    """names: of the nodes of the ONNX file."""

    def __init__(self, path: Path, model: Any):
        import onnx

        graphs = [*iterate_graphs(onnx.load(path).graph)]
        self.written = {node.name: node for graph in graphs for node in graph.node}
        self.tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
        self.scaled = {node.input[0]: node.output[0] for node in self.written.values() if node.op_type in FOLDED}
        nodes = [node for node in list_operators(model) if node.get_type_name() != "Result"]  # which has the name of what it returns
        self.nodes = [node for node in nodes if weights(node)]
        self.producers = {name: node for node in nodes for port in node.outputs() for name in port.get_names()}

    @property
    def names(self) -> Iterable[str]:
        return self.written.keys()

    def find(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Names of the nodes that hold the weights of each of these ONNX nodes; usually one. If the graph has lost them it is the name
        itself, which is in no graph: only a setting that keeps this node float has to fail then."""
        weighted = {node.get_friendly_name(): node for node in self.nodes}
        found = {name: self._find_by_name(name, weighted) for name in names}
        claimed = {name for nodes in found.values() for name in nodes}
        free = [node for name, node in weighted.items() if name not in claimed]
        lost = [name for name, nodes in found.items() if not nodes]
        return {**found, **{name: [name] for name in lost}, **self._match_recurrent(lost, free), **self._match_weights(lost, free)}

    def _find_by_name(self, name: str, weighted: dict[str, Any]) -> list[str]:
        for candidate in (name, f"{name}/WithoutBiases"):
            if candidate in weighted:
                return [candidate]
        result = self.written[name].output[0]
        node = self.producers.get(result)
        if node is None and result in self.scaled:  # the result has no name of its own once its scale is folded
            node = self.producers.get(self.scaled[result])
        if node is not None and node.get_type_name() == "Constant":  # a table that is read at constant positions is folded into its readers
            readers_of_table = [port.get_node() for port in node.output(0).get_target_inputs()]
            return [reader.get_friendly_name() for reader in readers_of_table if weights(reader)]
        for _ in range(MAX_STEPS_BACK):
            if node is not None and weights(node):
                return [node.get_friendly_name()]
            node = node.input_value(0).get_node() if node is not None and node.get_input_size() else None
        return []

    def _match_recurrent(self, names: Sequence[str], free: Sequence[Any]) -> dict[str, list[str]]:
        """Recurrent layers by their order, if none of them is missing: OpenVINO has the gates in another order."""
        found = {}
        for kind, theirs in RECURRENT.items():
            layers = [name for name in names if self.written[name].op_type == kind]
            nodes = [node.get_friendly_name() for node in free if node.get_type_name() == theirs]
            found.update({name: [node] for name, node in zip(layers, nodes, strict=False)} if len(layers) == len(nodes) else {})
        return found

    def _match_weights(self, names: Sequence[str], free: Sequence[Any]) -> dict[str, list[str]]:
        """Products whose scale, and then the sum behind it, was folded: no output has its own name any more."""
        tables = {name: rows for name in names if (rows := read_rows(self.written[name], self.tensors)) is not None}
        theirs = {place: readers.node_rows(node) for place, node in enumerate(free)}
        layers = {name: {"type": self.written[name].op_type, "name": name} for name in tables}
        matched = match_layers(layers, lambda layer: tables[layer["name"]], theirs, readers.same_table)
        return {name: [free[place].get_friendly_name() for place in places] for name, places in matched.items() if places}
