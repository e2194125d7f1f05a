"""What rounding to 8 bits costs: with one scale for channels of unlike range, at the ends of activations, and in the outputs.

Channels. Each channel of a depthwise convolution is an output by itself, so nothing makes up for what its input lost. Where a runtime has
no int8 kernel with a scale for each input channel, such layers stay float, with those that feed them behind activations alone: rounded to
one scale there, the same channels would be lost. YOLOX-Nano has 8 of them among 30 depthwise convolutions.

Ends. SiLU of -30 is that of -8 but for rounding, and a range of values for it that reaches down to -30 has coarser steps for all the rest.

Outputs. What quantizing a layer adds to them is the power of the error over the power of the output, of the part that suffers most. They
are compared in parts, since boxes in pixels would hide what becomes of the scores beside them. A part is an index into an output.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

BITS = 2.0  # of 8, lost in the mean over the channels; MobileNetV2 on digits loses half a bit
SAMPLES = 32  # whose ranges are looked at
Extremes = dict[str, tuple[np.ndarray, np.ndarray]]  # of each channel of a tensor: the smallest and the largest value
Function = Callable[[np.ndarray], np.ndarray]
LEVELS = 255  # steps of 8 bits
PLACES = 4096  # of a range that are looked at
Parts = Mapping[str, Sequence[Any]]  # output -> indices into [n, ...], of the parts that are compared, each by itself


def widen(found: Extremes, name: str, values: np.ndarray) -> None:
    """Take these values of a tensor, with its channels on axis 1, into its extremes, in place."""
    rows = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    low, high = found.get(name, (np.inf, -np.inf))
    found[name] = np.minimum(low, rows.min(axis=1)), np.maximum(high, rows.max(axis=1))


def lost_bits(low: np.ndarray, high: np.ndarray) -> float:
    """How much finer the channels' own scales would be than that of the whole tensor: mean log2 of the ratio. Channels that are always 0
    do not count. low, high: the extremes of each channel."""
    low, high = np.minimum(low, 0), np.maximum(high, 0)
    widths = (high - low)[high > low]
    return float(np.log2((high.max() - low.min()) / widths).mean()) if len(widths) else 0.0


def find_ends(function: Function, low: float, high: float, slack: float) -> tuple[float, float]:
    """The narrowest range within low to high, outside of which the function stays within `slack` of what it is at the range's ends."""
    places = np.linspace(low, high, PLACES)
    values = function(places)
    first = places[_still(values, slack).max()]
    last = places[::-1][_still(values[::-1], slack).max()]
    return (float(first), float(last)) if first < last else (low, high)


def half_step(function: Function, low: float, high: float) -> float:
    """Half of one of the 8-bit steps that hold all values of the function between low and high, and 0."""
    values = function(np.linspace(low, high, PLACES))
    return float(max(values.max(), 0) - min(values.min(), 0)) / LEVELS / 2


def _still(values: np.ndarray, slack: float) -> np.ndarray:
    """The positions up to which all values stay within `slack` of the value there."""
    highest, lowest = np.maximum.accumulate(values), np.minimum.accumulate(values)
    places: np.ndarray = np.flatnonzero((highest - values <= slack) & (values - lowest <= slack))
    return places


def sigmoid(x: np.ndarray) -> np.ndarray:
    squashed: np.ndarray = 1 / (1 + np.exp(-np.clip(x, -500, 500)))
    return squashed


def hard_swish(x: np.ndarray) -> np.ndarray:
    values: np.ndarray = x * np.clip(x / 6 + 0.5, 0, 1)
    return values


def silu(x: np.ndarray) -> np.ndarray:
    values: np.ndarray = x * sigmoid(x)
    return values


def cut_parts(outputs: Mapping[str, np.ndarray], parts: Parts) -> list[np.ndarray]:
    """The parts of the outputs, float64 [n, ...]."""
    return [outputs[name][index].astype(np.float64) for name, indices in parts.items() for index in indices]


def sum_errors(exact: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of squared errors of each part. exact, given: of `cut_parts`."""
    return np.array([np.sum((mine - other) ** 2) for mine, other in zip(given, exact, strict=True)])


def find_noise(errors: np.ndarray, exact: Sequence[np.ndarray]) -> float:
    """Noise over signal of the part where it is largest: its errors over its power about the mean of the samples, as
    stats.agreement.sqnr_db has it. errors: of `sum_errors`; exact: of `cut_parts`, all samples."""
    signals = [max(float(np.sum((part - part.mean(axis=0)) ** 2)), 1e-30) for part in exact]
    return float(np.max(errors / np.array(signals)))
