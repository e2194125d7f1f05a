"""1,797 scans of handwritten digits, 8x8 pixels, grayscale: real data that ships with scikit-learn (UCI, CC BY 4.0)."""

import hashlib
import importlib.metadata
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.data.encoders import PictureEncoder, PictureSettings
from edgewise.errors import MissingExtra
from edgewise.plugins import Item

__all__ = ["Settings", "encoder", "items", "probe"]

MAX_VALUE = 16  # each pixel counts the dark pixels of a 4x4 cell of the original scan
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(PictureSettings):
    pass


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of the data file and version of scikit-learn, without importing it, which takes a second."""
    spec = importlib.util.find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("scikit-learn", "all")
    content = Path(spec.submodule_search_locations[0], "datasets", "data", "digits.csv.gz").read_bytes()
    version = importlib.metadata.version("scikit-learn")
    return {"digest": hashlib.sha256(version.encode() + content).hexdigest(), "files": 1, "bytes": len(content)}


def items(settings: Settings) -> Iterator[Item]:
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (scan, target) in enumerate(zip(digits.images, digits.target, strict=True)):
        image = np.rint(scan * (255 / MAX_VALUE)).astype(np.uint8)[:, :, None]
        yield Item(f"{number:04d}", str(target), None, hashlib.sha256(image.tobytes()).hexdigest(), image)
