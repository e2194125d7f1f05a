"""How far the outputs of a variant agree with those of its source, by output and by groups of an output whose values differ in kind.

One number over all outputs hides a dead one: boxes in pixels carry it, and scores that are all 0 weigh nothing beside them. So each output
is split into groups (boxes, scores ...), each group is compared by itself, and the worst one decides.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

HIGHEST_DB = 200.0  # what equal arrays get
MOST_GROUPS, WIDEST_AXIS = 8, 1024  # an axis that would fall into more groups, or is longer, holds positions and not kinds of values
LONGEST_PERIOD, LEAST_PERIODS = 16, 4  # kinds that alternate: x, y, confidence, x, y, confidence ...
SCALE_JUMP = 30.0  # neighbours whose largest values differ by more are of different kinds


@dataclass(frozen=True)
class Group:
    """A part of one output: indices start to stop (excluded) of `axis`, or of each `period` indices of it, which then are `size`; the whole
    output where axis is None."""

    axis: int | None = None
    start: int = 0
    stop: int = 0
    period: int = 0
    size: int = 0

    @property
    def name(self) -> str:
        """[0:4], [2 of each 3], or nothing for the whole output."""
        if self.axis is None:
            return ""
        places = f"{self.start}:{self.stop}" if self.stop > self.start + 1 else f"{self.start}"
        return f"[{places} of each {self.period}]" if self.period else f"[{places}]"

    @property
    def index(self) -> tuple[Any, ...]:
        """Where the group stands in an output [n, ...]."""
        if self.axis is None:
            return (slice(None),)
        places = np.arange(self.size) % self.period if self.period else None
        own = slice(self.start, self.stop) if places is None else np.flatnonzero((places >= self.start) & (places < self.stop))
        return (*[slice(None)] * self.axis, own)

    def of(self, array: np.ndarray) -> np.ndarray:
        part: np.ndarray = array[self.index]
        return part


@dataclass(frozen=True)
class GroupAgreement:
    """One group of one output. dead: it is the same for every sample in the variant, and not in the source."""

    output: str
    group: str
    sqnr_db: float
    largest_difference: float
    dead: bool

    @property
    def name(self) -> str:
        return self.output + self.group


def as_rows(array: np.ndarray) -> np.ndarray:
    """Samples of various sizes, an array of objects, as [rows, ...]: each position on the axes where they differ in size becomes a row.

    Pictures [1, h, w] of many heights and widths become [pixels of all, 1]. Any other array stays as it is.
    """
    if array.dtype != object:
        return array
    shapes = [sample.shape for sample in array]
    if len({len(shape) for shape in shapes}) > 1:
        return np.concatenate([sample.ravel() for sample in array])
    moving = [axis for axis, sizes in enumerate(zip(*shapes, strict=True)) if len(set(sizes)) > 1]
    return np.concatenate([_split_off(np.moveaxis(sample, moving, range(len(moving))), len(moving)) for sample in array])


def _split_off(array: np.ndarray, axes: int) -> np.ndarray:
    return array.reshape(int(np.prod(array.shape[:axes])), *array.shape[axes:])


def sqnr_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Signal to quantization noise ratio, 10 log10(sum r^2 / sum (r - o)^2), in dB; 200 where they are equal.

    -200 where a value is not finite. The signal is taken about its mean over the samples (axis 0): an output that hardly moves then counts
    as hardly any signal. One that is the same for every sample, such as the anchors of a detector, is a constant, whose size is the signal.
    That of a single sample is taken about the mean of its own elements.
    """
    reference, other = reference.astype(np.float64), other.astype(np.float64)
    if not (np.isfinite(reference).all() and np.isfinite(other).all()):
        return -HIGHEST_DB
    noise = np.sum((reference - other) ** 2)
    if noise == 0:
        return HIGHEST_DB
    signal = np.sum((reference - _centre(reference)) ** 2)
    return float(min(HIGHEST_DB, 10 * np.log10(max(signal, 1e-30) / noise)))


def _centre(reference: np.ndarray) -> Any:
    """What the signal of outputs [n, ...] is taken about; of one number, and of a constant, 0."""
    if len(reference) > 1 and not _moves(reference):
        return 0.0
    if len(reference) > 1:
        return reference.mean(axis=0)
    return reference.mean() if reference.size > 1 else 0.0


def decisions_db(reference: np.ndarray, other: np.ndarray) -> float:
    """Of integers, such as the classes of an argmax: -20 log10 of the share that differs, in dB; 200 where they are equal.

    Noise of a share s of the signal's amplitude moves about a share s of the decisions that are made of it, so that this is comparable to
    the SQNR of the values behind them; that of the integers themselves depends on how the classes are numbered.
    """
    share = float(np.mean(reference != other)) if reference.size else 0.0
    return float(min(HIGHEST_DB, -20 * np.log10(share))) if share else HIGHEST_DB


def relative_variation(outputs: np.ndarray) -> float:
    """How much outputs [n, ...] change from sample to sample: RMS about their mean over the samples, relative to their RMS; 0 for zeros."""
    outputs = as_rows(outputs).astype(np.float64)
    size = np.sqrt(np.mean(outputs**2)) if outputs.size else 0.0
    return float(np.sqrt(np.mean((outputs - outputs.mean(axis=0)) ** 2)) / size) if size else 0.0


def find_groups(reference: np.ndarray) -> list[Group]:
    """The groups of an output [n, ...] (of samples of various sizes, of its rows), found from its values: along the axis that separates
    values of different kinds best.

    Two neighbours on an axis are of different kinds where their largest absolute values differ by more than a factor of 30, unless both
    stay within 0..1 (scores), and in outputs of three or more dimensions also where only one of them does. A vector of logits may hold a
    small one by chance, so there the magnitude alone counts. Kinds may alternate along a flattened axis, as in x, y, confidence, x, y ...
    of the points of a body. An output without such an axis is one group.
    """
    reference = as_rows(reference)
    limits = {axis: _find_limits(reference, axis) for axis in range(1, reference.ndim) if reference.shape[axis] >= 2 and reference.size}
    found = {axis: _find_cuts(*limits[axis], reference.ndim > 2) for axis in limits if reference.shape[axis] <= WIDEST_AXIS}
    axes = [axis for axis, cuts in found.items() if 1 <= len(cuts) < MOST_GROUPS]
    if not axes:
        many = (axis for axis in limits if axis not in found or len(found[axis]) >= MOST_GROUPS)
        return next((groups for axis in many if (groups := _find_alternating(axis, *limits[axis]))), [Group()])
    axis = min(axes, key=lambda a: (len(found[a]), -a))
    edges = [0, *found[axis], reference.shape[axis]]
    return [Group(axis, start, stop) for start, stop in pairwise(edges)]


def _find_limits(reference: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest value at each position of an axis."""
    others = tuple(place for place in range(reference.ndim) if place != axis)
    return reference.min(axis=others).astype(np.float64), reference.max(axis=others).astype(np.float64)


def _find_alternating(axis: int, low: np.ndarray, high: np.ndarray) -> list[Group]:
    """The groups of an axis with these limits, along which kinds of values alternate with the shortest period; none where they do not."""
    size = len(low)
    scale = np.maximum(np.abs(low), np.abs(high))
    for period in (period for period in range(2, min(LONGEST_PERIOD, size // LEAST_PERIODS) + 1) if size % period == 0):
        lows, highs, scales = (values.reshape(-1, period) for values in (low, high, scale))
        if (scales.max(axis=0) > SCALE_JUMP * scales.min(axis=0)).any():
            continue
        cuts = _find_cuts(lows.min(axis=0), highs.max(axis=0), True)
        if cuts:
            return [Group(axis, start, stop, period, size) for start, stop in pairwise([0, *cuts, period])]
    return []


def _find_cuts(low: np.ndarray, high: np.ndarray, by_score: bool) -> list[int]:
    """Where the kind of values changes along an axis with these limits. by_score: also between scores and others of their magnitude."""
    score = (low >= 0) & (high <= 1)
    scale = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-30)
    jump = np.maximum(scale[1:] / scale[:-1], scale[:-1] / scale[1:]) > SCALE_JUMP
    changed = jump & ~(score[1:] & score[:-1])
    if by_score:
        changed |= score[1:] != score[:-1]
    return [int(place) + 1 for place in np.flatnonzero(changed)]


def compare_groups(expected: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray]) -> list[GroupAgreement]:
    """Each group of each output of a source, [n, ...] or of various sizes, against the variant's of the same name and shape."""
    pairs = {name: (as_rows(reference), as_rows(given[name])) for name, reference in expected.items()}
    return [_compare_group(name, group, *pair) for name, pair in pairs.items() for group in find_groups(pair[0])]


def _compare_group(name: str, group: Group, reference: np.ndarray, other: np.ndarray) -> GroupAgreement:
    whole = reference.dtype.kind in "biu"
    own, made = group.of(reference).astype(np.float64), group.of(other).astype(np.float64)
    largest = float(np.abs(own - made).max()) if own.size else 0.0
    agreement = max(sqnr_db(own, made), decisions_db(own, made)) if whole else sqnr_db(own, made)
    return GroupAgreement(name, group.name, agreement, largest, _moves(own) and not _moves(made))


def _moves(array: np.ndarray) -> bool:
    """Whether an array [n, ...] differs from sample to sample; a single sample is judged by its own elements."""
    return bool((array != array[:1]).any() if len(array) > 1 else np.ptp(array) > 0)


def worst_of(found: Iterable[GroupAgreement]) -> GroupAgreement:
    """The group that agrees least; a dead one before all others."""
    return min(found, key=lambda one: (not one.dead, one.sqnr_db))
