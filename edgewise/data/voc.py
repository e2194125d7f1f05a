"""Pictures with objects as Pascal VOC describes them: JPEGImages/, Annotations/NAME.xml with boxes, and lists of names in ImageSets/Main/.

Lists are splits: of train (or trainval) the calibration split is taken; val is the test split if there is no test. Without lists all
annotated pictures are split.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgewise.artifacts.targets import BOXES, NONE
from edgewise.config.settings import option
from edgewise.data.encoders import PictureEncoder
from edgewise.data.objects import ObjectSettings, Shape, read_objects
from edgewise.data.pictures import PictureFile, list_files, printable, probe_files, read_lines
from edgewise.errors import DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

EXPECTED = "the folder must hold JPEGImages/ with pictures and Annotations/ with an XML file for each"
PICTURES, ANNOTATIONS, LISTS = "JPEGImages", "Annotations", "ImageSets/Main"
CORNERS = ("xmin", "ymin", "xmax", "ymax")
CROWD, KEEP, DROP = DIFFICULT = ("crowd", "keep", "drop")
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(ObjectSettings):
    path: str = option(help="folder with JPEGImages/ and Annotations/; absolute or relative to the project")
    targets: str = option(BOXES, "none: labels are not read", choices=(BOXES, NONE))
    classes: tuple[str, ...] = option((), "names of the classes in the order of the model's outputs; empty: all that occur, by name")
    difficult: str = option(
        CROWD,
        "objects that are marked difficult. crowd: they count neither as found nor as missed; keep: as all others; drop: they are left out",
        choices=DIFFICULT,
    )

    def names(self) -> Sequence[str]:
        if self.classes:
            return self.classes
        found = sorted({name for path in list_annotations(self.place) for name in names_in(path, path.stat().st_mtime_ns)})
        if not found:
            raise DataError(f"data.path: {printable(self.place)}: no object in any of its XML files{self._first_fault()}; {EXPECTED}")
        return found

    def _first_fault(self) -> str:
        """Why one of the files cannot be read, in brackets; nothing where all can."""
        for path in list_annotations(self.place):
            try:
                parse(path)
            except ValueError as error:
                return f" ({error})"
        return ""


def probe(settings: Settings) -> Mapping[str, Any]:
    lists = [path for name in ("train", "trainval", "val", "test") if (path := list_of(settings.place, name)).exists()]
    beside = [*list_annotations(settings.place), *lists]
    return probe_files(list_pictures(settings), settings, beside) | ({"targets": NONE} if settings.targets == NONE else {})


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    place = {name: number for number, name in enumerate(settings.names())} if settings.targets != NONE else {}
    folder = settings.place / ANNOTATIONS

    def shapes(picture: PictureFile, size: tuple[int, int]) -> list[Shape]:
        return read_annotation(folder / f"{picture.label}.xml", size, place, settings.difficult)

    yield from read_objects(list_pictures(settings), settings, shapes)


def list_annotations(folder: Path) -> list[Path]:
    """DataError if there are none."""
    found = sorted((folder / ANNOTATIONS).glob("*.xml"))
    if not found:
        raise DataError(f"data.path: {printable(folder)}: no XML files in {ANNOTATIONS}/; {EXPECTED}")
    return found


def list_of(folder: Path, name: str) -> Path:
    return folder / LISTS / f"{name}.txt"


def list_pictures(settings: Settings) -> list[PictureFile]:
    """The pictures with their splits; labels are the names of their annotations. DataError if there are none."""
    folder = settings.place
    pictures = {path.stem: path for path in list_files(folder / PICTURES)} if (folder / PICTURES).is_dir() else {}
    if not pictures:
        raise DataError(f"data.path: {printable(folder)}: no pictures in {PICTURES}/; {EXPECTED}")
    splits = {} if settings.pooled else read_splits(folder)
    names = splits or dict.fromkeys(path.stem for path in list_annotations(folder))
    return [
        PictureFile(path, printable(path.relative_to(folder).as_posix()), split, name)
        for name, split in names.items()
        for path in [pictures.get(name, folder / PICTURES / f"{name}.jpg")]
    ]


def read_splits(folder: Path) -> dict[str, str | None]:
    """{name: split} of all lists, {} without any. DataError for a name in two of them, and for lists without one to train with."""
    words = {name: read_list(path) for name in ("train", "trainval", "val", "test") if (path := list_of(folder, name)).exists()}
    if not words:
        return {}
    training = words.get("train") or words.get("trainval")
    if not training:
        raise DataError(f"data.path: {printable(folder)}: no train.txt in {LISTS}/; set data.pooled=true to split all pictures")
    held_out = words.get("val", ()) if "train" in words else ()
    given = {"train": training, "val": held_out, "test": words.get("test", ())}
    found: dict[str, str | None] = {}
    for key, names in given.items():
        for name in names:
            if name in found:
                raise DataError(f"data.path: {printable(folder)}: {name} is in {key}.txt and in another list of {LISTS}/; keep one of them")
            found[name] = {"train": None, "val": "validation" if given["test"] else "test", "test": "test"}[key]
    return found


def read_list(path: Path) -> list[str]:
    """The names; of lists for one class, which have 1 or -1 beside each, too. DataError if it is no text."""
    return [line.split()[0] for line in read_lines(path) if line.strip()]


def parse(path: Path) -> ElementTree.Element:
    """ValueError if it cannot be read."""
    try:
        return ElementTree.parse(path).getroot()
    except OSError as error:
        raise ValueError(f"{ANNOTATIONS}/{path.name}: {error.strerror}") from None
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # the latter two: an encoding that Python or expat does not have
        raise ValueError(f"{ANNOTATIONS}/{path.name} is not XML: {error}") from None


@cache
def names_in(path: Path, stamp: int) -> tuple[str, ...]:
    """Names of the objects in a file, () if it cannot be read: its picture is then reported. stamp: time of modification."""
    try:
        return tuple({text(entry, "name") for entry in parse(path).iter("object")})
    except ValueError:
        return ()


def text(entry: ElementTree.Element, name: str) -> str:
    """ValueError if the element is not there."""
    found = (entry.findtext(name) or "").strip()
    if not found:
        raise ValueError(f"an <{entry.tag}> without <{name}>")
    return found


def read_annotation(path: Path, size: tuple[int, int], place: Mapping[str, int], difficult: str) -> list[Shape]:
    """The objects of one picture. ValueError for a file that cannot be read, and for one of a picture of another size."""
    root = parse(path)
    try:
        written = tuple(int(float(root.findtext(f"size/{name}") or 0)) for name in ("height", "width"))
        if all(written) and written != size:
            raise ValueError(f"for {written[1]}x{written[0]} pixels, the picture has {size[1]}x{size[0]}")
        found = [(entry, (entry.findtext("difficult") or "0").strip() == "1") for entry in root.iter("object")]
        return [read_object(entry, place, hard and difficult == CROWD) for entry, hard in found if not (hard and difficult == DROP)]
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{ANNOTATIONS}/{path.name}: {error}") from None


def read_object(entry: ElementTree.Element, place: Mapping[str, int], crowd: bool) -> Shape:
    """Pixels are numbered from 1 and the last one belongs to the box: 1 to 640 is all of 640 pixels. A box that ends where it begins is a
    slip of the hand, of no area."""
    name, box = text(entry, "name"), entry.find("bndbox")
    if box is None:
        raise ValueError("an <object> without <bndbox>")
    x0, y0, x1, y1 = (float(text(box, corner)) for corner in CORNERS)
    flat = x1 <= x0 or y1 <= y0
    return Shape(place.get(name, -1), (x0 - 1, y0 - 1, x0 - 1 if flat else x1, y1), crowd=crowd, called=name)
