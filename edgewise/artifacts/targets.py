"""Targets: the labels of samples as what tasks score against, by kind, and where models/data holds them.

classes      int64 [n], positions in the labels of the data set
multi_label  float32 [n, labels], 0 or 1
values       float32 [n, outputs]
none         None: there are no labels
boxes        a list of n Boxes, whose classes are positions in the labels
masks        a list of n masks, uint8 [height, width] of the picture as its file has it: positions in the labels, or IGNORED
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.config.settings import nearest
from edgewise.errors import DataError
from edgewise.plugins import IGNORED, Boxes, Item, Mask

CLASSES, MULTI_LABEL, VALUES, NONE, BOXES, MASKS = KINDS = ("classes", "multi_label", "values", "none", "boxes", "masks")
SHAPED = (BOXES, MASKS)  # labels that say where in the picture something is
FILE, PACKED_FILE = "targets.npy", "targets.npz"
MOST_CLASSES = IGNORED  # of masks, which have one byte for each pixel


@dataclass(frozen=True)
class BoxTable:
    """The boxes of all samples: those of sample i are rows offsets[i] to offsets[i + 1] of `every`."""

    offsets: np.ndarray
    every: Boxes

    @classmethod
    def of(cls, boxes: Sequence[Boxes]) -> "BoxTable":
        offsets = np.cumsum([0, *map(len, boxes)])
        fields = {name: np.concatenate([vars(each)[name] for each in boxes]) for name in vars(boxes[0])}
        return cls(offsets.astype(np.int64), Boxes(**fields))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, indices: np.ndarray) -> list[Boxes]:
        return [self.every.take(np.arange(self.offsets[i], self.offsets[i + 1])) for i in indices]

    def count(self, labels: int) -> np.ndarray:
        """How many objects of each class each sample has: int64 [n, labels]."""
        counts = np.zeros((len(self), labels), np.int64)
        np.add.at(counts, (np.repeat(np.arange(len(self)), np.diff(self.offsets)), self.every.classes), 1)
        return counts


@dataclass(frozen=True)
class MaskTable:
    """The masks of all samples, packed until they are asked for."""

    masks: tuple[Mask, ...]

    def __len__(self) -> int:
        return len(self.masks)

    def __getitem__(self, indices: np.ndarray) -> list[np.ndarray]:
        return [self.masks[i].unpack() for i in indices]

    def count(self, labels: int) -> np.ndarray:
        """How many pixels of each class each sample has: int64 [n, labels]."""
        return np.array([mask.pixels[:labels] for mask in self.masks], np.int64)


Targets = np.ndarray | BoxTable | MaskTable | None


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

    settings: of the data set, see data.common.DataSettings; for boxes and masks with `class_names`.
    """
    kind = find_kind(items, settings.targets)
    if kind == NONE:
        return (settings.index_classes([])[0] if settings.label_names else []), None
    if kind in SHAPED:
        return encode_boxes(items, settings) if kind == BOXES else encode_masks(items, settings)
    return encode_classes(items, settings) if kind == CLASSES else encode_columns(items, settings)


def encode_classes(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The class names in the data set's order, and int64 [n]. DataError for fewer than two classes, or none named data.normal."""
    names = [settings.merge_label(item.label) for item in items]
    labels, number = settings.index_classes(set(names))
    if len(labels) < 2:
        raise DataError(
            f"data: {len(items)} samples of {len(labels)} class {', '.join(labels)}; two classes or more are needed to tell them apart, "
            "or none at all: data.targets=none"
        )
    if settings.normal is not None and settings.normal not in names:
        raise DataError(f"data.normal: no sample has the label {settings.normal!r}; {nearest(settings.normal, set(names))}")
    return labels, np.array([number[name] for name in names], np.int64)


def find_normal_label(items: Sequence[Item], labels: Sequence[str], targets: Targets, settings: Any) -> str | None:
    """The label of samples without a defect, which the user's file of names (data.label_names) may spell differently."""
    if settings.normal is None or not isinstance(targets, np.ndarray):
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


def encode_boxes(items: Sequence[Item], settings: Any) -> tuple[list[str], BoxTable]:
    """The class names in the order of the model's outputs, and the boxes. DataError where no picture shows an object."""
    names, given = settings.class_names(), [item.label for item in items]
    if not any(isinstance(boxes, Boxes) and len(boxes) for boxes in given):
        raise DataError(
            f"data: {len(items)} pictures without any object{describe_left_out(items)}; check that the labels belong to these pictures, and"
            " their unit (yolo: shares of the sides; coco, voc: pixels)"
        )
    table = BoxTable.of([boxes for boxes in given if isinstance(boxes, Boxes)])
    labels, number = settings.index_classes(names)
    place = np.array([number[name] for name in names], np.int64)
    every = Boxes(table.every.corners, place[table.every.classes], table.every.areas, table.every.crowd)
    return labels, BoxTable(table.offsets, every)


def encode_masks(items: Sequence[Item], settings: Any) -> tuple[list[str], MaskTable]:
    """The class names in the order of the model's outputs, and the masks. DataError where all pixels have one class, or none has any, and
    for too many classes."""
    masks = tuple(item.label for item in items if isinstance(item.label, Mask))
    found = np.flatnonzero(np.sum([mask.pixels[:IGNORED] for mask in masks], axis=0))
    if not len(found):
        raise DataError(f"data: {len(items)} masks without a pixel of any class; check data.ignore and the names of the classes")
    names = list(settings.class_names()) or [str(number) for number in range(found[-1] + 1)]
    if len(found) < 2:
        raise DataError(
            f"data: all pixels of {len(items)} masks are {names[found[0]]}{describe_left_out(items)}; two classes or more are needed to"
            " tell them apart: check the masks, or the outlines that they are drawn from"
        )
    labels, number = settings.index_classes(names)
    if len(labels) > MOST_CLASSES:
        raise DataError(f"data.label_names: {len(labels)} classes; masks have at most {MOST_CLASSES}, one byte for each pixel")
    place = [number[name] for name in names]
    return labels, MaskTable(masks if place == list(range(len(names))) else tuple(renumber(mask, place) for mask in masks))


def describe_left_out(items: Sequence[Item]) -> str:
    """What was wrong with labels, counted, in brackets; nothing where all are right."""
    counts = Counter(what for item in items for what, _ in item.problems)
    return f" ({'; '.join(f'{count} {what}' for what, count in counts.items())})" if counts else ""


def renumber(mask: Mask, place: Sequence[int]) -> Mask:
    """The mask with each class at its place among the model's outputs."""
    table = np.full(256, IGNORED, np.uint8)
    table[: len(place)] = place
    return Mask.pack(table[mask.unpack()])


def store(folder: Path, targets: Targets) -> None:
    """Write the targets into models/data; without labels there is nothing to write."""
    if isinstance(targets, BoxTable):
        np.savez(folder / PACKED_FILE, offsets=targets.offsets, **vars(targets.every))
    elif isinstance(targets, MaskTable):
        packed = [np.frombuffer(mask.packed, np.uint8) for mask in targets.masks]
        offsets = np.cumsum([0, *map(len, packed)])
        sizes, pixels = ([getattr(mask, name) for mask in targets.masks] for name in ("size", "pixels"))
        np.savez(folder / PACKED_FILE, packed=np.concatenate(packed), offsets=offsets, sizes=np.array(sizes), pixels=np.array(pixels))
    elif targets is not None:
        np.save(folder / FILE, targets)


def load(folder: Path, kind: str) -> Targets:
    """What `store` wrote. kind: one of KINDS, as the manifest has it."""
    if kind == NONE:
        return None
    if kind in SHAPED:
        with np.load(folder / PACKED_FILE) as stored:
            return load_boxes(stored) if kind == BOXES else load_masks(stored)
    array: np.ndarray = np.load(folder / FILE)
    return array


def load_boxes(stored: Mapping[str, np.ndarray]) -> BoxTable:
    return BoxTable(stored["offsets"], Boxes(**{name: stored[name] for name in ("corners", "classes", "areas", "crowd")}))


def load_masks(stored: Mapping[str, np.ndarray]) -> MaskTable:
    packed, offsets = stored["packed"].tobytes(), stored["offsets"]
    sizes, pixels = stored["sizes"].tolist(), stored["pixels"].tolist()
    parts = (packed[start:end] for start, end in pairwise(offsets))
    return MaskTable(tuple(Mask((size[0], size[1]), part, tuple(n)) for size, part, n in zip(sizes, parts, pixels, strict=True)))


def pack(given: Any) -> Targets:
    """What `store` writes, from what tasks score against: a list of boxes or masks becomes a table."""
    if not isinstance(given, list):
        targets: Targets = given
        return targets
    return BoxTable.of(given) if isinstance(given[0], Boxes) else MaskTable(tuple(Mask.pack(mask) for mask in given))


def unpack(targets: Targets) -> Any:
    """What tasks score against, from what `load` gives: the reverse of `pack`."""
    return targets[np.arange(len(targets))] if isinstance(targets, (BoxTable, MaskTable)) else targets


def are_same(one: Any, other: Any) -> bool:
    """Whether two sets of targets are equal, of whatever kind; without labels they are."""
    if isinstance(one, list):
        return len(one) == len(other) and all(map(are_same, one, other))
    if hasattr(one, "__dataclass_fields__"):
        return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in one.__dataclass_fields__)
    return np.array_equal(one, other) if isinstance(one, np.ndarray) else one is other


def masks_by_label(targets: Targets, kind: str, labels: Sequence[str]) -> dict[str, np.ndarray]:
    """For each label that occurs, which samples have it, bool [n]; empty for numbers. kind: one of KINDS.

    Of boxes, masks and multi_label all labels are there, also those that never occur.
    """
    if targets is None or kind == VALUES:
        return {}
    if isinstance(targets, (BoxTable, MaskTable)):
        return dict(zip(labels, (targets.count(len(labels)) > 0).T, strict=True))
    if kind == CLASSES:
        return {labels[i]: targets == i for i in np.unique(targets)}
    return {label: targets[:, i] > 0 for i, label in enumerate(labels)}


def count_by_split(masks: Mapping[str, np.ndarray], splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Number of samples by split and label. masks: of `masks_by_label`."""
    return {name: {label: int(mask[indices].sum()) for label, mask in masks.items()} for name, indices in splits.items()}


def count_parts(targets: Targets, labels: Sequence[str], splits: Mapping[str, np.ndarray]) -> dict[str, dict[str, dict[str, int]]]:
    """What the manifest says beside the number of samples: objects (of boxes) or pixels (of masks) by split and label."""
    if not isinstance(targets, (BoxTable, MaskTable)):
        return {}
    counts = targets.count(len(labels))
    found = {name: dict(zip(labels, counts[indices].sum(axis=0).tolist(), strict=True)) for name, indices in splits.items()}
    return {"objects" if isinstance(targets, BoxTable) else "pixels": found}


def count_problems(items: Sequence[Item], most: int) -> dict[str, Any]:
    """What was wrong with labels: {what: {"count": n, "named": the first places}}."""
    counts = Counter(what for item in items for what, _ in item.problems)
    places = {what: list(dict.fromkeys(where for item in items for each, where in item.problems if each == what)) for what in counts}
    return {what: {"count": count, "named": places[what][:most]} for what, count in counts.items()}
