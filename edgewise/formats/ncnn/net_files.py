"""The files of an ncnn net: .param, a text with a line for each layer, and .bin, the arrays of the layers one after another."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgewise.formats.ncnn.run import BIN, MAGIC, PARAM
from edgewise.formats.ncnn.weight_layouts import Array, arrays, count

TAGS = {0: np.float32, 0x0002C056: np.float32, 0x01306B47: np.float16, 0x000D4B38: np.int8}  # ModelBinFromDataReader::load
WORDS = {"float32": 0, "float16": 0x01306B47, "int8": 0x000D4B38}
FIRST_ARRAY = -23300  # a parameter that is a list has the key -23300 - NUMBER and begins with its length


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
        for array in arrays(layer.kind, layer.params):
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
    end = place + count(array) * dtype.itemsize
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
            for array in arrays(layer.kind, layer.params):
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
