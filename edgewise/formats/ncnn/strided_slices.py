"""Slices of rows and columns with a step, which ncnn lacks, as a Crop and a Pooling whose window is a single pixel.

Detectors begin with them (YOLOX's focus): pnnx leaves `Tensor.slice` in the net, and says what it takes in its own file alone.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from edgewise.formats.ncnn.net_files import FIRST_ARRAY, Layer

KIND = "Tensor.slice"
NUMBERS = re.compile(r"-?\d+")
FIRST_SIDE = 2  # rows of [samples, channels, rows, columns], which are axis 1 of a blob


def replace_slices(layers: Sequence[Layer], described: str) -> list[Layer]:
    """described: the text of net.pnnx.param, in which layers have the same names. Slices of anything but pictures stay as they are."""
    told = {line.split()[1]: line.split() for line in described.splitlines() if line.startswith(KIND)}
    return [step for layer in layers for step in (_replace(layer, told[layer.name]) if layer.name in told else [layer])]


def _replace(layer: Layer, words: Sequence[str]) -> Iterator[Layer]:
    params = dict(word.split("=", 1) for word in words[6:] if "=" in word)
    shape = _numbers(params.get(f"#{words[4]}", ""))
    axes = [axis % len(shape) for axis in _plural(params, "dim") if shape]
    if len(shape) != FIRST_SIDE + 2 or min(axes, default=0) < FIRST_SIDE:
        yield layer
        return
    steps = dict(zip(axes, _plural(params, "step"), strict=True))
    spans = [range(shape[axis])[slice(*pair)] for axis, *pair in zip(axes, _plural(params, "start"), _plural(params, "end"), strict=True)]
    cropped = f"{layer.outputs[0]}/crop"
    lists = {9: [span.start for span in spans], 10: [span.stop for span in spans], 11: [axis - 1 for axis in axes]}
    yield Layer(
        "Crop", f"{layer.name}/crop", layer.inputs, (cropped,), {FIRST_ARRAY - key: _list(values) for key, values in lists.items()}, {}
    )
    rows, columns = steps.get(FIRST_SIDE, 1), steps.get(FIRST_SIDE + 1, 1)
    window = {0: "0", 1: "1", 11: "1", 2: str(columns), 12: str(rows), 3: "0", 5: "1"}
    yield Layer("Pooling", layer.name, (cropped,), layer.outputs, window, {})


def _plural(params: Mapping[str, str], name: str) -> list[int]:
    """A number, or a list of them under the name in the plural."""
    return _numbers(params.get(f"{name}s", params.get(name, "")))


def _numbers(text: str) -> list[int]:
    return [int(number) for number in NUMBERS.findall(text.partition(")")[0])]


def _list(values: Sequence[int]) -> str:
    return ",".join(map(str, [len(values), *values]))
