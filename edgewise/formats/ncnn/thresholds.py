"""How far the inputs of layers reach, found by running calibration samples through the float net and reading its blobs.

ncnn's int8 is symmetric: a blob is round(x * 127 / threshold), clipped to -127 .. 127.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgewise.formats.ncnn.run import open_net, read_blobs, read_ports, start

Arrays = Mapping[str, np.ndarray]
BINS = 2048  # of the histogram of magnitudes, as in ncnn2table
LEVELS = 128  # magnitudes that int8 tells apart
CANDIDATES = 16  # bins between two thresholds that are tried
PERCENTILE = 99.999
METHODS = ("minmax", "mean", "entropy", "percentile")


def find_thresholds(folder: Path, blobs: Sequence[str], feeds: Sequence[Arrays], method: str) -> dict[str, float]:
    """The largest magnitude of each blob that is told apart. folder: the float net. method: one of METHODS.

    minmax: the largest of all samples; mean: the mean of each sample's largest; entropy: the one with the least Kullback-Leibler divergence
    between the magnitudes and their 128 levels, as ncnn2table finds it; percentile: that of 99.999 % of all magnitudes.
    """
    largest = {blob: [0.0] for blob in blobs}
    for values in iterate_blobs(folder, blobs, feeds):
        for blob, array in values.items():
            largest[blob].append(float(np.abs(array).max(initial=0.0)))
    if method == "mean":
        return {blob: float(np.mean(found[1:] or [0.0])) for blob, found in largest.items()}
    ends = {blob: max(found) for blob, found in largest.items()}
    if method == "minmax":
        return ends
    counts = {blob: np.zeros(BINS) for blob in blobs}
    for values in iterate_blobs(folder, blobs, feeds):
        for blob, array in values.items():
            counts[blob] += np.histogram(np.abs(array), BINS, (0.0, ends[blob] or 1.0))[0]
    return {blob: CHOICES[method](counts[blob]) / BINS * ends[blob] for blob in blobs}


def iterate_blobs(folder: Path, blobs: Sequence[str], feeds: Sequence[Arrays]) -> Iterator[dict[str, np.ndarray]]:
    """The values of the blobs for each sample."""
    net, given = open_net(str(folder), {"light": False, "winograd": False}), read_ports(str(folder))["inputs"]
    for feed in feeds:
        yield read_blobs(start(net, given, feed), blobs)


def choose_percentile(counts: np.ndarray) -> float:
    """Bins up to the percentile."""
    shares = np.cumsum(counts) / max(1.0, counts.sum())
    return float(np.searchsorted(shares, PERCENTILE / 100) + 1)


def choose_entropy(counts: np.ndarray) -> float:
    """Bins up to the threshold with the least divergence. Nothing is told of zeros: they are no loss, whatever the threshold."""
    known = counts.copy()
    known[0] = 0.0
    if not known.any():
        return float(BINS)
    return float(min(range(LEVELS, BINS + 1, CANDIDATES), key=lambda end: measure_divergence(known, end)))


def measure_divergence(counts: np.ndarray, end: int) -> float:
    """KL(P || Q): P the magnitudes, those beyond `end` bins clipped into the last one; Q the same in 128 levels, spread over the bins
    that hold any."""
    true = counts[:end].copy()
    held = true > 0
    level = np.arange(end) * LEVELS // end
    sums, filled = np.bincount(level, true, LEVELS), np.bincount(level, held, LEVELS)
    rounded = np.where(held, (sums / np.maximum(filled, 1))[level], 0.0)
    true[-1] += counts[end:].sum()
    both = (true > 0) & (rounded > 0)
    lost = true[~both].sum() / true.sum()
    p, q = true / true.sum(), rounded / max(rounded.sum(), 1e-12)
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * np.log(BINS))


CHOICES: Mapping[str, Callable[[np.ndarray], float]] = {"entropy": choose_entropy, "percentile": choose_percentile}
