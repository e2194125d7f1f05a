"""What the blobs of a float net hold, found by running it: how far they reach, the thresholds that follow, and their shapes.

ncnn's int8 is symmetric: a blob is round(x * 127 / threshold), clipped to -127 .. 127. It has one threshold for the input of a depthwise
convolution. Where its channels differ so much in range that one is too coarse for most of them, such layers stay float with those that feed
them (see common.rounding).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgewise.formats.common.rounding import BITS, SAMPLES, lost_bits
from edgewise.formats.ncnn.net_files import Layer
from edgewise.formats.ncnn.run import open_net, read_blobs, read_ports, start

Arrays = Mapping[str, np.ndarray]
BINS = 2048  # of the histogram of magnitudes, as in ncnn2table
LEVELS = 128  # magnitudes that int8 tells apart
CANDIDATES = 16  # bins between two thresholds that are tried
PERCENTILE = 99.999
METHODS = ("minmax", "mean", "entropy", "percentile")
DEPTHWISE = "ConvolutionDepthWise"
CONVOLUTIONS = ("Convolution", DEPTHWISE)
ELEMENTWISE = ("Clip", "ELU", "GELU", "HardSigmoid", "HardSwish", "Mish", "PReLU", "ReLU", "Sigmoid", "Split", "Swish", "TanH")


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


def find_spread(folder: Path, layers: Sequence[Layer], feeds: Sequence[Arrays]) -> list[str]:
    """The names of these convolutions and of those that feed them. folder: the float net, whose layers these are."""
    depthwise = {layer.name: layer.inputs[0] for layer in layers if layer.kind == DEPTHWISE and "weight" in layer.arrays}
    if not depthwise or not feeds:
        return []
    reach = find_reach(folder, sorted(set(depthwise.values())), feeds[:SAMPLES])
    found = {name: blob for name, blob in depthwise.items() if lost_bits(-reach[blob], reach[blob]) > BITS}
    producers = {blob: layer for layer in layers for blob in layer.outputs}
    feeding = {feeder for blob in found.values() for feeder in iterate_feeders(blob, producers)}
    return [layer.name for layer in layers if layer.name in {*found, *feeding}]


def find_reach(folder: Path, blobs: Sequence[str], feeds: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """The largest magnitude of each channel, the first axis of a blob."""
    found: dict[str, np.ndarray] = {}
    for values in iterate_blobs(folder, blobs, feeds):
        for blob, array in values.items():
            reach = np.abs(array).reshape(len(array), -1).max(axis=1)
            found[blob] = np.maximum(found.get(blob, reach), reach)
    return found


def iterate_feeders(blob: str, producers: Mapping[str, Layer]) -> Iterator[str]:
    """The convolutions that a blob comes from through activations alone."""
    layer = producers.get(blob)
    if layer is None:
        return
    if layer.kind in CONVOLUTIONS:
        yield layer.name
    elif layer.kind in ELEMENTWISE:
        for given in layer.inputs:
            yield from iterate_feeders(given, producers)


def find_shapes(folder: Path, blobs: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Blob -> its shape for one sample, without an axis of samples. RuntimeError where ncnn cannot compute it."""
    ports = read_ports(str(folder))["inputs"]
    net = open_net(str(folder), {"light": False})
    values = read_blobs(start(net, ports, {port["name"]: np.zeros(port["shape"]) for port in ports}), blobs)
    return {blob: array.shape for blob, array in values.items()}
