"""What lies at --data, and the section of params.yaml that reads it: pictures, arrays or sentences.

Of arrays also whether they are what the model takes: the array for each input, its sample axis, its type, and what to do where not.
"""

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
from edgewise.inspect.meanings import Guess, Guesses
from edgewise.plugins import IGNORED, Item, Mask

TOKENIZERS = ("tokenizer.json", "vocab.txt")
TEXT_NAMES, LABEL_NAMES = ("text", "sentence", "review", "body", "content"), ("label", "class", "category", "sentiment", "target")
LEAST_VALUES = 20  # different numbers in y from which on they are not taken for classes
EXPECTED = (
    "it reads: a folder of pictures, with a folder for each class or without, or with masks/ beside images/; boxes as YOLO's dataset yaml,"
    " COCO's JSON file or a folder of Pascal VOC; arrays as .npz or .npy; sentences as .tsv or .csv, or a folder with train and test files"
)
Arrays = Mapping[str, tuple[tuple[int, ...], str]]  # shape of one sample, and type


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


@dataclass(frozen=True)
class Fitted:
    """settings: of the data section. axes: {input: sample axis} where it is another than the first. remarks: sentences."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def fit_arrays(guesses: Guesses, arrays: Arrays) -> Fitted:
    """DataError for a wrong number of arrays, and for a shape that no setting makes fit."""
    pairs = match_arrays(guesses.fed, arrays)
    axes = {guess.port.name: find_axis(guess, name, arrays[name][0], bool(guesses.state)) for guess, name in pairs}
    ordered = [f"{name} feeds {guess.port.name}" for guess, name in pairs if name != guess.port.name]
    remarks = [f"by their order, {', '.join(ordered)}"] if ordered else []
    return Fitted(find_dtype(pairs, arrays), {name: axis for name, axis in axes.items() if axis}, tuple(remarks))


def match_arrays(fed: Sequence[Guess], arrays: Arrays) -> list[tuple[Guess, str]]:
    """By name where all inputs have an array of their name, else in order."""
    if arrays.keys() >= {guess.port.name for guess in fed}:
        return [(guess, guess.port.name) for guess in fed]
    if len(fed) == len(arrays):
        return list(zip(fed, arrays, strict=True))
    wanted = ", ".join(f"{guess.port.name} {show(guess.sizes)} {guess.dtype}" for guess in fed)
    given = ", ".join(f"{name} {show(shape)} {dtype}" for name, (shape, dtype) in arrays.items())
    raise DataError(
        f"--data: the model takes {len(fed)} arrays, {wanted} for each sample; the data has {given}; save one array for each input"
    )


def find_axis(guess: Guess, name: str, shape: tuple[int, ...], stateful: bool) -> int | None:
    """The axis of the input that counts samples, with which the array fits; None: it has none. DataError if there is no such axis."""
    sizes = shape[1:] if stateful else shape
    port = guess.port.shape
    if not guess.port.known_rank:
        return 0
    ordered = [*([] if guess.sample_axis is None else [guess.sample_axis]), *range(len(port))]
    axes: list[int] = [axis for axis in ordered if agree(without(port, axis), sizes)]
    if axes:
        return axes[0]
    if agree(port, sizes):
        return None
    raise DataError(f"--data: {explain_misfit(guess, name, shape, stateful)}")


def without(shape: Sequence[int | None], axis: int) -> list[int | None]:
    return [size for place, size in enumerate(shape) if place != axis]


def agree(wanted: Sequence[int | None], sizes: Sequence[int]) -> bool:
    return len(wanted) == len(sizes) and all(a in (None, b) for a, b in zip(wanted, sizes, strict=True))


def explain_misfit(guess: Guess, name: str, shape: tuple[int, ...], stateful: bool) -> str:
    """What does not fit, and what to do about it."""
    wanted = show(("steps", *guess.sizes) if stateful else guess.sizes)
    steps = " (a sample is a sequence, since the model carries state)" if stateful else ""
    flat = [size for size in shape if size != 1]
    if not stateful and flat == [size for size in guess.sizes if size not in (1, None)]:
        advice = f"remove or add axes of length one: {name}.reshape({', '.join(map(str, [-1, *(size or 1 for size in guess.sizes)]))})"
    elif stateful and len(shape) == len(guess.sizes):
        advice = f"cut each sequence into steps: {name} of shape [samples, steps, {', '.join(str(size or 'any') for size in guess.sizes)}]"
    elif sorted(flat) == sorted(size for size in guess.sizes if size not in (1, None)):
        advice = "bring its axes into this order with np.transpose"
    else:
        advice = "save samples of this shape, or export the model for yours"
    return f"{guess.port.name} takes {wanted} for each sample{steps}, the data's {name} has {show(shape)}; {advice}"


def find_dtype(pairs: Sequence[tuple[Guess, str]], arrays: Arrays) -> dict[str, str]:
    """data.dtype where floats are given to an input that takes integers; it is one for all of them."""
    wanted = {guess.dtype for guess, _ in pairs}
    floats = [guess for guess, name in pairs if arrays[name][1].startswith("float") and not guess.dtype.startswith("float")]
    if not floats:
        return {}
    if len(wanted) > 1:
        types = ", ".join(f"{guess.port.name} {guess.dtype}" for guess, _ in pairs)
        raise DataError(
            f"--data: the model takes {types}; save each array in the type of its input, for example x.astype({floats[0].dtype!r})"
        )
    return {"dtype": wanted.pop()}


def show(shape: Sequence[Any]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
