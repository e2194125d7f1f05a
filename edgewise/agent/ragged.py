"""Samples of various sizes, such as pictures as they come: an array [n] of objects, each the array of one sample.

Samples of one shape are an array [n, ...] as everywhere; `join` makes of several arrays whichever of the two they need. .npz files hold no
objects: `pack` and `unpack` stand between. A task, a source and a make.py say OPEN_SIZES = True where such samples are no obstacle; without
it, data that keeps the sizes of its pictures is refused with a reason. Standard library and numpy; Python 3.9.
"""

from __future__ import annotations

from typing import Callable, Dict, Mapping, Sequence

import numpy as np

Arrays = Dict[str, np.ndarray]
AS_IS = "as_is"  # the way to resize pictures (see preprocess) that keeps the size of each
VALUES, SHAPES = "|values", "|shapes"  # behind the name of a packed array: all values in a row, and int64 [n, axes of one sample]


def is_ragged(array: np.ndarray) -> bool:
    return array.dtype == object


def take(array: np.ndarray, index: int) -> np.ndarray:
    """One sample of any array, [1, ...]."""
    return array[index][None] if is_ragged(array) else array[index : index + 1]


def join(parts: Sequence[np.ndarray]) -> np.ndarray:
    """The samples of all parts, [k, ...] each or ragged: [n, ...] where they have one shape, else ragged."""
    if len({part.shape[1:] for part in parts}) == 1 and not any(map(is_ragged, parts)):
        return np.concatenate(parts)
    samples = [sample for part in parts for sample in part]
    if len({sample.shape for sample in samples}) == 1:
        return np.stack(samples)
    found = np.empty(len(samples), object)
    for place, sample in enumerate(samples):
        found[place] = sample
    return found


def apply(function: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> np.ndarray:
    """`function` of [n, ...], or of the [1, ...] of each sample of a ragged array."""
    return join([function(take(array, i)) for i in range(len(array))]) if is_ragged(array) else function(array)


def find_shapes(array: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """The shape of each sample where they differ, else that of the whole array."""
    return tuple(sample.shape for sample in array) if is_ragged(array) else (array.shape,)


def pack(arrays: Mapping[str, np.ndarray]) -> Arrays:
    """Arrays for an .npz file."""
    packed: Arrays = {}
    for name, array in arrays.items():
        if is_ragged(array):
            packed[name + VALUES] = np.concatenate([sample.ravel() for sample in array])
            packed[name + SHAPES] = np.array([sample.shape for sample in array], np.int64)
        else:
            packed[name] = array
    return packed


def unpack(packed: Mapping[str, np.ndarray]) -> Arrays:
    """The inverse of `pack`."""
    found: Arrays = {}
    for name, array in packed.items():
        if name.endswith(VALUES):
            shapes = packed[name[: -len(VALUES)] + SHAPES]
            cuts = np.cumsum(shapes.prod(axis=1))[:-1]
            samples = [part.reshape(shape) for part, shape in zip(np.split(array, cuts), shapes)]
            found[name[: -len(VALUES)]] = join([sample[None] for sample in samples])
        elif not name.endswith(SHAPES):
            found[name] = array
    return found
