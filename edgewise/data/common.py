"""The classes of a model that the user brings: a file with one name a line, in the order of the model's outputs.

The folders of the data set then need not be all of them, nor in this order: each is found among the names, or among the
synonyms that a line lists with commas (`tench, Tinca tinca`).
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from edgewise.artifacts.samples import CLASSES, KINDS
from edgewise.config.settings import option
from edgewise.data.splitting import Shares
from edgewise.errors import ConfigError, DataError, MissingExtra
from edgewise.plugins import Unreadable

BACKGROUND = "background"


def read(path: Path, offset: int) -> list[str]:
    """One name for each output, none twice. offset: outputs before the first line; negative: lines before the first output."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"data.label_names: {path}: {getattr(error, 'strerror', None) or error}; give a text of one class a line") from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) + min(offset, 0) < 2:
        raise ConfigError(f"data.label_offset: {offset} with {len(names)} names in {path} leaves fewer than two classes")
    before = [BACKGROUND] if offset == 1 else [f"{BACKGROUND} {i}" for i in range(offset)]
    return unique([*before, *names[max(0, -offset) :]])


def unique(names: Sequence[str]) -> list[str]:
    """Two kinds of crane are two classes: a name that was there before gets its place in brackets."""
    seen: set[str] = set()
    found = []
    for place, name in enumerate(names):
        found.append(f"{name} ({place})" if name in seen else name)
        seen.add(name)
    return found


def find(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Position in `names` of each label of the data. DataError for a label that is in none of them, or in several."""
    places: dict[str, set[int]] = {}
    for place, name in enumerate(names):
        for synonym in (name, *name.split(",")):
            places.setdefault(plain(synonym), set()).add(place)
    whole = {plain(name): place for place, name in enumerate(names)}
    return {label: whole[plain(label)] if plain(label) in whole else _only(label, places, names) for label in labels}


def plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def _only(label: str, places: Mapping[str, set[int]], names: Sequence[str]) -> int:
    found = sorted(places.get(plain(label), ()))
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"data.label_names: {label!r} is in several lines ({'; '.join(names[i] for i in found)}); use the whole name of one"
        )
    close = difflib.get_close_matches(plain(label), places, n=3)
    raise DataError(
        f"data.label_names: {label!r}, a class of the data, is none of the {len(names)} names; near to it: {', '.join(close) or 'nothing'};"
        " rename the class, or mend the file"
    )


# Settings that every data set has, and what is done about samples that cannot be read.

DEFECT = "defect"
NAMED = 3  # unreadable samples in an error message
SPLIT_NAMES = {"train": None, "test": "test", "dev": "validation", "val": "validation", "valid": "validation", "validation": "validation"}
# what folders and files of a divided data set are called; None: divided further, calibration comes out of it


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Of data sets that may have other targets than classes; before DataSettings among the bases."""

    targets: str = option(CLASSES, "multi_label: 0 or 1 for each label; values: numbers", choices=KINDS)
    target_names: tuple[str, ...] = option((), "what the columns of the targets are called; empty: y0, y1 ...")

    def label(self, given: Any) -> str | tuple[float, ...]:
        """The label of a sample as `Item` holds it: its class, or its numbers."""
        if self.targets == CLASSES:
            return name_label(given)
        try:
            numbers = np.asarray(given, np.float64).ravel()
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not len(numbers) or not np.isfinite(numbers).all():
            raise DataError(f"data.labels: {given!r} is no target of data.targets={self.targets}; give finite numbers, as many a sample")
        return tuple(numbers.tolist())


def name_label(label: Any) -> str:
    """A class by name; also of a numpy or torch scalar. DataError for an array and for a number that is not whole."""
    label = label.item() if hasattr(label, "item") and np.size(label) == 1 else label
    if np.ndim(label):
        raise DataError(
            f"data.labels: shape {list(np.shape(label))}; one label a sample is needed, for one-hot rows take their argmax, "
            "for others set data.targets to multi_label or values"
        )
    if isinstance(label, float):
        if not label.is_integer():
            raise DataError(f"data.labels: {label} is no class; labels are whole numbers or texts (data.targets=values takes any number)")
        label = int(label)
    return str(label)


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    targets: ClassVar[str] = CLASSES
    splits: Shares = option(Shares())
    normal: str | None = option(None, "label of samples without a defect; with it a model is also judged as a detector of defects")
    merge_defects: bool = option(False, f"all labels but the normal one become '{DEFECT}'")
    label_names: str | None = option(None, "file with the classes of your model, one a line in the order of its outputs")
    label_offset: int = option(
        0, "outputs before the first line of label_names: 1 for a background class that it leaves out; -1 the other way round"
    )

    def __post_init__(self) -> None:
        if self.merge_defects and self.normal is None:
            raise ConfigError("data.merge_defects: needs data.normal, the label of samples without a defect")

    def target(self, label: str) -> str:
        """The label that a model learns."""
        return DEFECT if self.merge_defects and label != self.normal else label

    def number(self, labels: Iterable[str]) -> tuple[list[str], dict[str, int]]:
        """The classes as the model numbers them, and which of them each label of the data is."""
        if self.label_names is None:
            names = self.order(labels)
            return names, {name: place for place, name in enumerate(names)}
        names = read(Path(self.label_names).expanduser(), self.label_offset)
        return names, find(labels, names)

    def order(self, labels: Iterable[str]) -> list[str]:
        """As a model numbers them: by name, as torchvision and Keras number folders."""
        return sorted(labels)


def numeric_order(labels: Iterable[str]) -> list[str]:
    """Where labels are numbers, the order of a model that was trained on the numbers."""
    names = sorted(labels)
    return sorted(names, key=int) if all(name.removeprefix("-").isdecimal() for name in names) else names


def check_unreadable(unreadable: Sequence[Unreadable], total: int, share: float, what: str) -> None:
    """DataError where more than this share of the samples cannot be read. what: 'data.path: pictures'."""
    if len(unreadable) > share * total:
        named = "; ".join(f"{u.name}: {u.reason}" for u in unreadable[:NAMED])
        key, _, noun = what.partition(": ")
        raise DataError(
            f"{key}: {len(unreadable)} of {total} {noun} cannot be read ({named}{' ...' if len(unreadable) > NAMED else ''}); "
            f"mend or remove them, or raise data.max_unreadable_share above {share}"
        )


def versions(*packages: str) -> Mapping[str, str]:
    return {name: importlib.metadata.version(name) for name in packages}


def need(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise MissingExtra(package, extra) from None
