"""The samples of models/data as a model takes them, and the encoding of their labels as targets.

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
from edgewise.config.settings import nearest
from edgewise.errors import DataError
from edgewise.plugins import Item

CLASSES, MULTI_LABEL, VALUES = KINDS = ("classes", "multi_label", "values")


@dataclass(frozen=True)
class Samples:
    """The data set of models/data."""

    labels: tuple[str, ...]
    preprocessing: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]  # stored inputs, memory-mapped: pictures are uint8 [n, h, w, c]
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
        """Indices of a split (train, validation, calibration or test), int64, in stored order."""
        return np.asarray(self.splits[split], np.int64)

    def targets(self, indices: np.ndarray) -> np.ndarray:
        """Targets: int64 [n], positions in `labels`; for multi_label and values float32 [n, labels]."""
        targets: np.ndarray = self.stored_targets[indices]
        return targets

    def raw(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as stored, [n, ...]: pictures are resized, uint8, not normalized."""
        return {name: np.asarray(array[indices]) for name, array in self.arrays.items()}

    def feeds(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as the model takes them, [n, ...]."""
        raw = self.raw(indices)
        if self.preprocessing["kind"] == "image":
            return {name: preprocess.normalize(batch, self.preprocessing) for name, batch in raw.items()}
        return raw


def encode_targets(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The label names and the targets: int64 [n], positions in the names, or float32 [n, names]. DataError as the functions below.

    settings: of the data set, see data.common.DataSettings.
    """
    return encode_classes(items, settings) if settings.targets == CLASSES else encode_columns(items, settings)


def encode_classes(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The class names in the data set's order, and int64 [n]. DataError for fewer than two classes, or none named data.normal."""
    names = [settings.merge_label(item.label) for item in items]
    labels, number = settings.index_classes(set(names))
    if len(labels) < 2:
        raise DataError(
            f"data: {len(items)} samples of {len(labels)} class {', '.join(labels)}; two classes or more are needed to tell them apart"
        )
    if settings.normal is not None and settings.normal not in names:
        raise DataError(f"data.normal: no sample has the label {settings.normal!r}; {nearest(settings.normal, set(names))}")
    return labels, np.array([number[name] for name in names], np.int64)


def find_normal_label(items: Sequence[Item], labels: Sequence[str], targets: np.ndarray, settings: Any) -> str | None:
    """The label of samples without a defect, which the user's file of names (data.label_names) may spell differently."""
    return next((labels[number] for item, number in zip(items, targets, strict=True) if item.label == settings.normal), None)


def encode_columns(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """Names and float32 [n, names]. DataError for rows of unequal length, another number of names, multi_label values besides 0 and 1."""
    lengths = {len(item.label) for item in items}
    if len(lengths) != 1:
        raise DataError(f"data.labels: {len(items)} samples with {sorted(lengths)} targets each; all must have the same number")
    values, (width,) = np.array([item.label for item in items], np.float32), lengths
    labels = list(settings.target_names or (f"y{i}" for i in range(width)))
    if len(labels) != width:
        raise DataError(f"data.target_names: {len(labels)} names ({', '.join(labels)}) for {width} targets; give one for each")
    if settings.targets == MULTI_LABEL and not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise DataError(f"data.labels: {odd:g} among the labels; multi_label takes 0 or 1 for each (data.targets=values takes any number)")
    return labels, values


def masks_by_label(targets: np.ndarray, kind: str, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """For each label that occurs, which samples have it, bool [n]; empty for numbers. kind: one of KINDS."""
    if kind == CLASSES:
        return {labels[i]: targets == i for i in np.unique(targets)}
    return {label: targets[:, i] > 0 for i, label in enumerate(labels)} if kind == MULTI_LABEL else {}


def count_by_split(masks: Mapping[str, np.ndarray], splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Number of samples by split and label. masks: of `masks_by_label`."""
    return {name: {label: int(mask[indices].sum()) for label, mask in masks.items()} for name, indices in splits.items()}
