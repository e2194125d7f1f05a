"""Pictures with objects as YOLO's tools take them: a dataset yaml that names folders of pictures and the classes, and a file of labels for
each picture: class, center x, center y, width, height, or class and the points of an outline, all as shares of the picture's sides.

The yaml's `val` is the test split if it has no `test`; the calibration split is taken out of `train`. A picture without a file of labels
shows no object.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgewise.artifacts.targets import NONE
from edgewise.config.settings import option
from edgewise.data.encoders import PictureEncoder
from edgewise.data.objects import ObjectSettings, Shape, read_objects
from edgewise.data.pictures import PictureFile, list_files, printable, probe_files, read_lines
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

EXPECTED = "a dataset yaml has `train`, `val` (folders of pictures) and `names`"
KEYS = ("train", "val", "test")
PICTURES = "images"  # the folder whose name is replaced by data.labels
NO_FILE = "pictures without a file of labels, taken as pictures without objects"
BOX_NUMBERS = 5  # in a line: the class and four shares
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectSettings):
    path: str = option(help="dataset yaml, absolute or relative to the project")
    labels: str = option("labels", "folder of the labels beside the folder `images`, in the same structure")

    def names(self) -> Sequence[str]:
        return read_names(self.place, read_yaml(self.place))


def probe(settings: Settings) -> Mapping[str, Any]:
    found = list_pictures(settings)
    labels = [path for picture in found if (path := labels_of(picture.path, settings.labels)).exists()]
    return probe_files(found, settings, [settings.place, *labels]) | ({"targets": NONE} if settings.targets == NONE else {})


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    found = list_pictures(settings)
    if settings.targets != NONE and not any(labels_of(picture.path, settings.labels).exists() for picture in found):
        first = found[0].path
        raise DataError(
            f"data.labels: none of the {len(found)} pictures has a file of labels: {first.name} should have "
            f"{printable(labels_of(first, settings.labels))}; name the folder of the labels, or set data.targets=none"
        )
    paths = {picture.name: labels_of(picture.path, settings.labels) for picture in found}
    keypoints = "kpt_shape" in read_yaml(settings.place)
    for item in read_objects(found, settings, lambda picture, size: read_labels(paths[picture.name], size, keypoints)):
        unlabelled = isinstance(item, Item) and settings.targets != NONE and not paths[item.name].exists()
        yield replace(item, problems=(*item.problems, (NO_FILE, item.name))) if isinstance(item, Item) and unlabelled else item


def read_yaml(path: Path) -> Mapping[str, Any]:
    """DataError if it cannot be read or holds no mapping."""
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"data.path: {printable(path)}: {error.strerror}; {EXPECTED}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"data.path: {printable(path)}: {' '.join(str(error).split())}; {EXPECTED}") from None
    if not isinstance(content, dict) or not content:
        what = "empty" if not content else f"a {type(content).__name__}"
        raise DataError(f"data.path: {printable(path)}: {what}; {EXPECTED}")
    return content


def read_names(path: Path, content: Mapping[str, Any]) -> list[str]:
    """The names of the classes by their numbers. DataError where they are missing, have gaps, or are not as many as `nc`."""
    given = content.get("names")
    named = dict(enumerate(given)) if isinstance(given, list) else given
    if not isinstance(named, dict) or not named:
        raise DataError(f"data.path: {printable(path)}: names: {given!r}; list the classes, or give a mapping of numbers to names")
    missing = next((number for number in range(len(named)) if number not in named), None)
    if missing is not None:
        raise DataError(f"data.path: {printable(path)}: names: no name for class {missing}; number the {len(named)} names from 0")
    if content.get("nc", len(named)) != len(named):
        raise DataError(f"data.path: {printable(path)}: nc: {content['nc']} classes, but {len(named)} names; make them the same")
    return [str(named[number]) for number in range(len(named))]


def list_pictures(settings: Settings) -> list[PictureFile]:
    """The pictures of all splits that the yaml names. DataError if there are none, or none to calibrate with."""
    path = settings.place
    content = read_yaml(path)
    root = path.parent / str(content.get("path") or ".")
    given = {key: find_pictures(path, root, key, content[key]) for key in KEYS if content.get(key)}
    found = [
        PictureFile(picture, name_in(picture, (root, path.parent)), None if settings.pooled else split_of(key, given))
        for key, pictures in given.items()
        for picture in pictures
    ]
    if not found:
        raise DataError(f"data.path: {printable(path)}: names no pictures; {EXPECTED}")
    if not given.get("train") and not settings.pooled:
        raise DataError(f"data.path: {printable(path)}: has no `train`, from which the calibration split is taken; set data.pooled=true")
    return found


def split_of(key: str, given: Mapping[str, Any]) -> str | None:
    """train is split further; val is the test split where there is no other."""
    return {"train": None, "val": "validation" if given.get("test") else "test", "test": "test"}[key]


def find_pictures(path: Path, root: Path, key: str, given: Any) -> list[Path]:
    """The pictures of one entry or a list of them: folders, pictures, or text files that list pictures."""
    entries = given if isinstance(given, list) else [given]
    return [picture for entry in entries for picture in open_entry(path, root, key, str(entry))]


def open_entry(path: Path, root: Path, key: str, entry: str) -> list[Path]:
    """Relative to `path` in the yaml or to the yaml itself; a leading ../ that leads nowhere is left out, as some exports write it."""
    tried = (root / entry, path.parent / entry, path.parent / entry.removeprefix("../"))
    place = next((each for each in tried if each.exists()), None)
    if place is None:
        where = " or ".join(dict.fromkeys(printable(each) for each in tried))
        raise DataError(f"data.path: {printable(path)}: {key}: {entry!r} is not there ({where}); correct it, or `path`")
    if place.is_dir():
        return list_files(place)
    if place.suffix.lower() != ".txt":
        return [place]
    lines = read_lines(place)
    return [place.parent / line if line.startswith("./") else root / line for line in map(str.strip, lines) if line]


def name_in(picture: Path, folders: Sequence[Path]) -> str:
    """Relative to the first folder that holds it."""
    for folder in folders:
        if picture.is_relative_to(folder):
            return printable(picture.relative_to(folder).as_posix())
    return printable(picture)


def labels_of(picture: Path, labels: str) -> Path:
    """The file of labels: the last folder `images` on the way becomes `labels`; beside the picture if there is none, or it lies there."""
    parts, beside = list(picture.parts), picture.with_suffix(".txt")
    place = max((i for i, part in enumerate(parts[:-1]) if part == PICTURES), default=None)
    if place is None:
        return beside
    parts[place] = labels
    path = Path(*parts).with_suffix(".txt")
    return beside if beside.exists() and not path.exists() else path


def read_labels(path: Path, size: tuple[int, int], keypoints: bool = False) -> list[Shape]:
    """The objects of one picture; [] without a file. ValueError for a file that cannot be read, and for a line that is
    neither a box nor an outline.

    keypoints: numbers after a box are no outline.
    """
    if not path.exists():
        return []
    found = []
    try:
        content = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{path.name}: {error.strerror}") from None
    for number, line in enumerate(content.splitlines(), 1):
        if line.strip():
            try:
                words = line.split()
                found.append(read_line(words[:BOX_NUMBERS] if keypoints else words, size))
            except ValueError as error:
                raise ValueError(f"{path.name}, line {number}: {error}") from None
    return found


def read_line(words: Sequence[str], size: tuple[int, int]) -> Shape:
    """size: height and width of the picture."""
    numbers = np.array([float(word) for word in words])
    if len(numbers) < BOX_NUMBERS or len(numbers) % 2 == 0 or not np.isfinite(numbers).all() or not numbers[0].is_integer():
        raise ValueError(f"{' '.join(words)[:60]!r} is neither class, x, y, width, height nor class and the points of an outline")
    scale = np.array([size[1], size[0]], np.float64)
    points = numbers[1:].reshape(-1, 2) * scale
    if len(numbers) > BOX_NUMBERS:
        return Shape.of_polygons(int(numbers[0]), [points])
    center, sides = points
    (x0, y0), (x1, y1) = (center - sides / 2).tolist(), (center + sides / 2).tolist()
    return Shape(int(numbers[0]), (x0, y0, x1, y1))
