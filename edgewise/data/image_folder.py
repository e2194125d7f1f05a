"""The user's own pictures: a folder for each class, or without labels, and optionally a CSV file that says which show the same scene.

Pictures are visible files of a type that Pillow opens, sorted by name; symbolic links are followed, loops are not.
"""

import csv
import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edgewise.agent import preprocess
from edgewise.artifacts.targets import NONE
from edgewise.config.settings import option
from edgewise.data.common import SPLIT_NAMES, check_unreadable
from edgewise.data.encoders import PictureEncoder, PictureSettings
from edgewise.data.progress import follow
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

LAYOUT = "it must hold a folder of pictures for each class, or pictures alone if they have no labels"
COLUMNS = ("file", "group")  # of the CSV file that data.groups names
# of pictures, for which Pillow may lack the decoder
OTHER_KINDS = frozenset((".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"))
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(PictureSettings):
    path: str = option(help="folder that holds a folder of pictures for each class; absolute or relative to the project")
    groups: str | None = option(None, "CSV file with the columns file,group: pictures of one group stay in one split")
    layout: str = option(
        "auto",
        "classes: path/CLASS; splits: path/{train,val,test}/CLASS; pooled: the same, but split again; auto: by the folders' names; "
        "without labels path and path/{train,val,test}",
        choices=("auto", "classes", "splits", "pooled"),
    )
    recursive: bool = option(True, "also read pictures in subfolders of a class folder")
    max_unreadable_share: float = option(0.05, "largest share of pictures that may be unreadable", low=0.0, high=1.0)

    @property
    def folder(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def groups_file(self) -> Path | None:
        return Path(self.groups).expanduser() if self.groups else None


@dataclass(frozen=True)
class Picture:
    """name: the path relative to the data folder, with '/', printable. label: None without labels. split: the one that its folder is named
    after, or None."""

    path: Path
    name: str
    label: str | None
    split: str | None


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of names, sizes and modification times: reading the pictures would take minutes on each run. A copied folder with new times
    reruns prepare-data only; later stages see the same result."""
    found = list_pictures(settings)
    digest, total = hashlib.sha256(), 0
    for picture in found:
        status = picture.path.stat() if picture.path.exists() else picture.path.lstat()
        digest.update(f"{picture.name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        total += status.st_size
    if settings.groups_file:
        digest.update(repr(read_groups(settings.groups_file)).encode())
    unlabelled = {"targets": NONE} if found[0].label is None else {}
    return {"digest": digest.hexdigest(), "files": len(found), "bytes": total, **unlabelled}


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    """Decode one picture at a time. DataError at the end if too many cannot be read."""
    found = list_pictures(settings)
    groups = groups_by_name(settings, found)
    unreadable = []
    for picture in follow(found, "reading", "picture"):
        item = load(picture, groups.get(picture.name))
        if isinstance(item, Unreadable):
            unreadable.append(item)
        yield item
    check_unreadable(unreadable, len(found), settings.max_unreadable_share, "data.path: pictures")


def groups_by_name(settings: Settings, found: list[Picture]) -> dict[str, str]:
    if settings.groups_file is None:
        return {}
    groups = read_groups(settings.groups_file)
    suffixes = picture_suffixes()
    check_all_grouped(settings.groups_file, groups, [picture.name for picture in found if picture.path.suffix.lower() in suffixes])
    return groups


def load(picture: Picture, group: str | None) -> Item | Unreadable:
    suffix = picture.path.suffix.lower()
    if suffix not in picture_suffixes():
        return Unreadable(picture.name, f"Pillow cannot open {suffix} files here; convert them to JPEG or PNG")
    try:
        with picture.path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            return Item(picture.name, picture.label, group, sha256, preprocess.decode_picture(stream), picture.split)
    except (OSError, ValueError) as error:
        return Unreadable(picture.name, getattr(error, "strerror", None) or str(error))


def list_pictures(settings: Settings) -> list[Picture]:
    """The pictures of all class folders, or those without labels; also of a kind that cannot be opened here. DataError without any."""
    folder, recursive = settings.folder, settings.recursive
    classes = class_folders(folder, settings.layout)
    found = [picture for place, split in classes for picture in pictures_in(place, settings, printable(place.name), split)]
    if settings.targets == NONE or not found or is_unlabelled(folder, settings.layout):
        places = unlabelled_folders(folder, settings.layout)
        found = [picture for place, split in places for picture in pictures_in(place, settings, None, split)]
    if not found:
        below = "" if recursive else " (data.recursive is false)"
        raise DataError(f"data.path: {printable(folder)}: no pictures in it{below}; {LAYOUT}")
    return found


def pictures_in(place: Path, settings: Settings, label: str | None, split: str | None) -> Iterator[Picture]:
    suffixes = picture_suffixes() | OTHER_KINDS
    for path in walk(place, settings.recursive):
        if path.suffix.lower() in suffixes:
            yield Picture(path, printable(path.relative_to(settings.folder).as_posix()), label, split)


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


@cache
def picture_suffixes() -> frozenset[str]:
    """What Pillow can open here: .jpg, .png ..."""
    from PIL import Image

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


def walk(folder: Path, recursive: bool) -> Iterator[Path]:
    """Visible files below `folder`, and broken links, which count as unreadable; a link to a parent folder is not followed."""
    for place, folders, files in os.walk(folder, followlinks=True, onerror=_refuse):
        folders[:] = sorted(f for f in folders if recursive and not f.startswith(".") and not _is_loop(Path(place, f)))
        for name in sorted(files):
            path = Path(place, name)
            if not name.startswith(".") and (path.is_file() or path.is_symlink()):
                yield path


def _is_loop(folder: Path) -> bool:
    return folder.is_symlink() and folder.resolve() in {parent.resolve() for parent in folder.parents}


def _refuse(error: OSError) -> None:
    raise DataError(f"data.path: {printable(error.filename)}: {error.strerror}; make it readable or move it out of the folder")


def printable(name: str | Path) -> str:
    """The name with bytes that are not UTF-8 as \\xNN."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def read_groups(path: Path) -> dict[str, str]:
    """The CSV file as {file: group}; file is relative to the data folder. Other columns are ignored."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as stream:
            rows = csv.DictReader(stream)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"data.groups: {path} has no column {' and '.join(missing)} in its first line, {','.join(rows.fieldnames or ())[:80]!r}"
                )
            return _collect(path, rows)
    except (OSError, csv.Error) as error:
        raise DataError(f"data.groups: {path}: {error}; give a CSV file with the columns file,group") from None


def _collect(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        file, group = ((row[column] or "").strip() for column in COLUMNS)
        if not file or not group:
            raise DataError(f"data.groups: {path}, line {rows.line_num}: file or group is empty; give both")
        if found.setdefault(file, group) != group:
            raise DataError(
                f"data.groups: {path}, line {rows.line_num}: {file} is in group {found[file]} and in group {group}; keep one of them"
            )
    return found


def check_all_grouped(path: Path, groups: dict[str, str], names: Sequence[str]) -> None:
    """DataError unless each picture has a group: without one it could be in another split than others of its scene."""
    missing = [name for name in names if name not in groups]
    if missing:
        example = f"; the file lists {next(iter(groups))}, ..." if groups else ""
        raise DataError(
            f"data.groups: {path} has no group for {len(missing)} of {len(names)} pictures, such as {missing[0]}{example}; "
            "add them, with paths relative to data.path"
        )
