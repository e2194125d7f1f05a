"""What a model file expects and is, as `edgewise.inspect.command` prints it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = Sequence[int | None]
CHANNELS = (1, 3)


@dataclass(frozen=True)
class Port:
    """An input or output. shape: with the batch, None where a side is open. quantization: (scale, zero point) of real values."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    quantization: tuple[float, int] | None = None


@dataclass(frozen=True)
class Inspection:
    """multiply_adds: for one sample, of convolutions and matrix products; None where open sides leave it unknown. model: its section of
    params.yaml, None where the file cannot be a source. schemes: what a quantized file can be measured as; None: any."""

    kind: str
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    operators: Mapping[str, int] | None = None
    parameters: int | None = None
    multiply_adds: int | None = None
    notes: tuple[str, ...] = ()
    model: Mapping[str, Any] | None = None
    schemes: tuple[str, ...] | None = None


def picture(shape: Shape) -> tuple[bool, int | None, list[int | None]]:
    """Of what a model takes, without the batch: whether channels come last, how many they are, [height, width]."""
    last = shape[2] in CHANNELS and shape[0] not in CHANNELS
    return (True, shape[2], list(shape[:2])) if last else (False, shape[0], list(shape[1:]))


def product(*shapes: Shape) -> int | None:
    """Of all sides; None where one is open."""
    sides = [side for shape in shapes for side in shape]
    return None if None in sides else prod(side for side in sides if side is not None)


def total(counts: Sequence[int | None]) -> int | None:
    return None if None in counts else sum(count for count in counts if count is not None)
