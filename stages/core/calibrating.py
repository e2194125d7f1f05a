"""The calibration samples: which ones, and a hash that tells when they change."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.samples import Samples

DATA = Path("models/data")
SPLIT = "calibration"


def chosen(samples: Samples, wanted: int) -> np.ndarray:
    """Indices of the first samples of the calibration split, in its stored order; all of them where there are fewer."""
    return samples.indices(SPLIT)[:wanted]


def redrawn(samples: Samples, wanted: int, count: int, seed: int) -> list[np.ndarray]:
    """`count` other sets of as many samples, drawn with replacement from the whole calibration split: a bootstrap of the choice."""
    split, rng = samples.indices(SPLIT), np.random.default_rng(seed)
    return [rng.choice(split, min(wanted, len(split)), replace=True) for _ in range(count)]


def feeds(samples: Samples, indices: Sequence[int] | np.ndarray) -> list[dict[str, np.ndarray]]:
    """Feeds of batch 1, as quantizers take them."""
    return [samples.feeds(np.asarray([index])) for index in indices]


def described(indices: np.ndarray, data: Path = DATA) -> dict[str, Any]:
    """What a manifest says of a calibration set: its indices, and the sha256 over the sha256 of each sample in this order."""
    files = json.loads((data / "files.json").read_text(encoding="utf-8"))
    listing = "\n".join(files[index]["sha256"] for index in indices)
    return {"split": SPLIT, "indices": indices.tolist(), "sha256": hashlib.sha256(listing.encode()).hexdigest()}
