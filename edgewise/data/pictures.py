"""Picture files: which ones a folder holds, what is in them, and the CSV file that says which show the same scene.

Pictures are visible files of a type that Pillow opens, sorted by name; symbolic links are followed, loops are not.
"""

import csv
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.config.settings import option
from edgewise.data.common import check_unreadable, follow
from edgewise.data.encoders import PictureSettings
from edgewise.data.file_digests import digest_files
from edgewise.errors import DataError
from edgewise.plugins import Item, Label, Unreadable

COLUMNS = ("file", "group")  # of the CSV file that data.groups names
# of pictures, for which Pillow may lack the decoder
OTHER_KINDS = frozenset((".heic", ".heif", ".avif", ".jxl", ".svg", ".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2"))


Problems = tuple[tuple[str, str], ...]
ReadLabel = Callable[["PictureFile", tuple[int, int]], tuple[Label, Problems]]


@cache
def picture_suffixes() -> frozenset[str]:
    """What Pillow can open here: .jpg, .png ..."""
    from PIL import Image

    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in Image.OPEN)


@dataclass(frozen=True, kw_only=True)
class PictureFileSettings(PictureSettings):
    """Settings that every data set of picture files has."""

    path: str = option(help="absolute or relative to the project")
    groups: str | None = option(None, "CSV file with the columns file,group: pictures of one group stay in one split")
    max_unreadable_share: float = option(0.05, "largest share of pictures that may be unreadable", low=0.0, high=1.0)

    @property
    def place(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def groups_file(self) -> Path | None:
        return Path(self.groups).expanduser() if self.groups else None


@dataclass(frozen=True)
class PictureFile:
    """name: the path relative to the data folder, with '/', printable. split: the one that the data set puts it into, or None. label: what
    is known without reading the picture."""

    path: Path
    name: str
    split: str | None = None
    label: Any = None


def list_files(folder: Path, recursive: bool = True) -> list[Path]:
    """The pictures in a folder, also those of a kind that cannot be opened here."""
    suffixes = picture_suffixes() | OTHER_KINDS
    return [path for path in walk(folder, recursive) if path.suffix.lower() in suffixes]


def read_picture(path: Path) -> tuple[str, np.ndarray]:
    """sha256 of the file, and its picture, uint8 [height, width, channels]. ValueError with the reason if it cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in picture_suffixes():
        raise ValueError(f"Pillow cannot open {suffix} files here; convert them to JPEG or PNG")
    try:
        with path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            return sha256, preprocess.decode_picture(stream)
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from None


def probe_files(found: Sequence[PictureFile], settings: PictureFileSettings, beside: Iterable[Path] = ()) -> dict[str, Any]:
    """Digest of the names and contents of pictures. beside: files of labels."""
    contents, total = digest_files(settings.place, (*(picture.path for picture in found), *beside))
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{printable(Path(name))}\0{content}\n".encode())
    if settings.groups_file:
        digest.update(repr(read_groups(settings.groups_file)).encode())
    return {"digest": digest.hexdigest(), "files": len(found), "bytes": total}


def read_items(found: Sequence[PictureFile], settings: PictureFileSettings, label: ReadLabel) -> Iterator[Item | Unreadable]:
    """Decode one picture at a time. DataError at the end if too many cannot be read.

    label: of a picture and its height and width, with what was wrong with it (see plugins.Item). ValueError if it cannot be read.
    """
    groups, unreadable = groups_by_name(settings, found), []
    for picture in follow(found, "reading", "picture"):
        try:
            sha256, array = read_picture(picture.path)
            known, problems = label(picture, (array.shape[0], array.shape[1]))
            yield Item(picture.name, known, groups.get(picture.name), sha256, array, picture.split, problems)
        except ValueError as error:
            unreadable.append(Unreadable(picture.name, str(error)))
            yield unreadable[-1]
    check_unreadable(unreadable, len(found), settings.max_unreadable_share, "data.path: pictures")


def groups_by_name(settings: PictureFileSettings, found: Sequence[PictureFile]) -> dict[str, str]:
    if settings.groups_file is None:
        return {}
    groups = read_groups(settings.groups_file)
    suffixes = picture_suffixes()
    check_all_grouped(settings.groups_file, groups, [picture.name for picture in found if picture.path.suffix.lower() in suffixes])
    return groups


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


def read_lines(path: Path) -> list[str]:
    """The lines of a list of names, without a byte order mark. DataError if it cannot be read, or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or f"not UTF-8 at byte {error.start}"  # type: ignore[union-attr]
        raise DataError(f"data.path: {printable(path)}: {reason}; give a text file with a name in each line") from None


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
