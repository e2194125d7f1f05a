"""Targets: the labels of samples as the numbers that tasks score against, by kind, and where models/data holds them.

classes      int64 [n], positions in the labels of the data set
multi_label  float32 [n, labels], 0 or 1
values       float32 [n, outputs]
none         None: there are no labels
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.config.settings import nearest
from edgewise.errors import DataError
from edgewise.plugins import Item

CLASSES, MULTI_LABEL, VALUES, NONE = KINDS = ("classes", "multi_label", "values", "none")
FILE = "targets.npy"
Targets = np.ndarray | None


def find_kind(items: Sequence[Item], wanted: str) -> str:
    """The kind of the targets: `wanted`, data.targets, or none where no sample has a label. DataError if only some have one."""
    without = [item.name for item in items if item.label is None]
    if without and len(without) < len(items):
        raise DataError(
            f"data: {len(without)} of {len(items)} samples have no label, such as {without[0]}; label all of them, or set data.targets=none"
        )
    return NONE if without else wanted


def encode(items: Sequence[Item], settings: Any) -> tuple[list[str], Targets]:
    """The label names and the targets, see above. DataError as the functions below.

    settings: of the data set, see data.common.DataSettings.
    """
    kind = find_kind(items, settings.targets)
    if kind == NONE:
        return [], None
    return encode_classes(items, settings) if kind == CLASSES else encode_columns(items, settings)


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


def find_normal_label(items: Sequence[Item], labels: Sequence[str], targets: Targets, settings: Any) -> str | None:
    """The label of samples without a defect, which the user's file of names (data.label_names) may spell differently."""
    if settings.normal is None or targets is None:
        return None
    return next((labels[number] for item, number in zip(items, targets, strict=True) if item.label == settings.normal), None)


def encode_columns(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """Names and float32 [n, names]. DataError for rows of unequal length, another number of names, multi_label values besides 0 and 1."""
    rows: list[Any] = [item.label for item in items]
    lengths = {len(row) for row in rows}
    if len(lengths) != 1:
        raise DataError(f"data.labels: {len(items)} samples with {sorted(lengths)} targets each; all must have the same number")
    values, (width,) = np.array(rows, np.float32), lengths
    labels = list(settings.target_names or (f"y{i}" for i in range(width)))
    if len(labels) != width:
        raise DataError(f"data.target_names: {len(labels)} names ({', '.join(labels)}) for {width} targets; give one for each")
    if settings.targets == MULTI_LABEL and not np.isin(values, (0, 1)).all():
        odd = values[~np.isin(values, (0, 1))][0]
        raise DataError(f"data.labels: {odd:g} among the labels; multi_label takes 0 or 1 for each (data.targets=values takes any number)")
    return labels, values


def store(folder: Path, targets: Targets) -> None:
    """Write the targets into models/data; without labels there is nothing to write."""
    if targets is not None:
        np.save(folder / FILE, targets)


def load(folder: Path, kind: str) -> Targets:
    """What `store` wrote. kind: one of KINDS, as the manifest has it."""
    if kind == NONE:
        return None
    stored: np.ndarray = np.load(folder / FILE)
    return stored


def masks_by_label(targets: Targets, kind: str, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """For each label that occurs, which samples have it, bool [n]; empty for numbers. kind: one of KINDS."""
    if targets is None or kind == VALUES:
        return {}
    if kind == CLASSES:
        return {labels[i]: targets == i for i in np.unique(targets)}
    return {label: targets[:, i] > 0 for i, label in enumerate(labels)}


def count_by_split(masks: Mapping[str, np.ndarray], splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Number of samples by split and label. masks: of `masks_by_label`."""
    return {name: {label: int(mask[indices].sum()) for label, mask in masks.items()} for name, indices in splits.items()}
