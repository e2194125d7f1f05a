"""The samples of models/data as a model takes them, and their targets.

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

from edgewise.agent import preprocess
from edgewise.artifacts import artifact
from edgewise.artifacts.targets import CLASSES, Targets
from edgewise.artifacts.targets import load as load_targets
from edgewise.errors import DataError


@dataclass(frozen=True)
class Samples:
    """The data set of models/data."""

    labels: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]  # stored inputs, memory-mapped: pictures are uint8 [n, h, w, c]
    stored_targets: Targets
    splits: Mapping[str, Sequence[int]]
    kind: str = CLASSES  # of the targets, see artifacts.targets
    normal: int | None = None  # position in `labels` of samples without a defect
    stored_sizes: np.ndarray | None = None  # of pictures, int32 [n, 2]
    folder: Path | None = None  # that it was opened from

    @classmethod
    def open(cls, folder: Path) -> "Samples":
        manifest = artifact.read(folder)
        kind = manifest.details.get("targets", CLASSES)
        return cls(
            labels=manifest.labels,
            preprocessing=manifest.preprocessing or {},
            arrays={t.name: np.load(folder / "inputs" / f"{t.name}.npy", mmap_mode="r") for t in manifest.inputs},
            stored_targets=load_targets(folder, kind),
            splits=json.loads((folder / "splits.json").read_text(encoding="utf-8")),
            kind=kind,
            normal=manifest.labels.index(normal) if (normal := manifest.details.get("normal")) else None,
            folder=folder,
            stored_sizes=np.load(path) if (path := folder / "sizes.npy").exists() else None,
        )

    def indices(self, split: str) -> np.ndarray:
        """Indices of a split (train, validation, calibration or test), int64, in stored order."""
        return np.asarray(self.splits[split], np.int64)

    def targets(self, indices: np.ndarray) -> Any:
        """Targets by kind, see artifacts.targets: int64 [n], float32 [n, labels], a list of n Boxes or masks; None without labels."""
        return None if self.stored_targets is None else self.stored_targets[indices]

    def sizes(self, indices: np.ndarray) -> np.ndarray:
        """Height and width of pictures as their files have them, int32 [n, 2]. DataError if the data has no pictures."""
        if self.stored_sizes is None:
            raise DataError("data.name: this data has no pictures; boxes and masks need a data set of pictures")
        sizes: np.ndarray = self.stored_sizes[indices]
        return sizes

    def names(self, indices: np.ndarray) -> list[str]:
        """The names of samples, as the data set has them."""
        assert self.folder is not None
        files = json.loads((self.folder / "files.json").read_text(encoding="utf-8"))
        return [files[index]["name"] for index in indices]

    def raw(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as stored, [n, ...]: pictures are resized, uint8, not normalized."""
        return {name: np.asarray(array[indices]) for name, array in self.arrays.items()}

    def feeds(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as the model takes them, [n, ...]."""
        raw = self.raw(indices)
        if self.preprocessing["kind"] == "image":
            return {name: preprocess.normalize(batch, self.preprocessing) for name, batch in raw.items()}
        return raw
