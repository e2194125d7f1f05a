"""Non-maximum suppression by torchvision's rules, in numpy alone; Python 3.9.

Boxes are taken by descending score, ties in their given order. One is dropped if its overlap (intersection over union) with a kept box of
its class is above the threshold. The arithmetic is that of the boxes' own type, as in torchvision's kernel: boxes without area that lie on
each other have an undefined overlap (0 / 0) and both stay. torchvision's batched_nms moves the classes apart and rounds differently by it;
here the classes are compared.
"""

from __future__ import annotations

from typing import Optional

import numpy as np

BLOCK = 128  # boxes that are looked at together; 64 to 256 take the same time


def suppress(
    corners: np.ndarray, scores: np.ndarray, classes: Optional[np.ndarray], threshold: float, most: Optional[int] = None
) -> np.ndarray:
    """The positions of the boxes that stay, by descending score: int64 [kept].

    corners: float [k, 4] of x0, y0, x1, y1; scores: float [k]; classes: int [k], or None if any box may drop any other; most: stop after so
    many. Each block of boxes is held against those that stay so far, then against itself.
    """
    order = np.argsort(-scores, kind="stable")
    sides = np.ascontiguousarray(corners[order].T)
    groups = np.zeros(len(order), np.int64) if classes is None else classes[order]
    limit = _below(threshold, sides.dtype)
    kept = np.zeros(0, np.int64)
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if len(kept):
            block = block[~_overlap(sides, groups, block, kept, limit).any(axis=1)]
        kept = np.concatenate([kept, block[_first(_overlap(sides, groups, block, block, limit))]])
        if most is not None and len(kept) >= most:
            kept = kept[:most]
            break
    stays: np.ndarray = order[kept]
    return stays


def _below(threshold: float, dtype: np.dtype) -> np.generic:
    """The largest number of the type that is not above the threshold: to be above one is to be above the other. torchvision compares with
    a double; numpy would round 0.1 up to float32 first."""
    rounded: np.generic = dtype.type(threshold)
    return rounded if float(rounded) <= threshold else np.nextafter(rounded, dtype.type(-np.inf))


def _overlap(sides: np.ndarray, groups: np.ndarray, some: np.ndarray, others: np.ndarray, limit: np.generic) -> np.ndarray:
    """Whether two boxes are of one class and overlap by more than the limit: bool [some, others]."""
    x0, y0, x1, y1 = sides[:, some][:, :, None]
    u0, v0, u1, v1 = sides[:, others][:, None, :]
    zero = sides.dtype.type(0)
    shared = np.maximum(zero, np.minimum(x1, u1) - np.maximum(x0, u0))
    shared *= np.maximum(zero, np.minimum(y1, v1) - np.maximum(y0, v0))
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0 is above nothing
        above: np.ndarray = shared / ((x1 - x0) * (y1 - y0) + (u1 - u0) * (v1 - v0) - shared) > limit
    above &= groups[some][:, None] == groups[others][None, :]
    return above


def _first(overlap: np.ndarray) -> np.ndarray:
    """Which boxes of a block stay, bool [m], from their overlap with each other."""
    later = np.triu(overlap, 1)
    stays = np.ones(len(later), bool)
    for i in np.flatnonzero(later.any(axis=1)):
        if stays[i]:
            stays &= ~later[i]
    return stays
