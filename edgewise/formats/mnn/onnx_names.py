"""Find the nodes of an ONNX file in the operators that MNN makes of it: MNN names an operator after the value that the node computes, or
after that of a later node that it folds into it; the weights say which.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.matching import match_layers
from edgewise.formats.common.onnx_graphs import iterate_graphs, read_rows
from edgewise.formats.mnn import graph
from edgewise.formats.mnn.run import CONVERTED


def find_nodes(model: Any, folder: Path, names: Sequence[str]) -> dict[str, list[str]]:
    """Names of the operators of folder/model.mnn that hold the weights of each of these ONNX nodes. If MNN has lost them it is the name
    itself, which is in no file: only a setting that keeps this node float has to fail then."""
    graphs = [*iterate_graphs(model.graph)]
    written = {node.name: node for one in graphs for node in one.node}
    tensors = {tensor.name: tensor for one in graphs for tensor in one.initializer}
    weighted = {operator.name: operator for operator, _ in graph.read(folder).read_weights()}
    found = {name: _find_by_name(written[name].output[0], weighted) for name in names}
    claimed = {operator for operators in found.values() for operator in operators}
    free = [operator for name, operator in weighted.items() if name not in claimed]
    rows = {name: held for name in names if not found[name] and (held := read_rows(written[name], tensors)) is not None}
    layers = {name: {"type": written[name].op_type, "name": name} for name in rows}
    theirs = {place: _read_rows(operator) for place, operator in enumerate(free)}
    matched = match_layers(layers, lambda layer: rows[layer["name"]], theirs, np.array_equal)
    by_weights = {name: [free[place].name for place in places] for name, places in matched.items()}
    return {name: own or by_weights.get(name) or [name] for name, own in found.items()}


def _find_by_name(value: str, weighted: dict[str, graph.Operator]) -> list[str]:
    return [name for name in (value, f"{value}{CONVERTED}") if name in weighted][:1]


def _read_rows(operator: graph.Operator) -> list[np.ndarray]:
    """The layouts in which an operator may hold the rows of a layer."""
    if operator.weight is None:
        return []
    held = operator.float_values()
    return [held, held.reshape(operator.weight.shape).swapaxes(0, 1).reshape(operator.weight.shape[1], -1)]
