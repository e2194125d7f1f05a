"""A model.mnn as its operators and the constants that they read, by the fields of MNN's schema (schema/default/*.fbs of MNN 3.6).

The file is a flatbuffer, whose tables are read and changed in place by the numbers of their fields. A table begins with the distance back
to its vtable, which says where each field lies; strings, vectors and tables are reached by a distance forward
(https://flatbuffers.dev/internals/).
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgewise.formats.mnn.run import MODEL, operator_type

# fields of the tables Net, SubGraphProto, Op, Convolution2D, its quantized weights (IDSTQuan), Blob and TensorDescribe
BIZ_CODE, DESCRIBED, OPERATORS, OUTPUT_NAMES, TENSOR_NAMES, SUBGRAPHS, UUID = 0, 1, 3, 4, 7, 10, 11
SUB_TENSORS, SUB_OPERATORS, SUB_DESCRIBED = 3, 4, 5
INPUTS, MAIN, NAME, OUTPUTS, TYPE = 0, 2, 3, 4, 5
COMMON, WEIGHT, PACKED, SYMMETRIC = 0, 1, 3, 4
KERNEL_X, KERNEL_Y, GROUP, OUTPUT_COUNT, INPUT_COUNT = 2, 3, 9, 10, 11
PACKED_BYTES, PACKED_TYPE, PACKED_BITS = 0, 2, 7
BLOB_DIMS, BLOB_TYPE, BLOB_BYTES, BLOB_FLOATS = 0, 2, 3, 7
DESCRIBED_INDEX, QUANTIZED = 1, 4

CONSTANT, HALF_PACKED, UNARY = 11, 3, 101
POOLINGS = {47: 7, 112: 3}  # Pooling, Pooling3D -> the field of Pool and Pool3D that says how they pool
FUNCTION, BY_MAXIMUM = 0, 0
CONVOLUTIONS = {12: "Convolution", 13: "ConvolutionDepthwise", 17: "Deconvolution", 18: "DeconvolutionDepthwise"}
READERS = {  # other operators that may read a constant; any further one is named by its number
    **{7: "BinaryOp", 10: "Concat", 30: "Gather", 31: "GatherV2", 38: "LSTM", 39: "MatMul", 103: "Where"},
    **{105: "RNNSequenceGRU", 106: "BatchMatMul", 257: "Select", 600: "While", 601: "If"},
}
FLOATS = {
    1: ("float32", BLOB_FLOATS),
    19: ("float16", BLOB_BYTES),
}  # MNN's number of a type -> numpy's name, field of a Blob with the values


class Table:
    """One table. data: the whole file; place: where the table begins in it."""

    def __init__(self, data: bytearray, place: int):
        self.data, self.place = data, place
        vtable = place - self._read("<i", place)
        size = self._read("<H", vtable)
        self._fields = struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)

    @classmethod
    def root(cls, data: bytearray) -> "Table":
        return cls(data, struct.unpack_from("<I", data)[0])

    def find(self, field: int) -> int | None:
        """Where a field lies in the file; None where the table leaves it out, which means its default."""
        offset = self._fields[field] if field < len(self._fields) else 0
        return self.place + offset if offset else None

    def integer(self, field: int, default: int = 0, kind: str = "<i") -> int:
        place = self.find(field)
        return default if place is None else int(self._read(kind, place))

    def set_integer(self, field: int, value: int) -> None:
        """Change an int32 field that the table has."""
        place = self.find(field)
        assert place is not None
        struct.pack_into("<i", self.data, place, value)

    def table(self, field: int) -> "Table | None":
        place = self.find(field)
        return None if place is None else Table(self.data, self._follow(place))

    def tables(self, field: int) -> list["Table"]:
        return [Table(self.data, self._follow(place)) for place in self._elements(field, 4)]

    def text(self, field: int) -> str:
        place = self.find(field)
        return "" if place is None else self._text(self._follow(place))

    def text_place(self, field: int) -> tuple[int, int] | None:
        """Where the characters of a text begin and end."""
        place = self.find(field)
        start = 0 if place is None else self._follow(place)
        return None if place is None else (start + 4, start + 4 + int(self._read("<I", start)))

    def texts(self, field: int) -> list[str]:
        return [self._text(self._follow(place)) for place in self._elements(field, 4)]

    def array(self, field: int, kind: Any) -> np.ndarray:
        """A vector of numbers, [n], which shares the memory of the file."""
        place = self.find(field)
        if place is None:
            return np.zeros(0, kind)
        start = self._follow(place)
        return np.frombuffer(self.data, kind, self._read("<I", start), start + 4)

    def _elements(self, field: int, size: int) -> Iterator[int]:
        place = self.find(field)
        if place is not None:
            start = self._follow(place)
            yield from range(start + 4, start + 4 + size * self._read("<I", start), size)

    def _follow(self, place: int) -> int:
        return place + int(self._read("<I", place))

    def _text(self, start: int) -> str:
        return bytes(self.data[start + 4 : start + 4 + self._read("<I", start)]).decode()

    def _read(self, kind: str, place: int) -> Any:
        if place < 0:
            raise struct.error("a distance leads out of the file")
        return struct.unpack_from(kind, self.data, place)[0]


class Weight(NamedTuple):
    name: str
    stored: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True)
class Operator:
    """One operator. table: as the file has it; inputs, outputs: names of tensors, which are those of its graph."""

    name: str
    number: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    table: Table

    @property
    def kind(self) -> str:
        known = {**CONVOLUTIONS, **READERS}
        return operator_type(self.name, known.get(self.number, f"OpType{self.number}"))

    @cached_property
    def weight(self) -> Weight | None:
        """The weight inside of a convolution, [outputs, inputs of a group, height, width]; None where it is another tensor."""
        main = self.table.table(MAIN)
        common = main.table(COMMON) if main is not None and self.number in CONVOLUTIONS else None
        if main is None or common is None or len(self.inputs) > 1:
            return None
        groups, kernel = common.integer(GROUP, 1), (common.integer(KERNEL_Y, 1), common.integer(KERNEL_X, 1))
        return Weight(self.name, _stored(main), (common.integer(OUTPUT_COUNT), common.integer(INPUT_COUNT) // groups, *kernel))

    @property
    def is_quantized(self) -> bool:
        """Whether a convolution takes and gives integers, with scales that the file holds."""
        main = self.table.table(MAIN)
        return self.number in CONVOLUTIONS and main is not None and main.find(SYMMETRIC) is not None

    @property
    def function(self) -> int | None:
        """MNN's number of the function that a UnaryOp computes; None for other operators."""
        main = self.table.table(MAIN) if self.number == UNARY else None
        return None if main is None else main.integer(FUNCTION)

    @property
    def takes_maximum(self) -> bool:
        """Whether it is a pooling by the maximum."""
        main = self.table.table(MAIN) if self.number in POOLINGS else None
        return main is not None and main.integer(POOLINGS[self.number], kind="<b") == BY_MAXIMUM

    def find_floats(self) -> np.ndarray | None:
        """The float32 values of a convolution's weight or of a Const, which share the memory of the file; None where there are none."""
        main = self.table.table(MAIN) if self.number in CONVOLUTIONS or self.number == CONSTANT else None
        return None if main is None else main.array(BLOB_FLOATS if self.number == CONSTANT else WEIGHT, "<f4")

    def float_values(self) -> np.ndarray:
        """The float32 weights of a convolution, [outputs, the rest]."""
        values, weight = self.find_floats(), self.weight
        assert values is not None and weight is not None
        return values.reshape(weight.shape[0], -1)

    def constant(self) -> tuple[Weight, np.ndarray] | None:
        """What a Const of floats holds."""
        blob = self.table.table(MAIN) if self.number == CONSTANT else None
        if blob is None or blob.integer(BLOB_TYPE) not in FLOATS:
            return None
        name, field = FLOATS[blob.integer(BLOB_TYPE)]
        shape = tuple(int(size) for size in blob.array(BLOB_DIMS, "<i4"))
        held = blob.array(field, np.uint8 if field == BLOB_BYTES else "<f4")
        return Weight(self.name, name, shape), held.view(name)


def _stored(main: Table) -> str:
    packed = main.table(PACKED)
    if packed is None:
        return "float32"
    return "float16" if packed.integer(PACKED_TYPE) == HALF_PACKED else f"int{packed.integer(PACKED_BITS) or 8}"


class Model:
    """A model.mnn. graphs: its own operators, then those of each body of an If or a Loop."""

    def __init__(self, data: bytearray):
        self.data, self.net = data, Table.root(data)
        bodies = self.net.tables(SUBGRAPHS)
        self.graphs = [_operators(self.net, OPERATORS, TENSOR_NAMES), *(_operators(body, SUB_OPERATORS, SUB_TENSORS) for body in bodies)]

    @property
    def operators(self) -> Iterator[Operator]:
        return (operator for graph in self.graphs for operator in graph)

    @property
    def outputs(self) -> list[str]:
        """The tensors that the model gives."""
        return self.net.texts(OUTPUT_NAMES)

    @property
    def ports(self) -> str:
        """The text in which make.py describes inputs and outputs, see run.read_ports."""
        return self.net.text(BIZ_CODE)

    def read_weights(self) -> list[tuple[Operator, list[Weight]]]:
        """The operators that read weights, in the order of the file: constants with two dimensions or more, above 1 unless in a product."""
        found = []
        for graph in self.graphs:
            constants = {name: held[0] for one in graph if (held := one.constant()) is not None for name in one.outputs}
            for operator in graph:
                own = (
                    [operator.weight] if operator.weight is not None else [constants[name] for name in operator.inputs if name in constants]
                )
                weights = [weight for weight in own if _is_weight(weight, operator)]
                if weights:
                    found.append((operator, weights))
        return found


def _is_weight(weight: Weight, operator: Operator) -> bool:
    product = operator.number in CONVOLUTIONS or operator.kind in ("MatMul", "BatchMatMul")
    return (len(weight.shape) if product else sum(size > 1 for size in weight.shape)) >= 2


def _operators(graph: Table, operators: int, names: int) -> list[Operator]:
    told = graph.texts(names)

    def tensors(table: Table, field: int) -> tuple[str, ...]:
        return tuple(told[place] for place in table.array(field, "<i4"))

    return [
        Operator(table.text(NAME), table.integer(TYPE), tensors(table, INPUTS), tensors(table, OUTPUTS), table)
        for table in graph.tables(operators)
    ]


def read(folder: Path) -> Model:
    """The model of `folder`. ValueError for what is no file of MNN."""
    return read_file(Path(folder) / MODEL)


def read_file(path: Path) -> Model:
    try:
        return Model(bytearray(path.read_bytes()))
    except (struct.error, UnicodeDecodeError, IndexError, ValueError) as error:
        raise ValueError(f"{path.name} is not an MNN file, or it is truncated; make it again") from error
