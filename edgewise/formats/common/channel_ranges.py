"""How much one scale of 8 bits for a whole tensor costs where its channels differ in range.

Each channel of a depthwise convolution is an output by itself, so nothing makes up for what its input lost. Where a runtime has no int8
kernel with a scale for each input channel, such layers stay float, with those that feed them behind activations alone: rounded to one scale
there, the same channels would be lost. YOLOX-Nano has 8 of them among 30 depthwise convolutions.
"""

import numpy as np

BITS = 2.0  # of 8, lost in the mean over the channels; MobileNetV2 on digits loses half a bit
SAMPLES = 32  # whose ranges are looked at


Extremes = dict[str, tuple[np.ndarray, np.ndarray]]  # of each channel of a tensor: the smallest and the largest value


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
