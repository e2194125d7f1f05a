"""What lies at --data, and the section of params.yaml that reads it: pictures, arrays or sentences."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.targets import BOXES, CLASSES, MASKS, MULTI_LABEL, NONE, VALUES
from edgewise.config.settings import build
from edgewise.data import arrays, common, image_folder, masks, text_csv
from edgewise.errors import DataError
from edgewise.plugins import IGNORED, Item, Mask

TOKENIZERS = ("tokenizer.json", "vocab.txt")
TEXT_NAMES, LABEL_NAMES = ("text", "sentence", "review", "body", "content"), ("label", "class", "category", "sentiment", "target")
LEAST_VALUES = 20  # different numbers in y from which on they are not taken for classes
EXPECTED = (
    "it reads: a folder of pictures, with a folder for each class or without, or with masks/ beside images/; boxes as YOLO's dataset yaml,"
    " COCO's JSON file or a folder of Pascal VOC; arrays as .npz or .npy; sentences as .tsv or .csv, or a folder with train and test files"
)


@dataclass(frozen=True)
class UserData:
    """name: of the data set in conf/data/. settings: of its section. targets: see artifacts.targets. labels: names of the classes, or of
    the columns of y. arrays: shape of one sample and type, by name, where there are arrays. remarks: comments by setting."""

    name: str
    settings: Mapping[str, Any]
    targets: str = NONE
    labels: tuple[str, ...] = ()
    arrays: Mapping[str, tuple[tuple[int, ...], str]] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> bool:
        return self.name in PICTURES

    @property
    def words(self) -> str:
        kinds = {
            CLASSES: f"{len(self.labels)} classes: {', '.join(self.labels[:SHOWN])}{' ...' if len(self.labels) > SHOWN else ''}",
            NONE: "no labels",
            VALUES: f"{len(self.labels)} numbers for each sample",
            MULTI_LABEL: f"{len(self.labels)} labels of 0 and 1 for each sample",
            BOXES: f"boxes of {len(self.labels)} classes",
            MASKS: f"masks of {len(self.labels)} classes",
        }
        given = "; ".join(f"{name} {list(shape)} {dtype}" for name, (shape, dtype) in self.arrays.items())
        return f"{self.name}{f', {given} of each sample' if given else ''}, {kinds[self.targets]}"


PICTURES = ("image_folder", "yolo", "coco", "voc", "masks")
YAML, COCO_FILES = (".yaml", ".yml"), ("annotations/instances_*.json", "*/_annotations.coco.json", "annotations/*.json", "*.json")
MASKS_READ = 50
SHOWN = 5  # labels in a line


def recognize(path: Path) -> UserData:
    """DataError for a path that is not there, and for what is none of these kinds."""
    place = path.expanduser()
    if not place.exists():
        raise DataError(f"--data: {path} does not exist; {EXPECTED}")
    reader = find_folder_reader(place) if place.is_dir() else FILES.get(place.suffix.lower())
    if reader is None:
        raise DataError(f"--data: {path} is not a kind of data that Edgewise reads; {EXPECTED}")
    return reader(path)


def find_folder_reader(place: Path) -> Callable[[Path], UserData]:
    """By the folders and files in it, which each of these data sets has."""
    if (place / "JPEGImages").is_dir() and (place / "Annotations").is_dir():
        return partial(read_boxes, "voc")
    if (place / "images").is_dir() and (place / "masks").is_dir():
        return read_masks
    if any(next(place.glob(pattern), None) for pattern in COCO_FILES):
        return partial(read_boxes, "coco")
    yolo = next(
        (each for each in sorted(place.glob("*.y*ml")) if each.suffix in YAML and "names" in each.read_text("utf-8", "replace")), None
    )
    if yolo is not None:
        return lambda path: read_boxes("yolo", path / yolo.name)
    texts = {file.suffix.lower() for file in place.iterdir() if file.stem.lower() in common.SPLIT_NAMES and file.is_file()}
    return next((FILES[suffix] for suffix in (".tsv", ".csv") if suffix in texts), read_picture_folder)


def read_picture_folder(path: Path) -> UserData:
    settings = build(image_folder.Settings, {"path": str(path)}, "data")
    labels = {picture.label for picture in image_folder.list_pictures(settings)}
    named = tuple(sorted(label for label in labels if label is not None))
    if len(named) < 2:
        alone = {"targets": f"all pictures lie in the folder {named[0]}: they are taken as without labels"} if named else {}
        return UserData("image_folder", {"path": str(path), **({"targets": NONE} if named else {})}, remarks=alone)
    return UserData("image_folder", {"path": str(path)}, CLASSES, named)


def read_boxes(name: str, path: Path) -> UserData:
    """name: of the data set."""
    module = importlib.import_module(f"edgewise.data.{name}")
    settings = build(module.Settings, {"path": str(path)}, "data")
    return UserData(name, {"path": str(path)}, BOXES, tuple(settings.names()))


def read_masks(path: Path) -> UserData:
    """The classes are counted in the first masks, where nothing names them."""
    settings = build(masks.Settings, {"path": str(path)}, "data")
    labels = [item.label for item in islice(masks.items(settings), MASKS_READ) if isinstance(item, Item)]
    numbers = {int(number) for label in labels if isinstance(label, Mask) for number in np.flatnonzero(label.pixels[:IGNORED])}
    named = tuple(map(str, range(max(numbers, default=-1) + 1)))
    return UserData(
        "masks", {"path": str(path)}, MASKS, named, remarks={"path": "data.ignore=[255, NUMBER] for a class that is not scored"}
    )


def read_arrays(path: Path) -> UserData:
    """y is classes (one column of integers or words), multi_label (columns of 0 and 1), or values."""
    held = arrays.read(build(arrays.Settings, {"path": str(path), "targets": VALUES}, "data"))
    labels = held.pop(arrays.LABELS, None)
    held.pop(arrays.GROUPS, None)
    shapes = {name: (tuple(map(int, array.shape[1:])), array.dtype.name) for name, array in held.items()}
    if labels is None:
        return UserData("arrays", {"path": str(path)}, arrays=shapes)
    targets = find_targets(labels)
    names = common.sort_numerically({common.parse_class_name(label) for label in labels.tolist()}) if targets == CLASSES else ()
    columns = tuple(f"y{i}" for i in range(int(np.prod(labels.shape[1:])))) if targets != CLASSES else tuple(names)
    given = {"path": str(path)} | ({"targets": targets} if targets != CLASSES else {})
    return UserData("arrays", given, targets, columns, shapes, {"targets": "a guess by the numbers in y"})


def find_targets(labels: np.ndarray) -> str:
    if labels.dtype.kind not in "iufb":
        return CLASSES
    whole = bool(np.all(np.mod(labels, 1) == 0))
    if labels.ndim == 1:
        return CLASSES if whole and len(np.unique(labels)) <= max(LEAST_VALUES, len(labels) // 2) else VALUES
    return MULTI_LABEL if np.isin(labels, (0, 1)).all() else VALUES


def read_tsv(path: Path) -> UserData:
    """Text, tab, label without a header; with a header or other columns it is read as CSV."""
    first = next(iter(find_text_files(path)))
    cells = read_head(first, "\t")
    header = bool(cells) and any(cell.strip().lower() in (*TEXT_NAMES, *LABEL_NAMES) for cell in cells[0])
    if header or not cells or len(cells[0]) > 2:
        return read_csv(path)
    column = 1 if len(cells[0]) == 2 else None
    labels = tuple(sorted({row[1].strip() for row in read_head(first, "\t", None) if len(row) == 2})) if column else ()
    given = {"path": str(path)} if column else {"path": str(path), "label_column": NONE, "targets": NONE}
    return UserData("text_tsv", given, CLASSES if column else NONE, labels)


def read_csv(path: Path) -> UserData:
    """Columns are told by their names, else the longest is the text and the one with the fewest different entries the label."""
    first = next(iter(find_text_files(path)))
    content = first.read_text(encoding="utf-8-sig", errors="replace")
    rows = [row for row in text_csv.parse(content, text_csv.find_delimiter(content, True), True) if row]
    if not rows:
        raise DataError(f"--data: {first} is empty; {EXPECTED}")
    header, body = find_header(rows)
    names: Sequence[Any] = [name.strip() for name in rows[0]] if header else range(len(rows[0]))
    text = find_column(names, TEXT_NAMES) if header else None
    text = text if text is not None else max(range(len(names)), key=lambda i: sum(len(row[i]) for row in body if len(row) > i))
    label = find_column(names, LABEL_NAMES) if header else None
    if label is None:
        label = find_label_column(body, len(names), text)
    labels = tuple(sorted({row[label].strip() for row in body if len(row) > label})) if label is not None else ()
    given = {"path": str(path), "header": header, "text_columns": [names[text]]}
    given |= {"label_column": names[label]} if label is not None else {"label_column": NONE, "targets": NONE}
    remarks = {"text_columns": "a guess", "label_column": "a guess"}
    return UserData("text_csv", given, CLASSES if label is not None else NONE, labels, remarks=remarks)


def find_header(rows: Sequence[Sequence[str]]) -> tuple[bool, Sequence[Sequence[str]]]:
    """Whether the first record names columns: none of its cells is a number, and none is there again below."""
    first, body = rows[0], rows[1:]
    numbers = any(cell.strip().lstrip("-").replace(".", "", 1).isdigit() for cell in first)
    again = any(cell in (row[i] for row in body if len(row) > i) for i, cell in enumerate(first))
    header = bool(body) and not numbers and not again and len({*first}) == len(first)
    return header, body if header else rows


def find_column(names: Sequence[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for word in wanted for name in names if word in name.lower()), None)


def find_label_column(rows: Sequence[Sequence[str]], columns: int, text: int) -> int | None:
    """The column with the fewest different entries, if they repeat."""
    counts = {i: len({row[i] for row in rows if len(row) > i}) for i in range(columns) if i != text}
    fewest = min(counts, key=lambda i: counts[i], default=None)
    return fewest if fewest is not None and 2 <= counts[fewest] <= max(2, len(rows) // 2) else None


def find_text_files(path: Path) -> list[Path]:
    """The file itself, or those of a folder, the training split first."""
    place = path.expanduser()
    if place.is_file():
        return [place]
    files = [file for file in place.iterdir() if file.stem.lower() in common.SPLIT_NAMES and file.suffix.lower() in (".tsv", ".csv")]
    return sorted(files, key=lambda file: (file.stem.lower() != "train", file.name))


def read_head(path: Path, delimiter: str, lines: int | None = 20) -> list[list[str]]:
    content = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    return [line.split(delimiter) for line in content[:lines] if line]


def find_tokenizer(*places: Path) -> str | None:
    """tokenizer.json or vocab.txt in the folder of one of these files."""
    folders = [place if place.is_dir() else place.parent for place in places]
    return next((str(folder / name) for folder in folders for name in TOKENIZERS if (folder / name).is_file()), None)


FILES: Mapping[str, Callable[[Path], UserData]] = {
    ".npz": read_arrays,
    ".npy": read_arrays,
    ".tsv": read_tsv,
    ".csv": read_csv,
    ".yaml": partial(read_boxes, "yolo"),
    ".yml": partial(read_boxes, "yolo"),
    ".json": partial(read_boxes, "coco"),
}
