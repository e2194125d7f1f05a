"""The samples of models/data as a model takes them, and their targets.

samples = Samples.open(Path("models/data"))
test = samples.indices("test")
session.run(samples.feeds(test[:32]))
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import preprocess, ragged
from edgewise.artifacts import artifact
from edgewise.artifacts.targets import CLASSES, Targets
from edgewise.artifacts.targets import load as load_targets
from edgewise.errors import DataError


@dataclass(frozen=True)
class Samples:
    """The data set of models/data."""

    labels: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]  # stored inputs, memory-mapped: pictures are uint8 [n, h, w, c], of various sizes [pixels, c]
    stored_targets: Targets
    splits: Mapping[str, Sequence[int]]
    kind: str = CLASSES  # of the targets, see artifacts.targets
    normal: int | None = None  # position in `labels` of samples without a defect
    stored_sizes: np.ndarray | None = None  # of pictures, int32 [n, 2]
    shapes: np.ndarray | None = None  # of pictures of various sizes, as they are stored: int32 [n, 2]
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
            shapes=np.load(path) if (path := folder / "shapes.npy").exists() else None,
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
        """The inputs as stored, [n, ...]: pictures are resized, uint8, not normalized. Of various sizes: see agent.ragged."""
        if self.shapes is None:
            return {name: np.asarray(array[indices]) for name, array in self.arrays.items()}
        return {name: ragged.join([self._cut_out(array, int(index)) for index in indices]) for name, array in self.arrays.items()}

    def _cut_out(self, pixels: np.ndarray, index: int) -> np.ndarray:
        """One picture, [1, h, w, c], of the pixels of all of them."""
        assert self.shapes is not None
        start, end = self._ends[index : index + 2]
        return np.asarray(pixels[start:end]).reshape(1, *self.shapes[index], pixels.shape[1])

    @cached_property
    def _ends(self) -> np.ndarray:
        """Where each picture begins among the pixels of all of them, and where the last one ends: int64 [n + 1]."""
        assert self.shapes is not None
        return np.concatenate([[0], np.cumsum(self.shapes.astype(np.int64).prod(axis=1))])

    def raw_of_one_size(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """As `raw`; pictures of various sizes are stretched to data.image_size, at which latency is measured."""
        raw = self.raw(indices)
        if self.shapes is None:
            return raw
        spec = {**self.preprocessing, "resize": "stretch"}
        count = len(indices)
        return {n: np.stack([preprocess.resize_to_spec(ragged.take(a, i)[0], spec) for i in range(count)]) for n, a in raw.items()}

    def feeds(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as the model takes them, [n, ...]; pictures of various sizes: see agent.ragged."""
        return self.to_feeds(self.raw(indices))

    def to_feeds(self, raw: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What `feeds` makes of raw inputs."""
        if self.preprocessing["kind"] != "image":
            return raw
        return {name: ragged.apply(self._normalize, batch) for name, batch in raw.items()}

    def _normalize(self, batch: np.ndarray) -> np.ndarray:
        return preprocess.normalize(batch, self.preprocessing)

    @property
    def ragged(self) -> bool:
        """Whether samples have various sizes, so that a model takes them one by one."""
        return self.shapes is not None
