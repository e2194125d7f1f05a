"""What all data sets share: their settings, the names of the classes, what happens to samples that cannot be read, and how far reading has
come: a bar on a terminal, elsewhere (a log file, CI) a line every half minute."""

import difflib
import importlib
import importlib.metadata
import itertools
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, TypeVar

import numpy as np

from edgewise.artifacts.targets import CLASSES, MULTI_LABEL, NONE, SHAPED, VALUES
from edgewise.config.settings import option
from edgewise.data.splitting import Shares
from edgewise.errors import ConfigError, DataError, MissingExtra
from edgewise.plugins import Unreadable

BACKGROUND = "background"
DEFECT = "defect"
MAX_LISTED = 3  # unreadable samples in an error message
LINE_EVERY_S = 30.0
BAR_AFTER_S = 3.0
T = TypeVar("T")
SPLIT_NAMES = {"train": None, "test": "test", "dev": "validation", "val": "validation", "valid": "validation", "validation": "validation"}
# names of folders and files of a data set that is split already; None: split further, calibration is taken out of it


@dataclass(frozen=True, kw_only=True)
class DataSettings:
    """Settings that every data set has."""

    declared: ClassVar[str | None] = None  # what the samples are, where they are none of the user's: see data.splitting.DECLARED
    targets: str = option(CLASSES, "classes: one label per sample; none: labels are not read", choices=(CLASSES, NONE))
    splits: Shares = option(Shares())
    normal: str | None = option(None, "label of samples without a defect, for the task defect_detection")
    merge_defects: bool = option(False, f"all labels except data.normal become '{DEFECT}'")
    label_names: str | None = option(
        None, "file with the class names of your model, one per line in the order of its outputs; or a .tflite file that holds them"
    )
    label_offset: int = option(
        0,
        "output of the first line of label_names: 1 if output 0 is an unnamed background class; -1 skips the first line",
    )

    def __post_init__(self) -> None:
        if self.merge_defects and self.normal is None:
            raise ConfigError("data.merge_defects: true needs data.normal; set it to the label of samples without a defect")

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know of the samples, as these settings make them."""
        return ()

    def merge_label(self, label: str) -> str:
        """The class of a label: its own, or with merge_defects one for all defects."""
        return DEFECT if self.merge_defects and label != self.normal else label

    def index_classes(self, labels: Iterable[str]) -> tuple[list[str], dict[str, int]]:
        """All class names in the order of the model's outputs, and the index of each label of the data in them."""
        if self.label_names is None:
            names = self.sort_labels(labels)
            return names, {name: place for place, name in enumerate(names)}
        least = 1 if self.targets in SHAPED else 2  # a detector may know one class, a classifier tells two apart
        names = read_class_names(Path(self.label_names).expanduser(), self.label_offset, least)
        return names, find_classes(labels, names)

    def sort_labels(self, labels: Iterable[str]) -> list[str]:
        """In the order of the model's outputs: by name, as torchvision and Keras order folders."""
        return sorted(labels)


@dataclass(frozen=True, kw_only=True)
class TargetSettings:
    """Settings of data sets whose labels may be numbers, too; must precede DataSettings among the bases."""

    targets: str = option(
        CLASSES,
        "classes: one label per sample; multi_label: 0 or 1 for each label; values: numbers; none: labels are not read",
        choices=(CLASSES, MULTI_LABEL, VALUES, NONE),
    )
    target_names: tuple[str, ...] = option((), "names of the target columns; empty: y0, y1 ...")

    def parse_label(self, label: Any) -> str | tuple[float, ...] | None:
        """The label of a sample as `Item` holds it: the name of its class, or its numbers. DataError where it is neither.

        None is a sample without a label.
        """
        if label is None or self.targets == NONE:
            return None
        if self.targets == CLASSES:
            return parse_class_name(label)
        try:
            numbers = np.asarray(label, np.float64).ravel()
        except (TypeError, ValueError):
            numbers = np.array([np.nan])
        if not len(numbers) or not np.isfinite(numbers).all():
            raise DataError(
                f"data.labels: {label!r} is not valid for data.targets={self.targets}; give finite numbers, equally many for each sample"
            )
        return tuple(numbers.tolist())


def parse_class_name(label: Any) -> str:
    """The class as a string, also from a numpy or torch scalar. DataError for an array and for a number that is not an integer."""
    label = label.item() if hasattr(label, "item") and np.size(label) == 1 else label
    if np.ndim(label):
        raise DataError(
            f"data.labels: shape {list(np.shape(label))}; give one label per sample: the argmax of one-hot rows; "
            "for other targets set data.targets to multi_label or values"
        )
    if isinstance(label, float):
        if not label.is_integer():
            raise DataError(f"data.labels: {label} is not a class; labels are integers or strings (data.targets=values allows any number)")
        label = int(label)
    return str(label)


def read_class_names(path: Path, offset: int, least: int = 2) -> list[str]:
    """One unique name for each output, from a file with one per line, or a TFLite file in which such a file is packed.

    offset: outputs before the first line; negative: lines to skip. least: how many names there must be.
    """
    try:
        lines = read_packed_lines(path) if zipfile.is_zipfile(path) else path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        raise DataError(
            f"data.label_names: {path}: {getattr(error, 'strerror', None) or error}; give a text file with one class per line"
        ) from None
    names = [line.strip() for line in lines if line.strip()]
    if len(names) + min(offset, 0) < least:
        raise ConfigError(
            f"data.label_offset: {offset} with {len(names)} names in {path} leaves fewer than {least} classes; name at least {least}"
        )
    unnamed = [BACKGROUND] if offset == 1 else [f"{BACKGROUND} {i}" for i in range(offset)]
    return make_unique([*unnamed, *names[max(0, -offset) :]])


def read_packed_lines(path: Path) -> list[str]:
    """The lines of the first text file in a zip archive, as TFLite Metadata appends to a model. ValueError if there is none."""
    with zipfile.ZipFile(path) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".txt")), None)
        if name is None:
            raise ValueError("no text file is packed in it")
        return archive.read(name).decode("utf-8-sig").splitlines()


def make_unique(names: Sequence[str]) -> list[str]:
    """Repeated names get their index appended: the two cranes of ImageNet are two classes."""
    seen: set[str] = set()
    found = []
    for place, name in enumerate(names):
        numbered = (f"{name} ({number})" for number in itertools.count(place))
        found.append(next(each for each in itertools.chain([name], numbered) if each not in seen))
        seen.add(found[-1])
    return found


def find_classes(labels: Iterable[str], names: Sequence[str]) -> dict[str, int]:
    """Index in `names` of each label of the data. DataError for a label that is in none of them, or in several.

    The data may lack classes, and a label may be one of the comma-separated synonyms in a name (`tench, Tinca tinca`).
    """
    places: dict[str, set[int]] = {}
    for place, name in enumerate(names):
        for synonym in (name, *name.split(",")):
            places.setdefault(normalize_name(synonym), set()).add(place)
    exact = {normalize_name(name): place for place, name in enumerate(names)}
    return {
        label: exact[normalize_name(label)] if normalize_name(label) in exact else _find_synonym(label, places, names) for label in labels
    }


def normalize_name(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def _find_synonym(label: str, places: Mapping[str, set[int]], names: Sequence[str]) -> int:
    found = sorted(places.get(normalize_name(label), ()))
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(f"data.label_names: {label!r} is in several lines ({'; '.join(names[i] for i in found)}); use the full name of one")
    close = difflib.get_close_matches(normalize_name(label), places, n=3)
    raise DataError(
        f"data.label_names: {label!r}, a class of the data, is not among the {len(names)} names; similar: {', '.join(close) or 'none'};"
        " rename the class, or fix the file"
    )


def sort_numerically(labels: Iterable[str]) -> list[str]:
    """In numerical order if all labels are integers, as a model that was trained on these numbers has them; else by name."""
    names = sorted(labels)
    return sorted(names, key=int) if all(name.removeprefix("-").isdecimal() for name in names) else names


def check_unreadable(unreadable: Sequence[Unreadable], total: int, share: float, what: str) -> None:
    """DataError if more than `share` of the samples cannot be read. what: the setting and the plural noun, 'data.path: pictures'."""
    if len(unreadable) > share * total:
        listed = "; ".join(f"{u.name}: {u.reason}" for u in unreadable[:MAX_LISTED])
        key, _, noun = what.partition(": ")
        raise DataError(
            f"{key}: {len(unreadable)} of {total} {noun} cannot be read ({listed}{' ...' if len(unreadable) > MAX_LISTED else ''}); "
            f"fix or remove them, or raise data.max_unreadable_share above {share}"
        )


def versions(*packages: str) -> Mapping[str, str]:
    """Installed versions by distribution name."""
    return {name: importlib.metadata.version(name) for name in packages}


def import_or_raise(package: str, extra: str) -> ModuleType:
    """The module. MissingExtra names the extra of Edgewise that installs it."""
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        raise MissingExtra(package, extra) from None


def follow(given: Iterable[T], doing: str, unit: str, total: int | None = None) -> Iterator[T]:
    """The same elements. doing: what is done, 'reading'; unit: of what, in the singular; total: None: its length, if it has one."""
    count = total if total is not None else len(given) if isinstance(given, Sized) else None
    if sys.stderr.isatty():
        from tqdm import tqdm

        yield from tqdm(given, desc=doing, unit=unit, total=count, delay=BAR_AFTER_S)
    else:
        yield from _print_lines(given, doing, unit, count)


def _print_lines(given: Iterable[T], doing: str, unit: str, total: int | None) -> Iterator[T]:
    begun = said = time.monotonic()
    for number, element in enumerate(given, 1):
        yield element
        now = time.monotonic()
        if now - said >= LINE_EVERY_S:
            said = now
            print(
                f"{doing}: {number}{f' of {total}' if total is not None else ''} {unit}s, {now - begun:.0f} s", file=sys.stderr, flush=True
            )
