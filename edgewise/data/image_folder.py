"""The user's own pictures: a folder for each class."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.agent import preprocess
from edgewise.config.settings import option
from edgewise.data import folders
from edgewise.data.common import check_unreadable
from edgewise.data.folders import Picture
from edgewise.data.pictures import PictureSettings, encoder
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]


@dataclass(frozen=True, kw_only=True)
class Settings(PictureSettings):
    path: str = option(help="folder with a folder of pictures for each class, absolute or relative to the project")
    groups: str | None = option(None, "CSV file with the columns file,group: no group comes into two splits")
    layout: str = option(
        "auto",
        "classes: path/CLASS; splits: path/{train,val,test}/CLASS; pooled: the same, divided anew; auto: as the folders' names say",
        choices=("auto", "classes", "splits", "pooled"),
    )
    recursive: bool = option(True, "also take the pictures in folders below a class folder")
    max_unreadable_share: float = option(0.05, "more unreadable pictures than this share are an error", low=0.0, high=1.0)

    @property
    def folder(self) -> Path:
        return Path(self.path).expanduser()

    @property
    def groups_file(self) -> Path | None:
        return Path(self.groups).expanduser() if self.groups else None


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of names, sizes and times of change. To read the pictures would take minutes on each run; a copy of the folder that has
    new times only prepares the data once more, and nothing after that, since the result is the same."""
    found = folders.pictures(settings.folder, settings.layout, settings.recursive)
    digest, total = hashlib.sha256(), 0
    for picture in found:
        facts = picture.path.stat() if picture.path.exists() else picture.path.lstat()
        digest.update(f"{picture.name}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
        total += facts.st_size
    if settings.groups_file:
        digest.update(repr(folders.read(settings.groups_file)).encode())
    return {"digest": digest.hexdigest(), "files": len(found), "bytes": total}


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    """One decoded picture in memory at a time. DataError at the end where too many cannot be read."""
    from tqdm import tqdm

    found = folders.pictures(settings.folder, settings.layout, settings.recursive)
    known = group_of(settings, found)
    unreadable = []
    for picture in tqdm(found, desc="reading", unit="picture", delay=3, disable=None):
        item = load(picture, known.get(picture.name))
        if isinstance(item, Unreadable):
            unreadable.append(item)
        yield item
    check_unreadable(unreadable, len(found), settings.max_unreadable_share, "data.path: pictures")


def group_of(settings: Settings, found: list[Picture]) -> dict[str, str]:
    if settings.groups_file is None:
        return {}
    known = folders.read(settings.groups_file)
    folders.require_all(settings.groups_file, known, [picture.name for picture in found])
    return known


def load(picture: Picture, group: str | None) -> Item | Unreadable:
    try:
        with picture.path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            return Item(picture.name, picture.label, group, sha256, preprocess.decode(stream), picture.split)
    except (OSError, ValueError) as error:
        return Unreadable(picture.name, getattr(error, "strerror", None) or str(error))
