"""Constant masks of attention, which pnnx writes as bytes of true and false and ncnn reads as floats that are added to the scores.

Read as they are written, they reach beyond their memory: a ViT keeps 46 dB, or the process aborts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from edgewise.formats.ncnn.net_files import Layer

ATTENTION = ("SDPA", "MultiHeadAttention")
MASKED = 5  # the parameter of these that says whether a mask is among their inputs
SHUT = -1e30  # added to the score of a position that is not seen
STORED_AS, FLOATS = 21, "1"  # the parameter of a constant that says how it is stored
CHANNELS = 2


def widen_masks(layers: Sequence[Layer]) -> list[Layer]:
    """The layers with constants of bytes that attention reads as floats: 0 for true, a large negative number for false."""
    read = set(_trace(layers))
    return [_widen(layer) if layer.kind == "MemoryData" and layer.outputs[0] in read else layer for layer in layers]


def _trace(layers: Sequence[Layer]) -> Iterator[str]:
    """Blobs that attention reads, and those behind them, through Split."""
    origins = {blob: layer.inputs[0] for layer in layers if layer.kind == "Split" for blob in layer.outputs}
    for layer in layers:
        for blob in layer.inputs if layer.kind in ATTENTION and layer.integer(MASKED) else ():
            while blob in origins:
                blob = origins[blob]
            yield blob


def _widen(layer: Layer) -> Layer:
    """A mask of one channel becomes a matrix, which is added for every head."""
    seen = layer.arrays["constant"]
    if seen.dtype != np.int8:
        return layer
    params = {key: value for key, value in layer.params.items() if not (key == CHANNELS and value == "1")}
    shape = seen.shape[1:] if len(seen.shape) == 3 and len(seen) == 1 else seen.shape
    mask = np.where(seen != 0, np.float32(0), np.float32(SHUT)).reshape(shape)
    return replace(layer, params={**params, STORED_AS: FLOATS}, arrays={"constant": mask})
