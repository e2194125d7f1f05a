"""Depthwise convolutions whose input channels differ so much in range that one scale of 8 bits is too coarse for most of them.

ncnn has one scale for the input of a depthwise convolution, so these layers stay float with those that feed them (see
common.channel_ranges).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from edgewise.formats.common.channel_ranges import BITS, SAMPLES, lost_bits
from edgewise.formats.ncnn.net_files import Layer
from edgewise.formats.ncnn.thresholds import iterate_blobs

Arrays = Mapping[str, np.ndarray]
DEPTHWISE = "ConvolutionDepthWise"
CONVOLUTIONS = ("Convolution", DEPTHWISE)
ELEMENTWISE = ("Clip", "ELU", "GELU", "HardSigmoid", "HardSwish", "Mish", "PReLU", "ReLU", "Sigmoid", "Split", "Swish", "TanH")


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
