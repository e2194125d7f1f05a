"""The shapes of blobs, which the files of ncnn do not tell: found by a run with zeros."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from edgewise.formats.ncnn.run import open_net, read_ports, start


def find_shapes(folder: Path, blobs: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Blob -> its shape for one sample, without an axis of samples. RuntimeError where ncnn cannot compute it."""
    ports = read_ports(str(folder))["inputs"]
    extractor = start(open_net(str(folder), {"light": False}), ports, {port["name"]: np.zeros(port["shape"]) for port in ports})
    found = {}
    for blob in blobs:
        code, held = extractor.extract(blob)
        if code:
            raise RuntimeError(f"ncnn cannot compute blob {blob}: code {code}")
        found[blob] = np.array(held).shape
    return found
