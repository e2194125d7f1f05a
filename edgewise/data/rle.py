"""Run-length encoded regions as pycocotools writes them: runs of pixels outside and inside in turn, column by column from the left."""

from collections.abc import Sequence

import numpy as np

FIRST = 48  # '0'; each character has 5 bits of a number, and one that says whether more follow
BITS, MORE, SIGN = 5, 0x20, 0x10


def decode_counts(counts: Sequence[int], shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """bool [height, width] from lengths of runs. shape: that of the region, which must be size. ValueError if the runs do not fill it."""
    if shape != size:
        raise ValueError(f"a region of {list(shape)} for a picture of {list(size)} (height, width)")
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise ValueError(f"{len(runs)} runs of {runs.sum()} pixels for {shape[0] * shape[1]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape[::-1]).T


def decode_text(text: str, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """As decode_counts, from the compressed form: numbers of 5 bits a character, lowest first; from the fourth run on they are differences
    from the run before the last (rleFrString of pycocotools)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        part = ord(character) - FIRST
        value |= (part & 0x1F) << shift
        shift += BITS
        if part & MORE:
            continue
        value -= (1 << shift) if part & SIGN else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return decode_counts(runs, shape, size)
