"""The user's own pictures: a folder for each class, or without labels, and optionally a CSV file that says which show the same scene.

Pictures are visible files of a type that Pillow opens, sorted by name; symbolic links are followed, loops are not.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.targets import NONE
from edgewise.config.settings import option
from edgewise.data.common import SPLIT_NAMES
from edgewise.data.encoders import PictureEncoder
from edgewise.data.pictures import PictureFile, PictureFileSettings, list_files, printable, probe_files, read_items
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

LAYOUT = "it must hold a folder of pictures for each class, or pictures alone if they have no labels"
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(PictureFileSettings):
    path: str = option(help="folder that holds a folder of pictures for each class; absolute or relative to the project")
    layout: str = option(
        "auto",
        "classes: path/CLASS; splits: path/{train,val,test}/CLASS; pooled: the same, but split again; auto: by the folders' names; "
        "without labels path and path/{train,val,test}",
        choices=("auto", "classes", "splits", "pooled"),
    )
    recursive: bool = option(True, "also read pictures in subfolders of a class folder")


def probe(settings: Settings) -> Mapping[str, Any]:
    found = list_pictures(settings)
    return probe_files(found, settings) | ({"targets": NONE} if found[0].label is None else {})


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    yield from read_items(list_pictures(settings), settings, lambda picture, _: (picture.label, ()))


def list_pictures(settings: Settings) -> list[PictureFile]:
    """The pictures of all class folders, or those without labels; also of a kind that cannot be opened here. DataError without any."""
    folder = settings.place
    classes = class_folders(folder, settings.layout)
    found = [picture for place, split in classes for picture in pictures_in(place, settings, printable(place.name), split)]
    if settings.targets == NONE or not found or is_unlabelled(folder, settings.layout):
        places = unlabelled_folders(folder, settings.layout)
        found = [picture for place, split in places for picture in pictures_in(place, settings, None, split)]
    if not found:
        below = "" if settings.recursive else " (data.recursive is false)"
        raise DataError(f"data.path: {printable(folder)}: no pictures in it{below}; {LAYOUT}")
    return found


def pictures_in(place: Path, settings: Settings, label: str | None, split: str | None) -> list[PictureFile]:
    paths = list_files(place, settings.recursive)
    return [PictureFile(path, printable(path.relative_to(settings.place).as_posix()), split, label) for path in paths]


def is_unlabelled(folder: Path, layout: str) -> bool:
    """Whether all folders have names of splits, train/ among them, and hold pictures alone: no classes of these names, but no labels."""
    tops = subfolders(folder)
    names = {top.name.lower() for top in tops}
    alone = not any(subfolders(top) for top in tops)
    return layout in ("auto", "splits", "pooled") and len(names) > 1 and "train" in names and names <= SPLIT_NAMES.keys() and alone


def unlabelled_folders(folder: Path, layout: str) -> list[tuple[Path, str | None]]:
    """The folder itself, or train/, val/ and test/ in it with the split that their pictures belong to."""
    tops = [top for top in subfolders(folder) if top.name.lower() in SPLIT_NAMES]
    if layout in ("auto", "splits") and len(tops) > 1 and "train" in {top.name.lower() for top in tops}:
        return [(top, SPLIT_NAMES[top.name.lower()]) for top in tops]
    return [(folder, None)]


def class_folders(folder: Path, layout: str) -> list[tuple[Path, str | None]]:
    """Each class folder with the split that its samples belong to, or None.

    classes: folder/CLASS. splits: folder/{train,val,test}/CLASS. pooled: the same, but split again. auto: if there are train/ and test/ or
    val/ with classes in them, splits, or pooled if train/ lacks classes as in anomaly benchmarks (train/good, test/good, test/KIND); else
    classes. Without test/ the test split is taken out of train/.
    """
    tops = [top for top in subfolders(folder) if top.name.lower() in SPLIT_NAMES]
    if layout == "classes" or (layout == "auto" and not _holds_splits(tops)):
        return [(place, None) for place in subfolders(folder)]
    found = [(place, SPLIT_NAMES[top.name.lower()]) for top in tops for place in subfolders(top)]
    train_classes = {place.name for place, split in found if split is None}
    if layout == "pooled" or (layout == "auto" and train_classes != {place.name for place, _ in found}):
        return [(place, None) for place, _ in found]
    return found


def _holds_splits(tops: Sequence[Path]) -> bool:
    """Whether folders with the names of splits are splits, and not classes that are called so: train/ and another one hold classes."""
    holders = {SPLIT_NAMES[top.name.lower()] for top in tops if subfolders(top)}
    return None in holders and len(holders) > 1


def subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in require_folder(folder).iterdir() if p.is_dir() and not p.name.startswith("."))


def require_folder(folder: Path) -> Path:
    """DataError if the folder cannot be read."""
    try:
        os.listdir(folder)  # noqa: PTH208 - Path.iterdir does not open the folder until it is iterated
    except OSError as error:
        raise DataError(f"data.path: {printable(folder)}: {error.strerror}; {LAYOUT}") from None
    return folder
