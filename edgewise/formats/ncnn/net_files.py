"""The files of an ncnn net: .param, a text with a line for each layer, and .bin, the arrays of the layers one after another.

Which arrays each kind of layer has in a .bin, and in what order: load_model of the layers in ncnn's source (src/layer). An array is tagged
where a word before it says how it is stored: as float32, float16 or int8.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgewise.formats.ncnn.run import BIN, MAGIC, PARAM

TAGS = {0: np.float32, 0x0002C056: np.float32, 0x01306B47: np.float16, 0x000D4B38: np.int8}  # ModelBinFromDataReader::load
WORDS = {"float32": 0, "float16": 0x01306B47, "int8": 0x000D4B38}
FIRST_ARRAY = -23300  # a parameter that is a list has the key -23300 - NUMBER and begins with its length
PLAIN_CONVOLUTIONS = tuple(
    f"{kind}{group}{dims}" for kind in ("Convolution", "Deconvolution") for group in ("", "DepthWise") for dims in ("", "1D", "3D")
)
PLAIN = {1: "float32", 2: "float16", 3: "int8"}  # how a constant is stored without a tag, by number


class Params:
    """The parameters of a layer by number; what is not written has the value that ncnn gives it."""

    def __init__(self, written: Mapping[int, str]):
        self.written = written

    def integer(self, key: int, usual: int = 0) -> int:
        return int(float(self.written[key])) if key in self.written else usual


class Array(NamedTuple):
    """name: weight, bias, weight_scales, input_scales, output_scales, block_scales ... A name that begins with `weight` and has two or
    more dimensions is what facts call a weight."""

    name: str
    shape: tuple[int, ...]
    tagged: bool
    plain: str = "float32"  # the type where there is no tag


def list_arrays(kind: str, written: Mapping[int, str]) -> list[Array]:
    """The arrays of a layer, in the order of the file."""
    return LAYOUTS[kind](Params(written)) if kind in LAYOUTS else []


def _bias(count: int, present: int) -> list[Array]:
    return [Array("bias", (count,), False)] if present else []


def _convolution(params: Params) -> list[Array]:
    """[outputs, inputs / groups, ...]; the kernel is left flat."""
    outputs = params.integer(0)
    if params.integer(19):  # the weight is an input
        return []
    weight = Array("weight", (outputs, params.integer(6) // outputs), True)
    return [weight, *_bias(outputs, params.integer(5)), *_static_scales(params, params.integer(8), params.integer(7) or outputs)]


def _static_scales(params: Params, term: int, groups: int) -> list[Array]:
    """term: 1, 2: of the weight and of the input; above 100 also of the output. groups: of a depthwise convolution, else its outputs."""
    if not term:
        return []
    count = 1 if term in (2, 102) and 7 in params.written else groups
    found = [Array("weight_scales", (count,), False), Array("input_scales", (1,), False)]
    return [*found, Array("output_scales", (1,), False)] if term > 100 else found


def _inner_product(params: Params) -> list[Array]:
    outputs = params.integer(0)
    weight = Array("weight", (outputs, params.integer(2) // outputs), True)
    return [weight, *_bias(outputs, params.integer(1)), *_static_scales(params, params.integer(8), outputs)]


def _embed(params: Params) -> list[Array]:
    outputs, inputs = params.integer(0), params.integer(1)
    scale = [Array("weight_scales", (1,), False)] if params.integer(18) else []
    return [Array("weight", (inputs, outputs), True), *_bias(outputs, params.integer(2)), *scale]


def block_bits(term: int) -> int:
    """Bits of a weight in blocks, 0 for another kind. term: BITS * 100 + 0, 1, 2 for blocks of 32, 64, 128."""
    return term // 100 if term >= 400 else 0


def _gemm(params: Params) -> list[Array]:
    rows, columns, inner, term = (params.integer(key) for key in (7, 8, 9, 18))
    left = [Array("weight_left", (inner, rows) if params.integer(2) else (rows, inner), True)] if params.integer(4) else []
    bits = block_bits(term)
    stored = (columns, -(-inner * bits // 8)) if bits else (columns, inner) if params.integer(3) else (inner, columns)
    right = [Array("weight", stored, not bits, "int8" if bits else "float32")] if params.integer(5) else []
    shapes = {0: (1,), 1: (rows,), 2: (rows, 1), 3: (rows, columns), 4: (1, columns)}
    added = params.integer(10)
    third = [Array("bias", shapes[added], True)] if params.integer(6) and added != -1 else []
    return [*left, *right, *third, *_gemm_scales(rows, columns, inner, term, bool(left), bool(right))]


def _gemm_scales(rows: int, columns: int, inner: int, term: int, left: bool, right: bool) -> list[Array]:
    if block_bits(term):
        return [Array("block_scales", (columns, count_blocks(inner, term)), False)]
    if not term:
        return []
    return [*([Array("left_scales", (rows,), False)] if left else []), *([Array("weight_scales", (1,), False)] if right else [])]


def count_blocks(inner: int, term: int) -> int:
    """Blocks of 32, 64 or 128 weights of a row."""
    return -(-inner // (32 << term % 10))


def _recurrent(gates: int, biases: int) -> Callable[[Params], list[Array]]:
    def layout(params: Params) -> list[Array]:
        outputs, ways = params.integer(0), 2 if params.integer(2) == 2 else 1
        hidden = params.integer(3, outputs) if gates == 4 else outputs
        inputs = params.integer(1) // ways // hidden // gates
        found = [
            Array("weight_input", (ways, hidden * gates, inputs), True),
            Array("bias", (ways, biases, hidden), True),
            Array("weight_hidden", (ways, hidden * gates, outputs), True),
        ]
        return [*found, Array("weight_projection", (ways, outputs, hidden), True)] if hidden != outputs else found

    return layout


def _attention(params: Params) -> list[Array]:
    size, term = params.integer(0), params.integer(18)
    query = params.integer(2) // size
    sides = {
        **{"query": (size, query), "key": (size, params.integer(3, size)), "value": (size, params.integer(4, size))},
        "output": (query, size),
    }
    bits, found = block_bits(term), []
    for name, (rows, inner) in sides.items():
        stored = (rows, -(-inner * bits // 8)) if bits else (rows, inner)
        found += [Array(f"weight_{name}", stored, not bits, "int8" if bits else "float32"), Array(f"bias_{name}", (rows,), False)]
    if bits:
        return [*found, *(Array(f"scales_{name}", (rows, count_blocks(inner, term)), False) for name, (rows, inner) in sides.items())]
    return [*found, *(Array(f"scales_{name}", (1 if name == "output" else size,), False) for name in sides if term)]


def _plain(*names: str, size: int, when: int | None = None) -> Callable[[Params], list[Array]]:
    """Vectors without a tag. size: the parameter that says how long they are; when: the one that says whether they are there."""

    def layout(params: Params) -> list[Array]:
        there = when is None or params.integer(when, 1)
        return [Array(name, (params.integer(size),), False) for name in names] if there else []

    return layout


def _scale(params: Params) -> list[Array]:
    size = params.integer(0)
    return [] if size == -233 else [Array("scale", (size,), False), *_bias(size, params.integer(1))]


def _memory_data(params: Params) -> list[Array]:
    shape = tuple(size for key in (2, 11, 1, 0) if (size := params.integer(key)))
    kind = params.integer(21, 1)
    return [Array("constant", shape or (1,), kind == 0, PLAIN.get(kind, "float32"))]


LAYOUTS: Mapping[str, Callable[[Params], list[Array]]] = {
    **dict.fromkeys((*PLAIN_CONVOLUTIONS, "DeformableConv2D"), _convolution),
    "InnerProduct": _inner_product,
    "Embed": _embed,
    "Gemm": _gemm,
    "LSTM": _recurrent(4, 4),
    "GRU": _recurrent(3, 4),
    "RNN": _recurrent(1, 1),
    "MultiHeadAttention": _attention,
    "BatchNorm": _plain("slope", "mean", "variance", "bias", size=0),
    "Bias": _plain("bias", size=0),
    "Scale": _scale,
    "PReLU": _plain("slope", size=0),
    "LayerNorm": _plain("gamma", "beta", size=0, when=2),
    "GroupNorm": _plain("gamma", "beta", size=1, when=3),
    "InstanceNorm": _plain("gamma", "beta", size=0, when=2),
    "RMSNorm": _plain("gamma", size=0, when=2),
    "Normalize": _plain("scale", size=3),
    "MemoryData": _memory_data,
}


def count_values(array: Array) -> int:
    return prod(array.shape)


@dataclass(frozen=True)
class Layer:
    """kind: the type of the operator. params: as written, by number. arrays: by name, in the order of the file, of the type that they
    are stored in."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[int, str]
    arrays: Mapping[str, np.ndarray]

    def integer(self, key: int, usual: int = 0) -> int:
        return int(float(self.params[key])) if key in self.params else usual


def read(folder: Path) -> list[Layer]:
    """The layers in the order of execution. ValueError for files that are not what ncnn writes."""
    layers = read_param((folder / PARAM).read_text(encoding="utf-8"))
    return read_arrays(layers, (folder / BIN).read_bytes())


def read_param(text: str) -> list[Layer]:
    """The layers of a .param, without their arrays."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if not lines or lines[0] != [MAGIC]:
        raise ValueError(f"{PARAM} is not a .param file of ncnn: its first line is not {MAGIC}")
    if len(lines) - 2 != int(lines[1][0]):
        raise ValueError(f"{PARAM} counts {lines[1][0]} layers and has {len(lines) - 2}; it is truncated")
    return [_parse_layer(words) for words in lines[2:]]


def _parse_layer(words: Sequence[str]) -> Layer:
    kind, name, given, made = words[0], words[1], int(words[2]), int(words[3])
    blobs, params = words[4 : 4 + given + made], words[4 + given + made :]
    pairs = (word.split("=", 1) for word in params)
    return Layer(kind, name, tuple(blobs[:given]), tuple(blobs[given:]), {int(key): value for key, value in pairs}, {})


def read_arrays(layers: Iterable[Layer], data: bytes) -> list[Layer]:
    """The layers with their arrays. ValueError where the file is shorter or longer than the layers say."""
    found, place = [], 0
    for layer in layers:
        held = {}
        for array in list_arrays(layer.kind, layer.params):
            held[array.name], place = _read_array(array, data, place, layer)
        found.append(replace(layer, arrays=held))
    if place != len(data):
        raise ValueError(f"{BIN} has {len(data)} bytes where the layers of {PARAM} need {place}; the files do not belong together")
    return found


def _read_array(array: Array, data: bytes, place: int, layer: Layer) -> tuple[np.ndarray, int]:
    """The array at a place of the file, and where the next one begins: every 4 bytes."""
    dtype = np.dtype(array.plain)
    if array.tagged:
        word = int.from_bytes(data[place : place + 4], "little")
        if word not in TAGS:
            raise ValueError(f"{BIN}: the {array.name} of {layer.name} ({layer.kind}) has the unknown tag {word:#010x}")
        dtype, place = np.dtype(TAGS[word]), place + 4
    end = place + count_values(array) * dtype.itemsize
    if end > len(data):
        raise ValueError(f"{BIN} ends within the {array.name} of {layer.name} ({layer.kind}); it is truncated")
    return np.frombuffer(data[place:end], dtype).reshape(array.shape), place + -(-(end - place) // 4) * 4


def write(folder: Path, layers: Sequence[Layer]) -> None:
    """Write model.param and model.bin."""
    blobs = {blob for layer in layers for blob in layer.outputs}
    lines = [MAGIC, f"{len(layers)} {len(blobs)}", *map(_format_layer, layers)]
    (folder / PARAM).write_text("\n".join(lines) + "\n", encoding="utf-8")
    with (folder / BIN).open("wb") as stream:
        for layer in layers:
            for array in list_arrays(layer.kind, layer.params):
                stream.write(_pack_array(array, layer.arrays[array.name]))


def _format_layer(layer: Layer) -> str:
    params = [f"{key}={value}" for key, value in layer.params.items()]
    sizes = f"{len(layer.inputs)} {len(layer.outputs)}"
    return " ".join([f"{layer.kind:<24} {layer.name:<24} {sizes}", *layer.inputs, *layer.outputs, *params])


def _pack_array(array: Array, values: np.ndarray) -> bytes:
    word = WORDS[values.dtype.name].to_bytes(4, "little") if array.tagged else b""
    packed = values.tobytes()
    return word + packed + bytes(-len(packed) % 4)


def plain_name(name: str) -> str:
    """A name without what separates words in a .param."""
    return re.sub(r"\s+", "_", name)
