"""Which samples a variant is calibrated with, and a hash that changes when they do."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.samples import Samples

DATA = Path("models/data")
SPLIT = "calibration"


def select(samples: Samples, count: int) -> np.ndarray:
    """Indices of the first `count` samples of the calibration split, in stored order; all of them where there are fewer."""
    return samples.indices(SPLIT)[:count]


def resample(samples: Samples, size: int, count: int, seed: int) -> list[np.ndarray]:
    """`count` other calibration sets of `size` samples, drawn with replacement from the whole split: a bootstrap of the choice."""
    split, rng = samples.indices(SPLIT), np.random.default_rng(seed)
    return [rng.choice(split, min(size, len(split)), replace=True) for _ in range(count)]


def load_feeds(samples: Samples, indices: Sequence[int] | np.ndarray) -> list[dict[str, np.ndarray]]:
    """Feeds of batch size 1, as quantizers take them."""
    return [samples.feeds(np.asarray([index])) for index in indices]


def thin_out(feeds: Sequence[dict[str, np.ndarray]], most: int) -> list[dict[str, np.ndarray]]:
    """At most `most` of the feeds, spread evenly over them."""
    return [feeds[i] for i in np.unique(np.linspace(0, len(feeds) - 1, min(most, len(feeds))).round().astype(int))]


def describe(indices: np.ndarray, data: Path = DATA) -> dict[str, Any]:
    """A calibration set as it is recorded in a manifest: split, indices, and one sha256 over the sha256 of each sample, in this order."""
    files = json.loads((data / "files.json").read_text(encoding="utf-8"))
    listing = "\n".join(files[index]["sha256"] for index in indices)
    return {"split": SPLIT, "indices": indices.tolist(), "sha256": hashlib.sha256(listing.encode()).hexdigest()}
