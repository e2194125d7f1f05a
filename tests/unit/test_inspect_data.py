"""What `edgewise inspect --data` makes of the user's data, and what labelled pictures decide."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from edgewise.artifacts.targets import BOXES, CLASSES, MASKS, MULTI_LABEL, NONE, VALUES
from edgewise.config import compose
from edgewise.config.compose import Options
from edgewise.errors import UserError
from edgewise.inspect import detectors_choice, picture_settings, sections, user_data
from edgewise.inspect.detectors_choice import Way
from edgewise.inspect.meanings import guess_ports
from edgewise.inspect.sections import Known
from edgewise.inspect.trial_run import Tried, read_items
from edgewise.inspect.user_data import UserData
from edgewise.plugins import Boxes, Item
from edgewise.sources.inspection import Inspection, Port
from tests.conftest import ROOT

CONF = ROOT / "conf"
N = 12


def picture(path: Path, level: int = 100) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(path)


def pictures(*folders: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        for folder in folders:
            for number in range(N):
                picture(path / folder / f"{number}.png", 10 * number + len(folder))
        return path

    return make


def arrays(suffix: str, **held: np.ndarray) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        file = path / f"set.{suffix}"
        np.savez(file, **held) if suffix == "npz" else np.save(file, held["x"])
        return file

    return make


def text(*files: tuple[str, str]) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        for name, content in files:
            (path / name).write_text(content)
        return path / files[0][0] if len(files) == 1 else path

    return make


def yolo(path: Path) -> Path:
    pictures("images/train", "images/val")(path)
    for split in ("train", "val"):
        (path / "labels" / split).mkdir(parents=True)
        for number in range(N):
            (path / f"labels/{split}/{number}.txt").write_text(f"{number % 2} 0.5 0.5 0.2 0.4\n")
    (path / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat, dog]\n")
    return path / "data.yaml"


def coco(path: Path) -> Path:
    pictures(".")(path)
    images = [{"id": i, "file_name": f"{i}.png", "width": 30, "height": 20} for i in range(N)]
    boxes = [{"id": i, "image_id": i, "category_id": 7, "bbox": [1, 2, 10, 10], "area": 100, "iscrowd": 0} for i in range(N)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 7, "name": "cat"}]}
    (path / "instances.json").write_text(json.dumps(content))
    return path / "instances.json"


def voc(path: Path) -> Path:
    pictures("JPEGImages")(path)
    (path / "Annotations").mkdir()
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>9</ymax></bndbox>"
    for number in range(N):
        body = f"<annotation><filename>{number}.png</filename><object><name>cat</name>{box}</object></annotation>"
        (path / f"Annotations/{number}.xml").write_text(body)
    return path


def masks(path: Path) -> Path:
    for number in range(N):
        picture(path / f"images/{number}.png")
        (path / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30) % 3).save(path / f"masks/{number}.png")
    return path


LINES = "".join(f"a text of {number}\t{number % 2}\n" for number in range(N))
ROWS = "".join(f"{number};{'good' if number % 2 else 'bad'};a longer text of {number}\n" for number in range(N))
COLUMN = np.arange(N) % 3
KINDS = {
    "pictures by class": (pictures("cat", "dog"), "image_folder", CLASSES, ("cat", "dog"), {}),
    "pictures alone": (pictures("."), "image_folder", NONE, (), {}),
    "pictures in one folder": (pictures("all"), "image_folder", NONE, (), {"targets": "none"}),
    "arrays with classes": (arrays("npz", x=np.zeros((N, 5)), y=COLUMN), "arrays", CLASSES, ("0", "1", "2"), {}),
    "arrays with numbers": (arrays("npz", x=np.zeros((N, 5)), y=np.linspace(0, 1, N)), "arrays", VALUES, ("y0",), {"targets": VALUES}),
    "arrays with many labels": (arrays("npz", x=np.zeros((N, 5)), y=np.eye(N)), "arrays", MULTI_LABEL, None, {"targets": MULTI_LABEL}),
    "arrays alone": (arrays("npz", a=np.zeros((N, 5)), b=np.zeros((N, 2), np.int64)), "arrays", NONE, (), {}),
    "one array": (arrays("npy", x=np.zeros((N, 5))), "arrays", NONE, (), {}),
    "lines of text and label": (text(("set.tsv", LINES)), "text_tsv", CLASSES, ("0", "1"), {}),
    "lines of text": (text(("set.tsv", "one\ntwo\nthree\n")), "text_tsv", NONE, (), {"label_column": "none"}),
    "text in splits": (text(("train.tsv", LINES), ("test.tsv", LINES)), "text_tsv", CLASSES, ("0", "1"), {}),
    "columns with names": (text(("set.csv", f"id;stars;review\n{ROWS}")), "text_csv", CLASSES, None, {"text_columns": ["review"]}),
    "columns without names": (text(("set.csv", ROWS)), "text_csv", CLASSES, ("bad", "good"), {"text_columns": [2], "label_column": 1}),
    "boxes of YOLO": (yolo, "yolo", BOXES, ("cat", "dog"), {}),
    "the folder of a YOLO yaml": (lambda path: yolo(path).parent, "yolo", BOXES, ("cat", "dog"), {}),
    "boxes of COCO": (coco, "coco", BOXES, ("cat",), {}),
    "boxes of VOC": (voc, "voc", BOXES, ("cat",), {}),
    "masks": (masks, "masks", MASKS, ("0", "1", "2"), {}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_data_of_any_kind_is_recognized_and_its_section_reads_it(kind, tmp_path):
    make, name, targets, labels, settings = KINDS[kind]
    found = user_data.recognize(make(tmp_path))
    assert (found.name, found.targets) == (name, targets) and settings.items() <= found.settings.items()
    assert labels is None or found.labels == labels
    items, _ = read_items({"name": found.name, **found.settings}, CONF, 2)
    assert items and (items[0].label is None) == (targets == NONE)


NOTHING = {
    "gone": lambda path: path / "gone",
    "a program": text(("set.py", "x = 1")),
    "an empty folder": lambda path: path,
    "no yaml of pictures": text(("set.yaml", "- 1\n")),
    "no JSON": text(("set.json", "{")),
    "no archive": text(("set.npz", "PK nothing")),
    "an empty table": text(("set.csv", "\n")),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_what_is_no_data_is_told_what_there_is(kind, tmp_path):
    with pytest.raises(UserError):
        user_data.recognize(NOTHING[kind](tmp_path))


def test_the_scaling_with_which_labelled_pictures_are_classified_is_taken():
    """Of three ways: the second gives the true classes their probability, the others are chance."""
    spec = {"channels": 1, "resize": "stretch", "size": [8, 8]}
    ways, targets = picture_settings.list_scalings(spec), np.arange(30) % 2
    right, chance = np.eye(2)[targets] * 4, np.zeros((30, 2))
    runs = [Tried({"y": np.float32(array)}) for array in (chance, right, chance)]
    found = picture_settings.decide_scaling(targets, 2, ways, runs)
    assert found.data == {"range": [0, 255]} and found.words.endswith("right on 30 of 30 labelled pictures; 3 usual ways were tried")
    same = picture_settings.decide_scaling(targets, 2, ways, [runs[1]] * 3)
    assert same.data == {"range": [0, 1]}  # the most common one, if nothing tells them apart
    assert same.words.endswith("; range [0, 255], range [-1, 1] are right as often: take the one of your training")
    assert picture_settings.decide_scaling(targets, 3, ways, runs) is None


def test_the_remark_on_the_range_names_all_that_was_found_by_trying():
    ways = picture_settings.list_scalings({"channels": 3, "resize": "stretch", "size": [8, 8]})
    best = next(place for place, way in enumerate(ways) if "std" in way.data)
    said = picture_settings.say_why(ways, [0] * best + [28] + [0] * (len(ways) - best - 1), best, 30)
    assert said.startswith("with mean, std, channel_order the best of all tried, right on 28 of 30 labelled pictures")


WORDS = (*(f"thing {number}" for number in range(998)), "cat", "dog")


def task_of(shape: tuple[int, ...], user: UserData, names: tuple[str, ...] = ()) -> tuple[str, dict[str, object]]:
    """The task and the settings of the data that go with it, for a model of pictures with one output."""
    seen = Inspection("x", (Port("x", (1, 3, 32, 32), "float32"),), (Port("y", shape, "float32"),))
    section, settings = sections.suggest_task(guess_ports(seen), Known(user, names=names, path="m.tflite"))
    return section.values["name"], settings


PETS = UserData("image_folder", {"path": "p"}, CLASSES, ("cat", "dog"))


@pytest.mark.parametrize(
    ("shape", "names", "expected"),
    [
        ((1, 2), (), ("classification", {})),
        ((1, 1000), WORDS, ("classification", {"label_names": "m.tflite"})),
        ((1, 1001), WORDS, ("classification", {"label_names": "m.tflite", "label_offset": 1})),
        ((1, 1001), (), ("none", {"targets": NONE})),
        ((1, 1000), (*WORDS[:-1], "wolf"), ("none", {"targets": NONE})),
        ((1, 2, 32, 32), (), ("none", {"targets": NONE})),
    ],
)
def test_classes_are_scored_where_the_model_has_as_many_or_names_them(shape, names, expected):
    assert task_of(shape, PETS, names) == expected


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 12, 32, 32), ("segmentation", {})),
        ((1, 32, 32, 12), ("segmentation", {})),
        ((1, 11, 8, 8), ("segmentation", {"ignore": [255, 11]})),
        ((1, 21, 8, 8), ("none", {"targets": NONE})),
    ],
)
def test_masks_are_scored_where_the_map_has_their_classes(shape, expected):
    assert task_of(shape, UserData("masks", {"path": "p"}, MASKS, tuple(map(str, range(12))))) == expected


def test_the_remark_on_the_splits_of_boxes_says_what_they_divide():
    seen = Inspection("x", (Port("x", (1, 3, 32, 32), "float32"),), (Port("y", (1, 12, 32, 32), "float32"),))
    boxes, pets = (
        sections.suggest_data(guess_ports(seen), Known(user))[0] for user in (UserData("yolo", {"path": "p"}, BOXES, ("cat",)), PETS)
    )
    assert "divide train alone" in boxes.remarks["splits"] and "splits" not in pets.remarks


SIZE = 64


def labelled(classes: tuple[int, int] = (0, 2)) -> list[Item]:
    """Pictures of the model's own size, with two boxes each."""
    boxes = Boxes(np.float32([[4, 4, 20, 24], [30, 30, 60, 50]]), np.array(classes), np.float32([320, 600]), np.zeros(2, bool))
    return [Item(str(i), boxes, None, "", np.zeros((SIZE, SIZE, 3), np.uint8)) for i in range(4)]


def table(boxes: Boxes, rows: int = 1200) -> np.ndarray:
    """As YOLOv5 gives it: center and sides in pixels, objectness, three classes."""
    found = np.zeros((rows, 8), np.float32)
    corners = boxes.corners
    found[: len(corners), :4] = np.concatenate([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], axis=1)
    found[: len(corners), 4] = 0.9
    found[np.arange(len(corners)), 5 + boxes.classes] = 0.9
    return found


def test_labelled_boxes_decide_how_a_detector_is_read_and_its_pictures_prepared():
    items = labelled()
    spec = {"size": [SIZE, SIZE], "channels": 3, "resize": "letterbox", "anchor": "center", "stride": None, "pad_value": 114}
    right = np.stack([table(item.label) for item in items])
    wrong = np.zeros_like(right)
    ways = [Way({"range": [0, 255]}, spec), Way({"range": [0, 1]}, spec)]
    found = detectors_choice.decide(items, ways, [Tried({"out": wrong}), Tried({"out": right})])
    assert found.sure and found.data["range"] == [0, 1] and found.decoding["head"] == "yolo" and found.decoding["objectness"]
    assert "size" not in found.decoding and found.data["pad_value"] == 114
    assert found.words.endswith(": finds 100% of the objects in 4 labelled pictures, the next best (range [0, 255]) 0%")
    said = "range [0, 1]: the best of 2 ways with 4 labelled pictures; letterbox, center, bars of 114: usual for such boxes"
    assert found.of_data == said
    none = detectors_choice.decide(items, ways, [Tried({"out": wrong})] * 2)
    assert not none.sure and not none.data and "no way to read its outputs" in none.hints[0]
    assert detectors_choice.decide(items, ways[:1], [Tried({"y": np.zeros((4, 3))})]) is None


def test_objects_that_are_found_under_other_classes_are_said_to_be():
    items = labelled((1, 1))
    spec = {"size": [SIZE, SIZE], "channels": 3, "resize": "letterbox", "anchor": "center", "stride": None, "pad_value": 114}
    run = Tried({"out": np.stack([table(item.label) for item in labelled((2, 2))])})
    found = detectors_choice.decide(items, [Way({}, spec)], [run])
    assert not found.sure and "data.label_names=FILE" in found.hints[0]


@pytest.mark.framework
@pytest.mark.slow
def test_yolox_is_read_as_its_authors_do(shared_data, tmp_path, monkeypatch):
    """Found from 12 pictures alone: letterbox in the corner, blue first, values from 0 to 255, boxes on grids."""
    pytest.importorskip("onnxruntime")
    from edgewise.inspect import model_file, suggestion
    from edgewise.inspect.params_text import write_sections

    path = shared_data / "pretrained/yolox/yolox_nano.onnx"
    importer, seen = model_file.inspect_file(path, CONF)
    asked = suggestion.Asked(path, importer, CONF, model_file.read_formats(CONF), str(shared_data / "coco128/data.yaml"))
    pasted = yaml.safe_load(write_sections(suggestion.suggest(seen, asked)[0]))
    config = compose.compose_choices({**compose.read_choices(ROOT / "params.yaml"), **pasted}, Options(CONF))
    assert config.task.name == "detection" and config.task.settings["decoding"]["head"] == "yolox"
    assert {"channel_order": "bgr", "pad_anchor": "corner", "resize": "letterbox"}.items() <= config.data.settings.items()
    assert tuple(config.data.settings["range"]) == (0, 255)
    assert config.variant("onnx-int8-static").calibration.method == "mean"
