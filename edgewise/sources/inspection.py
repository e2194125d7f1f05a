"""What `edgewise inspect` reports of a model file: inputs, outputs, operators, size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from edgewise.errors import ModelError

Shape = Sequence[int | None]
CHANNELS = (1, 3)
CONTAINERS = ("sequence", "map", "optional")
MAX_MESSAGE = 240  # characters of another library's message
STAND_INS = {  # how files begin that stand in the place of a model, in lower case -> what they are, and what to do
    b"version https://git-lfs": "a pointer of Git LFS, not the model itself; run `git lfs pull` where it comes from",
    b"<!doctype html": "a web page, not a model; download the file itself, as by the page's link to the raw file",
    b"<html": "a web page, not a model; download the file itself, as by the page's link to the raw file",
}


@dataclass(frozen=True)
class Port:
    """An input or output.

    shape: batch included, None for a dynamic dimension, () for a scalar and where not even the rank is known. dtype: as numpy spells it;
    one of CONTAINERS for what is no tensor. quantization: scale and zero point of an integer tensor. mean, std: of a picture, where the
    file says how it is normalized: (pixel from 0 to 255 - mean) / std, one or one for each channel. batch_axis: the axis that the file
    itself calls the batch.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: tuple[float, int] | None = None
    known_rank: bool = True
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    batch_axis: int | None = None

    @property
    def scalar(self) -> bool:
        return self.known_rank and not self.shape


@dataclass(frozen=True)
class Inspection:
    """multiply_adds: of convolutions and matrix products, for one sample; None if dynamic dimensions leave it unknown. model: the section
    of params.yaml, None if the file cannot be a source. schemes: those that a quantized file can be measured as; None: any. label_names: of
    its classes, packed in the file, which data.label_names reads."""

    kind: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    operators: Mapping[str, int] | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    notes: tuple[str, ...] = ()
    model: Mapping[str, Any] | None = None
    schemes: tuple[str, ...] | None = None
    label_names: tuple[str, ...] = ()


def check_stand_in(path: Path) -> None:
    """ModelError for a file that stands in the place of a model, as a download may leave it."""
    if not path.is_file():
        return
    with path.open("rb") as stream:
        head = stream.read(max(map(len, STAND_INS))).lower()
    found = next((words for start, words in STAND_INS.items() if head.startswith(start)), None)
    if found is not None:
        raise ModelError(f"model.path: {path} is {found}")


def parse_picture(shape: Shape) -> tuple[bool, int | None, list[int | None]]:
    """Whether the shape of a picture (without the batch) is channels last, the number of channels, and [height, width]."""
    last = shape[2] in CHANNELS and shape[0] not in CHANNELS
    return (True, shape[2], list(shape[:2])) if last else (False, shape[0], list(shape[1:]))


def product(*shapes: Shape) -> int | None:
    """Product of all dimensions; None if one is dynamic."""
    sides = [side for shape in shapes for side in shape]
    return None if None in sides else prod(side for side in sides if side is not None)


def total(counts: Sequence[int | None]) -> int | None:
    """Sum; None if one is unknown."""
    return None if None in counts else sum(count for count in counts if count is not None)


def one_line(error: BaseException) -> str:
    """Another library's message, shortened to one line; torch's own run to pages."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= MAX_MESSAGE else f"{words[:MAX_MESSAGE]} ..."
