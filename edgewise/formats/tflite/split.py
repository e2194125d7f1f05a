"""Cut a TFLite model into parts that together compute exactly the same as the whole, with its operators, tensors and scales."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.tflite import facts
from edgewise.formats.tflite.naming import SIGNATURE

UNSUPPORTED = None


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> "Graph":
    """plugins.Splitter.cuttable: read from the file alone."""
    return Graph(facts.read(folder / facts.FILE))


class Graph:
    """plugins.Cuttable of a file with one graph. Tensors cross a cut as the file stores them, so int8 stays int8."""

    channel_axis = -1

    def __init__(self, model: Any):
        if len(model.subgraphs) != 1:
            raise ValueError(
                f"the file has {len(model.subgraphs)} subgraphs (a loop or a condition), only one can be cut; use load.mode whole"
            )
        self._model, self._graph, self.files = model, model.subgraphs[0], (facts.FILE,)
        signature = model.signatureDefs[0]
        self._names = {entry.tensorIndex: entry.name.decode() for entry in (*signature.inputs, *signature.outputs)}
        self._given, self._wanted = ([entry.tensorIndex for entry in side] for side in (signature.inputs, signature.outputs))
        self.inputs, self.outputs = ([self._describe(index) for index in side] for side in (self._given, self._wanted))
        # dequantizing stored weights (fp16) is not a step: each part does it for the weights that it uses
        self._copied = {int(o.outputs[0]): o for o in self._graph.operators if all(self._tensor_bytes(i) for i in o.inputs if i >= 0)}
        self._operators = [o for o in self._graph.operators if int(o.outputs[0]) not in self._copied]
        self.steps = self._steps()

    def write(self, start: int, end: int, folder: Path) -> None:
        own = self._operators[start:end]
        copied = {i: self._copied[i] for operator in own for i in map(int, operator.inputs) if i in self._copied}
        facts.write(self._make_part([*copied.values(), *own], self._crossing(start), self._crossing(end)), folder / facts.FILE)

    def _steps(self) -> list[Mapping[str, Any]]:
        seen: set[int] = set()
        steps: list[Mapping[str, Any]] = []
        for place, operator in enumerate(self._operators):
            held = self._held(operator) - seen
            seen |= held
            name = self._graph.tensors[operator.outputs[0]].name.decode()
            crossing = len(self._crossing(place + 1))
            steps.append({"node": name, "weights_bytes": sum(map(self._tensor_bytes, held)), "crossing": crossing})
        return steps

    def _held(self, operator: Any) -> set[int]:
        """The constants that an operator reads, directly or through a copied one."""
        read = {int(i) for i in operator.inputs if i >= 0}
        behind = {int(i) for output in read & set(self._copied) for i in self._copied[output].inputs}
        return {i for i in read | behind if self._tensor_bytes(i)}

    def _tensor_bytes(self, tensor: int) -> int:
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return 0 if data is None else len(data)

    def _crossing(self, place: int) -> list[int]:
        """Tensors that cross a cut before operator `place`; at the ends, the model's inputs and outputs."""
        operators = self._operators
        if place in (0, len(operators)):
            return list(self._wanted if place else self._given)
        later = {int(i) for operator in operators[place:] for i in operator.inputs} | set(self._wanted)
        return [i for i in (*self._given, *(int(i) for operator in operators[:place] for i in operator.outputs)) if i in later]

    def _make_part(self, operators: list[Any], given: list[int], wanted: list[int]) -> Any:
        """A model of these operators only, with the tensors and buffers that they use, renumbered."""
        from ai_edge_litert import schema_py_generated as generated

        used = sorted({*given, *wanted, *(int(i) for o in operators for i in (*o.inputs, *o.outputs, *_intermediates(o)) if i >= 0)})
        number = {old: new for new, old in enumerate(used)}
        part, graph = generated.ModelT(), generated.SubGraphT()
        part.version, part.description, part.operatorCodes = self._model.version, self._model.description, self._model.operatorCodes
        graph.name = self._graph.name
        graph.operators = [_renumber(operator, number) for operator in operators]
        graph.inputs, graph.outputs = [number[i] for i in given], [number[i] for i in wanted]
        part.buffers, graph.tensors = self._copy_tensors(used)
        part.subgraphs, part.metadata, part.metadataBuffer = [graph], [], []
        sides = [[self._entry(generated, i, number) for i in side] for side in (given, wanted)]
        part.signatureDefs = [generated.SignatureDefT(inputs=sides[0], outputs=sides[1], signatureKey=SIGNATURE.encode(), subgraphIndex=0)]
        return part

    def _copy_tensors(self, used: Iterable[int]) -> tuple[list[Any], list[Any]]:
        """Buffers (the first is empty, as the format requires) and the tensors that refer to them."""
        from ai_edge_litert import schema_py_generated as generated

        buffers, tensors, places = [generated.BufferT()], [], {0: 0}
        for index in used:
            tensor = copy.copy(self._graph.tensors[index])
            if tensor.buffer not in places:
                places[tensor.buffer] = len(buffers)
                buffers.append(self._model.buffers[tensor.buffer])
            tensor.buffer = places[tensor.buffer]
            tensors.append(tensor)
        return buffers, tensors

    def _entry(self, generated: Any, index: int, number: Mapping[int, int]) -> Any:
        return generated.TensorMapT(name=self._name(index).encode(), tensorIndex=number[index])

    def _name(self, index: int) -> str:
        return str(self._names.get(index, f"tensor_{index}"))

    def _describe(self, index: int) -> dict[str, Any]:
        tensor = self._graph.tensors[index]
        dtype = facts.tensor_dtype(tensor)
        return {"name": self._name(index), "shape": [int(size) for size in tensor.shape], "dtype": dtype}


def _intermediates(operator: Any) -> Iterable[int]:
    return operator.intermediates if operator.intermediates is not None else ()


def _renumber(operator: Any, number: Mapping[int, int]) -> Any:
    """A copy of the operator with its tensors renumbered; -1 is an omitted input."""
    copied = copy.copy(operator)
    copied.inputs, copied.outputs = (np.array([number.get(int(i), -1) for i in side], np.int32) for side in (copied.inputs, copied.outputs))
    copied.intermediates = [number[int(i)] for i in _intermediates(operator)]
    return copied
