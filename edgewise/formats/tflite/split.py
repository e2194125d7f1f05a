"""Cut a TFLite model into parts that compute together exactly what the whole does: its own operators, tensors and scales."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.tflite import facts
from edgewise.formats.tflite.naming import SIGNATURE


def cuttable(folder: Path, *_: Any) -> "Graph":
    return Graph(facts.read(folder / facts.FILE))


class Graph:
    """plugins.Cuttable of a file with one graph. Tensors cross a cut as the file stores them, so int8 stays int8."""

    channel_axis = -1

    def __init__(self, model: Any):
        if len(model.subgraphs) != 1:
            raise ValueError(f"the file has {len(model.subgraphs)} subgraphs (a loop or a condition); only one graph can be cut")
        self._model, self._graph, self.files = model, model.subgraphs[0], (facts.FILE,)
        signature = model.signatureDefs[0]
        self._names = {entry.tensorIndex: entry.name.decode() for entry in (*signature.inputs, *signature.outputs)}
        self._given, self._wanted = ([entry.tensorIndex for entry in side] for side in (signature.inputs, signature.outputs))
        self.inputs, self.outputs = ([self._describe(index) for index in side] for side in (self._given, self._wanted))
        # the widening of stored weights (fp16) is no step: every part does it for the weights that it uses
        self._carried = {int(o.outputs[0]): o for o in self._graph.operators if all(self._bytes(i) for i in o.inputs if i >= 0)}
        self._operators = [o for o in self._graph.operators if int(o.outputs[0]) not in self._carried]
        self.steps = self._steps()

    def write(self, start: int, end: int, folder: Path) -> None:
        own = self._operators[start:end]
        carried = {i: self._carried[i] for operator in own for i in map(int, operator.inputs) if i in self._carried}
        facts.write(self._part([*carried.values(), *own], self._passed(start), self._passed(end)), folder / facts.FILE)

    def _steps(self) -> list[Mapping[str, Any]]:
        seen: set[int] = set()
        steps: list[Mapping[str, Any]] = []
        for place, operator in enumerate(self._operators):
            held = self._held(operator) - seen
            seen |= held
            name = self._graph.tensors[operator.outputs[0]].name.decode()
            crossing = len(self._passed(place + 1))
            steps.append({"node": name, "weights_bytes": sum(map(self._bytes, held)), "crossing": crossing})
        return steps

    def _held(self, operator: Any) -> set[int]:
        """The constants that an operator reads, itself or through a carried one."""
        read = {int(i) for i in operator.inputs if i >= 0}
        behind = {int(i) for output in read & set(self._carried) for i in self._carried[output].inputs}
        return {i for i in read | behind if self._bytes(i)}

    def _bytes(self, tensor: int) -> int:
        data = self._model.buffers[self._graph.tensors[tensor].buffer].data
        return 0 if data is None else len(data)

    def _passed(self, place: int) -> list[int]:
        """Tensors that a cut before operator `place` passes on: from the earlier ones, or the user, to the later ones, or the user."""
        operators = self._operators
        if place in (0, len(operators)):
            return list(self._wanted if place else self._given)
        later = {int(i) for operator in operators[place:] for i in operator.inputs} | set(self._wanted)
        return [i for i in (*self._given, *(int(i) for operator in operators[:place] for i in operator.outputs)) if i in later]

    def _part(self, operators: list[Any], given: list[int], wanted: list[int]) -> Any:
        """A model of these operators alone, with the tensors and buffers that they use, numbered anew."""
        from ai_edge_litert import schema_py_generated as generated

        used = sorted({*given, *wanted, *(int(i) for o in operators for i in (*o.inputs, *o.outputs, *_intermediates(o)) if i >= 0)})
        number = {old: new for new, old in enumerate(used)}
        part, graph = generated.ModelT(), generated.SubGraphT()
        part.version, part.description, part.operatorCodes = self._model.version, self._model.description, self._model.operatorCodes
        graph.name = self._graph.name
        graph.operators = [_renumbered(operator, number) for operator in operators]
        graph.inputs, graph.outputs = [number[i] for i in given], [number[i] for i in wanted]
        part.buffers, graph.tensors = self._storage(used)
        part.subgraphs, part.metadata, part.metadataBuffer = [graph], [], []
        sides = [[self._entry(generated, i, number) for i in side] for side in (given, wanted)]
        part.signatureDefs = [generated.SignatureDefT(inputs=sides[0], outputs=sides[1], signatureKey=SIGNATURE.encode(), subgraphIndex=0)]
        return part

    def _storage(self, used: Iterable[int]) -> tuple[list[Any], list[Any]]:
        """Buffers (the first is empty, as the format asks) and tensors that refer to them."""
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


def _renumbered(operator: Any, number: Mapping[int, int]) -> Any:
    """The operator with its tensors numbered anew; -1 stands for an input that is left out."""
    made = copy.copy(operator)
    made.inputs, made.outputs = (np.array([number.get(int(i), -1) for i in side], np.int32) for side in (made.inputs, made.outputs))
    made.intermediates = [number[int(i)] for i in _intermediates(operator)]
    return made
