"""Pictures with objects as COCO describes them: JSON files with images, categories and annotations (boxes, polygons, RLE, crowds).

path: a JSON file, or a folder that holds several, each of which is a split: annotations/instances_train2017.json and
instances_val2017.json, or train/, valid/ and test/ with _annotations.coco.json. Without a test file, val is the test split.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.targets import NONE
from edgewise.config.settings import option
from edgewise.data.encoders import PictureEncoder
from edgewise.data.objects import ObjectSettings, Shape, read_objects
from edgewise.data.pictures import PictureFile, printable, probe_files
from edgewise.data.rle import decode_counts, decode_text
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

EXPECTED = "give a JSON file with images, annotations and categories, or a folder with such files in it or in annotations/"
SECTIONS = ("images", "annotations", "categories")
PATTERNS = ("annotations/instances_*.json", "*/_annotations.coco.json", "annotations/*.json", "*.json")  # the first that finds any counts
SPLIT_WORD = re.compile(r"train|valid|val|test|dev")
SPLITS = {"train": None, "val": "validation", "valid": "validation", "dev": "validation", "test": "test"}
STRAY = "annotations of pictures that their file does not list, left out"
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectSettings):
    path: str = option(help="JSON file of instances, or a folder of such files; absolute or relative to the project")
    pictures: str | None = option(None, "folder of the pictures; null: beside the JSON file, or the folder named after its split")

    def names(self) -> Sequence[str]:
        return read_categories(self).names


@dataclass(frozen=True)
class Categories:
    """names: in the order of their numbers in the file; places: of these numbers in the names."""

    names: tuple[str, ...]
    places: Mapping[Any, int] = field(hash=False)


def probe(settings: Settings) -> Mapping[str, Any]:
    files = find_files(settings)
    found = [picture for path, split in files.items() for picture in list_pictures(path, split, settings)]
    return probe_files(found, settings, files) | ({"targets": NONE} if settings.targets == NONE else {})


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    files, categories = find_files(settings), read_categories(settings)
    found: list[PictureFile] = []
    objects: dict[tuple[Path, Any], Sequence[Mapping[str, Any]]] = {}
    stray: list[tuple[str, str]] = []
    for path, split in files.items():
        pictures = list_pictures(path, split, settings)
        by_image = objects_by_image(path)
        listed = {picture.label["id"] for picture in pictures}
        objects |= {(path, number): given for number, given in by_image.items() if number in listed}
        stray += [(STRAY, f"{path.name}: {number}") for number, given in by_image.items() if number not in listed for _ in given]
        found += [replace(picture, label={**picture.label, "file": path}) for picture in pictures]

    def shapes(picture: PictureFile, size: tuple[int, int]) -> list[Shape]:
        check_size(picture.label, size)
        given = objects.get((picture.label["file"], picture.label["id"]), ())
        return [read_object(each, size, categories) for each in given]

    for item in read_objects(found, settings, shapes):
        if isinstance(item, Item) and stray:
            item, stray = replace(item, problems=(*item.problems, *stray)), []
        yield item


def find_files(settings: Settings) -> dict[Path, str | None]:
    """The JSON files, each with the split that its pictures belong to; None: to be split. DataError if there are none."""
    place = settings.place
    if not place.is_dir():
        return {place: None}
    paths = next((found for pattern in PATTERNS if (found := sorted(place.glob(pattern)))), [])
    splits = {path: find_split(path, place) for path in paths}
    known = {path: split for path, split in splits.items() if split}
    if not paths:
        raise DataError(f"data.path: {printable(place)}: no JSON files; {EXPECTED}")
    if settings.pooled or len(paths) == 1:
        return dict.fromkeys(paths)
    if "train" not in known.values():
        raise DataError(
            f"data.path: {printable(place)}: {', '.join(path.name for path in paths)}: none is named after train, of which the calibration "
            "split is taken; set data.pooled=true to split all of them"
        )
    has_test = "test" in known.values()
    return {path: SPLITS[word] if has_test or word == "train" else "test" for path, word in known.items()}


def find_split(path: Path, place: Path) -> str | None:
    """The word in the name of the file, or of its folder, that says train, val or test."""
    found = SPLIT_WORD.findall(path.relative_to(place).as_posix().lower().replace("annotations", ""))
    return found[-1] if found else None


@lru_cache(maxsize=8)
def _read(path: Path, stamp: int) -> Mapping[str, Any]:
    return json.loads(path.read_bytes())  # type: ignore[no-any-return]


def read_file(path: Path) -> Mapping[str, Any]:
    """The content, read once. DataError if it is no JSON, or lacks a section."""
    try:
        content = _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"data.path: {printable(path)}: {error.strerror}; {EXPECTED}") from None
    except ValueError as error:
        raise DataError(f"data.path: {printable(path)} is not JSON: {error}; {EXPECTED}") from None
    missing = [name for name in SECTIONS if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        raise DataError(f"data.path: {printable(path)}: has no list of {' and '.join(missing)}; {EXPECTED}")
    return content


def read_categories(settings: Settings) -> Categories:
    """Of all files, which must agree. DataError where they do not, or name none."""
    named: dict[Any, str] = {}
    for path in find_files(settings):
        for entry in read_file(path)["categories"]:
            number, name = entry.get("id"), str(entry.get("name"))
            if named.setdefault(number, name) != name:
                raise DataError(
                    f"data.path: {printable(path)}: category {number} is {name!r}, in another file {named[number]!r}; give files that agree"
                )
    if not named:
        raise DataError(f"data.path: {printable(settings.place)}: categories: empty; name the classes")
    numbers = sorted(named, key=lambda number: (not isinstance(number, int), number if isinstance(number, int) else str(number)))
    return Categories(tuple(named[number] for number in numbers), {number: place for place, number in enumerate(numbers)})


def list_pictures(path: Path, split: str | None, settings: Settings) -> list[PictureFile]:
    """The pictures that a file lists, their entries as labels. DataError if it lists none, or their folder is not found."""
    images = read_file(path)["images"]
    names = [str(image.get("file_name")) for image in images]
    if not names:
        raise DataError(f"data.path: {printable(path)}: images: empty; {EXPECTED}")
    folder = find_folder(path, names, settings)
    own = settings.place if settings.place.is_dir() else folder
    return [PictureFile(folder / name, name_in(folder / name, own, name), split, image) for name, image in zip(names, images, strict=True)]


def name_in(picture: Path, folder: Path, name: str) -> str:
    return printable(picture.relative_to(folder).as_posix() if picture.is_relative_to(folder) else name)


def find_folder(path: Path, names: Sequence[str], settings: Settings) -> Path:
    """Where the pictures of a file lie: the first place that holds one of them."""
    stem = path.stem.removeprefix("instances_").removeprefix("annotations_")
    top = path.parent.parent
    tried = (
        [Path(settings.pictures).expanduser(), Path(settings.pictures).expanduser() / stem]
        if settings.pictures
        else [path.parent, top / stem, top / "images" / stem, path.parent / "images", top / "images", path.parent / stem]
    )
    for folder in tried:
        if any((folder / name).is_file() for name in names[:20]):
            return folder
    raise DataError(
        f"data.pictures: {printable(path)}: {names[0]} is in none of {', '.join(map(printable, tried))}; name the folder of the pictures"
    )


def objects_by_image(path: Path) -> dict[Any, list[Mapping[str, Any]]]:
    found = defaultdict(list)
    for entry in read_file(path)["annotations"]:
        found[entry.get("image_id")].append(entry)
    return dict(found)


def check_size(image: Mapping[str, Any], size: tuple[int, int]) -> None:
    """ValueError if the annotations are for a picture of another size."""
    height, width = image.get("height") or size[0], image.get("width") or size[1]
    if (height, width) != size:
        raise ValueError(f"the annotations are for {width}x{height} pixels, the picture has {size[1]}x{size[0]}")


def read_object(entry: Mapping[str, Any], size: tuple[int, int], categories: Categories) -> Shape:
    """One annotation. ValueError if it has no box."""
    number, box = entry.get("category_id"), entry.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise ValueError(f"annotation {entry.get('id')}: bbox: {box!r} must be x, y, width, height")
    x, y, width, height = map(float, box)
    polygons, region = read_outline(entry, size)
    area = entry.get("area")
    known = float(area) if isinstance(area, (int, float)) else None
    corners, crowd = (x, y, x + width, y + height), bool(entry.get("iscrowd", 0))
    return Shape(categories.places.get(number, -1), corners, polygons, region, known, crowd, str(number))


def read_outline(entry: Mapping[str, Any], size: tuple[int, int]) -> tuple[tuple[np.ndarray, ...], np.ndarray | None]:
    """Polygons [points, 2], and a region, bool [height, width], where it is run-length encoded. ValueError for what is neither."""
    given = entry.get("segmentation") or ()
    try:
        if isinstance(given, dict):
            counts = given["counts"]
            rows, columns = given["size"]
            return (), (decode_text if isinstance(counts, str) else decode_counts)(counts, (int(rows), int(columns)), size)
        polygons = tuple(np.array(points, np.float64).reshape(-1, 2) for points in given)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"annotation {entry.get('id')}: segmentation: {error}; it must be polygons or run lengths") from None
    return polygons, None
