"""List the pictures below a folder: visible files of a kind that Pillow opens, links followed, no loop, sorted by name."""

import csv
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewise.data.common import SPLIT_NAMES
from edgewise.errors import DataError

LAYOUT = "it must hold a folder of pictures for each class"


@dataclass(frozen=True)
class Picture:
    """name: the path below the data folder with '/', bytes that are no UTF-8 as \\xNN, so that it can be printed anywhere."""

    path: Path
    name: str
    label: str
    split: str | None


def printable(name: str | Path) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def require_folder(folder: Path) -> Path:
    try:
        os.listdir(folder)  # noqa: PTH208 - a Path's iterdir would not open the folder yet
    except OSError as error:
        raise DataError(f"data.path: {printable(folder)}: {error.strerror}; {LAYOUT}") from None
    return folder


def picture_suffixes() -> set[str]:
    from PIL import Image

    return {suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN}


def subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in require_folder(folder).iterdir() if p.is_dir() and not p.name.startswith("."))


def class_folders(folder: Path, layout: str) -> list[tuple[Path, str | None]]:
    """Each class folder with the split that it is bound to.

    classes: folder/CLASS. splits: folder/{train,val,test}/CLASS. pooled: the same, but divided anew. auto: splits or pooled where there
    are train/ and test/, pooled if train lacks classes, as in anomaly benchmarks (train/good, test/good, test/KIND); else classes.
    """
    tops = [top for top in subfolders(folder) if top.name.lower() in SPLIT_NAMES]
    if layout == "classes" or (layout == "auto" and not {"train", "test"} <= {top.name.lower() for top in tops}):
        return [(place, None) for place in subfolders(folder)]
    found = [(place, SPLIT_NAMES[top.name.lower()]) for top in tops for place in subfolders(top)]
    learned = {place.name for place, split in found if split is None}
    if layout == "pooled" or (layout == "auto" and learned != {place.name for place, _ in found}):
        return [(place, None) for place, _ in found]
    return found


def pictures(folder: Path, layout: str, recursive: bool) -> list[Picture]:
    """The pictures of each class folder. DataError where there is none."""
    suffixes = picture_suffixes()
    classes = class_folders(folder, layout)
    found = [
        Picture(path, printable(path.relative_to(folder).as_posix()), printable(place.name), split)
        for place, split in classes
        for path in walk(place, recursive)
        if path.suffix.lower() in suffixes
    ]
    if not found:
        loose = sum(path.suffix.lower() in suffixes for path in folder.iterdir())
        raise DataError(
            f"data.path: {printable(folder)}: {len(classes)} folders with no picture in them, {loose} pictures outside; {LAYOUT}"
        )
    return found


def walk(folder: Path, recursive: bool) -> Iterator[Path]:
    """Visible files (and broken links, so that they are counted) below `folder`; a link back to a folder above is not followed."""
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


# A CSV file with the columns `file` and `group`: pictures of one scene, that must not come into two splits.

COLUMNS = ("file", "group")


def read(path: Path) -> dict[str, str]:
    """{file: group}; file is relative to the data folder. Other columns are ignored."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as stream:
            rows = csv.DictReader(stream)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"data.groups: {path} has no column {' and '.join(missing)}; its first line is {','.join(rows.fieldnames or ())[:80]!r}"
                )
            return _collect(path, rows)
    except (OSError, csv.Error) as error:
        raise DataError(f"data.groups: {path}: {error}; give a CSV file with the columns file,group") from None


def _collect(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        file, group = ((row[column] or "").strip() for column in COLUMNS)
        if not file or not group:
            raise DataError(f"data.groups: {path}, line {rows.line_num}: file and group must both be given")
        if found.setdefault(file, group) != group:
            raise DataError(f"data.groups: {path}, line {rows.line_num}: {file} is in group {found[file]} and in group {group}; keep one")
    return found


def require_all(path: Path, groups: dict[str, str], names: Sequence[str]) -> None:
    """DataError unless each picture has a group: one left out could come into another split than its twins."""
    without = [name for name in names if name not in groups]
    if without:
        known = f"; the file knows {next(iter(groups))}, ..." if groups else ""
        raise DataError(
            f"data.groups: {path} has no group for {len(without)} of {len(names)} pictures, such as {without[0]}{known}; "
            "add them, with paths relative to data.path"
        )
