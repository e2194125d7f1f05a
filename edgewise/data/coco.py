"""Pictures with objects as COCO describes them: JSON files with images, categories and annotations (boxes, polygons, RLE, crowds).

Run lengths are those of pixels outside and inside of a region in turn, column by column from the left, as pycocotools writes them.

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
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

EXPECTED = "give a JSON file with images, annotations and categories, or a folder with such files in it or in annotations/"
SECTIONS = ("images", "annotations", "categories")
PATTERNS = ("annotations/instances_*.json", "*/_annotations.coco.json", "annotations/*.json", "*.json")  # the first that finds any counts
SPLIT_WORD = re.compile(r"train|valid|val|test|dev")
SPLITS = {"train": None, "val": "validation", "valid": "validation", "dev": "validation", "test": "test"}
STRAY = "annotations of pictures that their file does not list, left out"
LARGEST_AREA = 1e12  # pixels; what an annotation gives beyond that, or as NaN, is no area
ZERO = 48  # the character 0 of run lengths as text: each character has 5 bits of a number, and one that says whether more follow
BITS, MORE, SIGN = 5, 0x20, 0x10
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
        listed = {number_of(picture.label, "id") for picture in pictures}
        objects |= {(path, number): given for number, given in by_image.items() if number in listed}
        stray += [(STRAY, f"{path.name}: {number}") for number, given in by_image.items() if number not in listed for _ in given]
        found += [replace(picture, label={**picture.label, "file": path}) for picture in pictures]

    def shapes(picture: PictureFile, size: tuple[int, int]) -> list[Shape]:
        check_size(picture.label, size)
        given = objects.get((picture.label["file"], number_of(picture.label, "id")), ())
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
            f"data.path: {printable(place)}: {', '.join(path.name for path in paths)}: none is named after train, from which the "
            "calibration split is taken; set data.pooled=true to split all of them"
        )
    has_test = "test" in known.values()
    return {path: SPLITS[word] if has_test or word == "train" else "test" for path, word in known.items()}


def find_split(path: Path, place: Path) -> str | None:
    """The word in the name of the file, or of its folder, that says train, val or test."""
    found = SPLIT_WORD.findall(path.relative_to(place).as_posix().lower().replace("annotations", ""))
    return found[-1] if found else None


@lru_cache(maxsize=8)
def _read(path: Path, stamp: int) -> tuple[Any, str]:
    """The content, and what is wrong with it: nothing where it is empty. stamp: time of modification."""
    content = json.loads(path.read_bytes())
    return content, find_fault(content)


def find_fault(content: Any) -> str:
    missing = [name for name in SECTIONS if not isinstance(content, dict) or not isinstance(content.get(name), list)]
    if missing:
        return f"has no list of {' and '.join(missing)}"
    for name in SECTIONS:
        odd = next((number for number, entry in enumerate(content[name]) if not isinstance(entry, dict)), None)
        if odd is not None:
            return f"{name}[{odd}] is a {type(content[name][odd]).__name__} and no mapping"
    unnamed = next((number for number, image in enumerate(content["images"]) if not {"id", "file_name"} <= image.keys()), None)
    return "" if unnamed is None else f"images[{unnamed}] lacks id or file_name"


def read_file(path: Path) -> Mapping[str, Any]:
    """The content, read once. DataError if it is no JSON, lacks a section, or has an entry that is none."""
    try:
        content, fault = _read(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"data.path: {printable(path)}: {error.strerror}; {EXPECTED}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"data.path: {printable(path)} is not JSON: {error}; {EXPECTED}") from None
    if fault:
        raise DataError(f"data.path: {printable(path)}: {fault}; {EXPECTED}")
    found: Mapping[str, Any] = content
    return found


def read_categories(settings: Settings) -> Categories:
    """The categories of all files, which must agree. DataError where they do not, or name none."""
    named: dict[Any, str] = {}
    for path in find_files(settings):
        for entry in read_file(path)["categories"]:
            number, name = number_of(entry, "id"), str(entry.get("name"))
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
        found[number_of(entry, "image_id")].append(entry)
    return dict(found)


def number_of(entry: Mapping[str, Any], name: str) -> Any:
    """The number of a picture or a class, as a key; of a list or a mapping, which is no number, its text."""
    value = entry.get(name)
    return str(value) if isinstance(value, (list, dict)) else value


def check_size(image: Mapping[str, Any], size: tuple[int, int]) -> None:
    """ValueError if the annotations are for a picture of another size."""
    height, width = image.get("height") or size[0], image.get("width") or size[1]
    if (height, width) != size:
        raise ValueError(f"the annotations are for {width}x{height} pixels, the picture has {size[1]}x{size[0]}")


def read_object(entry: Mapping[str, Any], size: tuple[int, int], categories: Categories) -> Shape:
    """One annotation. ValueError if it has no box."""
    number, box = number_of(entry, "category_id"), entry.get("bbox")
    try:
        x, y, width, height = map(float, box if isinstance(box, list) else ())
    except (OverflowError, TypeError, ValueError):
        raise ValueError(f"annotation {entry.get('id')}: bbox: {box!r} must be x, y, width, height") from None
    polygons, region = read_outline(entry, size)
    area = entry.get("area")
    known = float(area) if isinstance(area, (int, float)) and 0 <= area < LARGEST_AREA else None
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
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"annotation {entry.get('id')}: segmentation: {error}; it must be polygons or run lengths") from None
    return polygons, None


def decode_counts(counts: Sequence[int], shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """bool [height, width] from lengths of runs. shape: that of the region, which must be size. ValueError if the runs do not fill it."""
    if shape != size:
        raise ValueError(f"a region of {list(shape)} for a picture of {list(size)} (height, width)")
    runs = np.asarray(counts, np.int64)
    if runs.ndim != 1 or (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise ValueError(f"{len(runs)} runs of {runs.sum()} pixels for {shape[0] * shape[1]}")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape[::-1]).T


def decode_text(text: str, shape: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """As decode_counts, from the compressed form: numbers of 5 bits a character, lowest first; from the fourth run on they are differences
    from the run before the last (rleFrString of pycocotools)."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        part = ord(character) - ZERO
        value |= (part & 0x1F) << shift
        shift += BITS
        if part & MORE:
            continue
        value -= (1 << shift) if part & SIGN else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    return decode_counts(runs, shape, size)
