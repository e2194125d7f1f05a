"""What a model is to answer: a class, any number of labels, or numbers. As arrays with the names of what they hold."""

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


def named(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The names, and the targets: int64 [n], positions in the names, or float32 [n, names]. DataError where they do not fit."""
    return classes(items, settings) if settings.targets == CLASSES else columns(items, settings)


def classes(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The labels, in the data set's order. DataError unless there are at least two."""
    names = [settings.merge_label(item.label) for item in items]
    labels, number = settings.index_classes(set(names))
    if len(labels) < 2:
        raise DataError(
            f"data: {len(items)} samples of {len(labels)} class {', '.join(labels)}; two classes or more are needed to tell them apart"
        )
    if settings.normal is not None and settings.normal not in names:
        raise DataError(f"data.normal: no sample has the label {settings.normal!r}; {nearest(settings.normal, set(names))}")
    return labels, np.array([number[name] for name in names], np.int64)


def normal(items: Sequence[Item], labels: Sequence[str], targets: np.ndarray, settings: Any) -> str | None:
    """What samples without a defect are called in `labels`, which the user's own file of names may spell otherwise."""
    return next((labels[number] for item, number in zip(items, targets, strict=True) if item.label == settings.normal), None)


def columns(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """Numbers, [n, names]. DataError for rows of unlike length, too few names, and labels that are neither 0 nor 1."""
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


def members(targets: np.ndarray, kind: str, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """The samples of each label that any sample has, bool [n]; of numbers none, since all samples have them all."""
    if kind == CLASSES:
        return {labels[i]: targets == i for i in np.unique(targets)}
    return {label: targets[:, i] > 0 for i, label in enumerate(labels)} if kind == MULTI_LABEL else {}


def counts(found: Mapping[str, np.ndarray], splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Samples by split and label. found: of `members`."""
    return {name: {label: int(mine[indices].sum()) for label, mine in found.items()} for name, indices in splits.items()}


# Read models/data: the samples of a split as a model takes them.
#
# samples = Samples.open(Path("models/data"))
# test = samples.indices("test")
# session.run(samples.feeds(test[:32]))


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
        targets: np.ndarray = self.stored_targets[indices]
        return targets

    def raw(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as stored, [n, ...]: pictures resized, uint8, not normalized."""
        return {name: np.asarray(array[indices]) for name, array in self.arrays.items()}

    def feeds(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs as the model takes them, [n, ...]."""
        raw = self.raw(indices)
        if self.preprocessing["kind"] == "image":
            return {name: preprocess.normalize(batch, self.preprocessing) for name, batch in raw.items()}
        return raw
