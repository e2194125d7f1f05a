"""Pictures with a mask picture for each, which tells the class of each pixel by its number or by its colour.

path/images/NAME.jpg and path/masks/NAME.png, or path/images/{train,val,test}/... and path/masks/{train,val,test}/..., which are then the
splits: val is the test split if there is no test, and of train the calibration split is taken.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.artifacts.targets import MASKS, MOST_CLASSES, NONE
from edgewise.config.settings import option
from edgewise.data.common import SPLIT_NAMES
from edgewise.data.encoders import PictureEncoder
from edgewise.data.pictures import PictureFile, PictureFileSettings, Problems, list_files, printable, probe_files, read_items
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import IGNORED, Item, Label, Mask, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

EXPECTED = "the folder must hold images/ with pictures and masks/ with a PNG of the same name for each"
UNNAMED = "masks with class numbers that data.classes does not name, whose pixels are not scored"
UNKNOWN_COLOUR = "masks with colours that the table does not have, whose pixels are not scored"
MAX_NAMED = 5  # examples in an error message
COLUMNS = ("name", "r", "g", "b")
encoder = PictureEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(PictureFileSettings):
    path: str = option(help="folder with images/ and masks/; absolute or relative to the project")
    targets: str = option(MASKS, "none: masks are not read", choices=(MASKS, NONE))
    images: str = option("images", "folder of the pictures in path")
    masks: str = option("masks", "folder of the masks in path, in the same structure")
    image_suffix: str = option("", "end of the names of pictures, before the dot, that masks do not have: _leftImg8bit")
    mask_suffix: str = option("", "end of the names of masks, before the dot: _gtFine_labelIds")
    classes: tuple[str, ...] = option((), "names of the classes 0, 1, 2 ...; empty: their numbers")
    first_number: int = option(0, "number of the first class in the masks; 1: they count from 1, and 0 is not scored", low=0, high=254)
    ignore: tuple[int, ...] = option((IGNORED,), "class numbers of pixels that are not scored; 255 never is")
    colors: dict[str, tuple[int, ...]] = option({}, "colour of each class: {road: [128, 64, 128]}; empty: masks hold class numbers")
    color_table: str | None = option(None, f"CSV file with the columns {','.join(COLUMNS)}, in place of data.colors")
    ignore_names: tuple[str, ...] = option((), "classes of the colour table whose pixels are not scored: [void]")
    partial: bool = option(False, "pictures without a mask are left out, as in Pascal VOC, where only some have one")
    pooled: bool = option(False, "the folders train, val and test are put together and split again, by data.splits and data.groups")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.colors and self.color_table:
            raise ConfigError("data.colors, data.color_table: both are given; remove one of them")
        wrong = next((name for name, color in self.colors.items() if len(color) != 3 or not all(0 <= c <= 255 for c in color)), None)
        if wrong is not None:
            raise ConfigError(f"data.colors.{wrong}: {list(self.colors[wrong])} must be three numbers from 0 to 255")
        if self.classes and (self.colors or self.color_table):
            raise ConfigError("data.classes: the colours name the classes already; remove data.classes")

    def class_names(self) -> Sequence[str]:
        """Those of the colour table that are scored, or data.classes. DataError if the table cannot be read."""
        return [name for name in self.palette if name not in self.ignore_names] if self.palette else self.classes

    @cached_property
    def palette(self) -> Mapping[str, tuple[int, ...]]:
        """Colour by class, {} where masks hold numbers."""
        return read_colors(Path(self.color_table).expanduser()) if self.color_table else self.colors

    def sort_labels(self, labels: Any) -> list[str]:
        return list(labels)


def probe(settings: Settings) -> Mapping[str, Any]:
    found = list_pictures(settings)
    if settings.targets == NONE:
        return {**probe_files(found, settings), "targets": NONE}
    table = [Path(settings.color_table).expanduser()] if settings.color_table else []
    return probe_files(found, settings, [*table, *(path for picture in found if (path := mask_of(picture.label, settings)).exists())])


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    found = list_pictures(settings)
    if settings.targets != NONE and not any(mask_of(picture.label, settings).exists() for picture in found):
        raise DataError(
            f"data.masks: none of the {len(found)} pictures has a mask: {found[0].name} should have "
            f"{printable(mask_of(found[0].label, settings))}; set data.masks, data.image_suffix or data.mask_suffix"
        )
    count, table, strange = len(settings.class_names()), colour_table(settings), dict[str, str]()

    def label(picture: PictureFile, size: tuple[int, int]) -> tuple[Label, Problems]:
        if settings.targets == NONE:
            return None, ()
        values = read_mask(mask_of(picture.label, settings), size)
        classes, example = by_colour(values, table) if table else by_number(values, count, settings.first_number, settings.ignore)
        if example is None:
            return Mask.pack(classes), ()
        strange[picture.name] = example
        return Mask.pack(classes), ((UNKNOWN_COLOUR if table else UNNAMED, f"{picture.name} ({example})"),)

    yield from read_items(found, settings, label)
    check_strange(strange, len(found), settings)


def check_strange(strange: Mapping[str, str], total: int, settings: Settings) -> None:
    """DataError if too many masks have a class that nobody names. strange: an example for each of them."""
    if len(strange) > settings.max_unreadable_share * total:
        examples = ", ".join(sorted(set(strange.values()))[:MAX_NAMED])
        way = "data.colors or data.color_table" if settings.palette else "data.classes, or list those that are not scored in data.ignore"
        raise DataError(
            f"data.masks: {len(strange)} of {total} masks have classes without a name, such as {examples}; name them in {way}, "
            f"or raise data.max_unreadable_share above {settings.max_unreadable_share}"
        )


def list_pictures(settings: Settings) -> list[PictureFile]:
    """The pictures with their splits, labels are their paths in the folder. DataError if there are none, or none to train with."""
    folder = settings.place / settings.images
    paths = list_files(folder) if folder.is_dir() else []
    if not paths:
        raise DataError(f"data.path: {printable(settings.place)}: no pictures in {settings.images}/; {EXPECTED}")
    inner = {path: path.relative_to(folder) for path in paths}
    if settings.partial:
        inner = {path: place for path, place in inner.items() if mask_of(place, settings).exists()} or inner
    tops = {place.parts[0].lower() for place in inner.values() if len(place.parts) > 1}
    divided = not settings.pooled and len(tops & SPLIT_NAMES.keys()) > 1
    if divided and "train" not in tops:
        raise DataError(
            f"data.path: {printable(folder)}: {', '.join(sorted(tops))}, but no train/, from which the calibration split is taken; "
            "set data.pooled=true to split all pictures"
        )
    return [
        PictureFile(path, printable(path.relative_to(settings.place).as_posix()), split_of(place, tops) if divided else None, place)
        for path, place in inner.items()
    ]


def split_of(place: Path, tops: set[str]) -> str | None:
    """train is split further; val is the test split where there is no other. Pictures outside of these folders are split, too."""
    split = SPLIT_NAMES.get(place.parts[0].lower())
    return "test" if split == "validation" and "test" not in tops else split


def mask_of(place: Path, settings: Settings) -> Path:
    """place: of the picture in the folder of pictures."""
    stem = place.stem.removesuffix(settings.image_suffix) + settings.mask_suffix
    return settings.place / settings.masks / place.parent / f"{stem}.png"


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Class numbers [height, width], or colours uint8 [height, width, 3], as the file has them: of a palette the numbers, not the colours.

    ValueError if it cannot be read, or has another size than its picture.
    """
    from PIL import Image

    try:
        with Image.open(path) as picture:
            values = np.asarray(picture if picture.mode in ("L", "P", "1", *preprocess.WIDE_MODES) else picture.convert("RGB"))
    except FileNotFoundError:
        raise ValueError(f"no mask {path.name}") from None
    except Exception as error:  # Pillow's readers raise almost any exception on a broken file
        raise ValueError(f"mask {path.name}: {error}") from None
    if values.shape[:2] != size:
        raise ValueError(f"mask {path.name} has {values.shape[1]}x{values.shape[0]} pixels, the picture {size[1]}x{size[0]}")
    return values


def by_number(values: np.ndarray, count: int, first: int, ignored: Sequence[int]) -> tuple[np.ndarray, str | None]:
    """uint8 [height, width], and a number that is no class. count: of named classes; 0: all are allowed. first: number of the first class.
    ValueError for a mask of colours."""
    if values.ndim == 3 and not (values == values[:, :, :1]).all():
        raise ValueError("the mask has colours, not class numbers; give their table as data.colors or data.color_table")
    numbers = (values[:, :, 0] if values.ndim == 3 else values).astype(np.int64)
    hidden = np.isin(numbers, (*ignored, IGNORED)) | (numbers < first)
    unnamed = ~hidden & (numbers - first >= (count or MOST_CLASSES))
    return np.where(hidden | unnamed, IGNORED, numbers - first).astype(np.uint8), str(numbers[unnamed].min()) if unnamed.any() else None


def by_colour(values: np.ndarray, table: Mapping[int, int]) -> tuple[np.ndarray, str | None]:
    """uint8 [height, width], and a colour that is no class. table: class number, or IGNORED, by colour as one number."""
    colours = pack(np.broadcast_to(values[:, :, None], (*values.shape, 3)) if values.ndim == 2 else values)
    found, places = np.unique(colours, return_inverse=True)
    classes = np.array([table.get(colour, IGNORED) for colour in found.tolist()], np.uint8)
    other = next((colour for colour in found.tolist() if colour not in table), None)
    example = None if other is None else str([other >> 16, other >> 8 & 255, other & 255])
    return classes[places.reshape(colours.shape)], example


def pack(colours: np.ndarray) -> np.ndarray:
    """[..., 3] as one number each."""
    packed: np.ndarray = colours.astype(np.int64) @ np.array([1 << 16, 1 << 8, 1])
    return packed


def colour_table(settings: Settings) -> dict[int, int]:
    place = {name: number for number, name in enumerate(settings.class_names())}
    return {int(pack(np.array(color))): place.get(name, IGNORED) for name, color in settings.palette.items()}


def read_colors(path: Path) -> dict[str, tuple[int, ...]]:
    """DataError if it is no CSV file with the four columns, or has a name twice."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = list(csv.DictReader(stream, skipinitialspace=True))
        found = {row["name"].strip(): tuple(int(row[column]) for column in COLUMNS[1:]) for row in rows}
    except (OSError, csv.Error, AttributeError, KeyError, TypeError, ValueError) as error:  # AttributeError: a row without a name
        reason = f"no column {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        raise DataError(f"data.color_table: {path}: {reason}; give a CSV file with the columns {','.join(COLUMNS)}") from None
    if len(found) < len(rows) or not found:
        raise DataError(f"data.color_table: {path}: {len(rows)} rows with {len(found)} names; give each class once")
    return found
