"""Read models/data: the samples of a split as a model takes them.

samples = Samples.open(Path("models/data"))
test = samples.indices("test")
session.run(samples.feeds(test[:32]))
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact
from stages.payload import preprocess


@dataclass(frozen=True)
class Samples:
    labels: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]  # stored inputs, mapped from disk: pictures are uint8 [n, h, w, c]
    stored_targets: np.ndarray
    splits: Mapping[str, Sequence[int]]
    kind: str = "classes"  # of the targets, as data.targets has them
    normal: int | None = None  # position in `labels` of samples without a defect

    @classmethod
    def open(cls, folder: Path) -> "Samples":
        manifest = artifact.read(folder)
        return cls(
            labels=manifest.labels,
            preprocessing=manifest.preprocessing or {},
            arrays={t.name: np.load(folder / "inputs" / f"{t.name}.npy", mmap_mode="r") for t in manifest.inputs},
            stored_targets=np.load(folder / "targets.npy"),
            splits=json.loads((folder / "splits.json").read_text(encoding="utf-8")),
            kind=manifest.details.get("targets", "classes"),
            normal=manifest.labels.index(normal) if (normal := manifest.details.get("normal")) else None,
        )

    def indices(self, split: str) -> np.ndarray:
        """int64, in stored order. split: train, validation, calibration or test."""
        return np.asarray(self.splits[split], np.int64)

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """int64 [n]: positions in `labels`; of multi_label and values float32 [n, labels]."""
        return self.stored_targets[indices]

    def raw(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as stored, [n, ...]: pictures resized, uint8, not normalized."""
        return {name: np.asarray(array[indices]) for name, array in self.arrays.items()}

    def feeds(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as the model takes them, [n, ...]."""
        raw = self.raw(indices)
        if self.preprocessing["kind"] == "image":
            return {name: preprocess.normalize(batch, self.preprocessing) for name, batch in raw.items()}
        return raw
