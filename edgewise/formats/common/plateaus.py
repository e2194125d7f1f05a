"""Where a function has come to an end: SiLU of -30 is that of -8 but for rounding, and a range of values for it that reaches down to -30
has coarser steps for all the rest."""

from collections.abc import Callable

import numpy as np

Function = Callable[[np.ndarray], np.ndarray]
LEVELS = 255  # steps of 8 bits
PLACES = 4096  # of a range that are looked at


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
