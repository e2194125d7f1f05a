"""The shapes of blobs, which the files of ncnn do not tell: found by a run with zeros."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgewise.formats.ncnn.run import open_net, read_blobs, read_ports, start


def find_shapes(folder: Path, blobs: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Blob -> its shape for one sample, without an axis of samples. RuntimeError where ncnn cannot compute it."""
    ports = read_ports(str(folder))["inputs"]
    net = open_net(str(folder), {"light": False})
    values = read_blobs(start(net, ports, {port["name"]: np.zeros(port["shape"]) for port in ports}), blobs)
    return {blob: array.shape for blob, array in values.items()}
