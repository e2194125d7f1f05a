"""data/yolo, coco, voc: the same scenes in each form give the same boxes; what is wrong is counted and named."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import coco, objects, voc, yolo
from edgewise.data.objects import Shape
from edgewise.errors import DataError
from edgewise.plugins import IGNORED, Boxes, Item, Unreadable
from tests.support.object_sets import NAMES, SCENES, WRITERS, class_map, coco_entry, voc_file, write_coco, write_voc, write_yolo
from tests.unit.test_prepare_data import plugin, prepare

pytestmark = pytest.mark.usefixtures("in_tmp_path")

FORMS = {name: WRITERS[name] for name in ("yolo", "coco", "voc")}
MODULES = {"yolo": yolo, "coco": coco, "voc": voc}


def made(form: str, path: Path, tmp_path: Path, **settings) -> tuple[Manifest, dict[str, object]]:
    """The manifest, and the targets by the name of the picture."""
    manifest = prepare(plugin(form, path=str(path), image_size=32, **settings), tmp_path)
    samples = Samples.open(tmp_path / "models/data")
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    everything = np.arange(len(files))
    found = samples.targets(everything) or [None] * len(files)
    return manifest, {Path(file["name"]).stem: target for file, target in zip(files, found, strict=True)}


def read(form: str, path: Path, **settings) -> list[Item | Unreadable]:
    module = MODULES[form]
    return list(module.items(build(module.Settings, {"path": str(path), "image_size": 32, **settings}, "data")))


def expected(name: str) -> Boxes:
    boxes = SCENES[name][1]
    return Boxes.of([box[1:] for box in boxes], [box[0] for box in boxes])


def splits_of(tmp_path: Path) -> dict[str, set[str]]:
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    splits = json.loads((tmp_path / "models/data/splits.json").read_text())
    return {name: {Path(files[i]["name"]).stem for i in indices} for name, indices in splits.items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_boxes_of_its_scenes(form, tmp_path):
    manifest, found = made(form, FORMS[form](tmp_path / "set"), tmp_path)
    assert manifest.labels == NAMES and found.keys() == SCENES.keys() and manifest.details["targets"] == "boxes"
    for name, boxes in found.items():
        want = expected(name)
        order, wanted = (np.lexsort((each.corners[:, 0], each.classes)) for each in (boxes, want))
        assert np.allclose(boxes.corners[order], want.corners[wanted], atol=1e-3), name
        assert np.array_equal(boxes.classes[order], want.classes[wanted]) and not boxes.crowd.any()
        assert np.allclose(boxes.areas[order], want.areas[wanted], atol=0.1)
    sizes = Samples.open(tmp_path / "models/data").sizes(np.arange(len(SCENES)))
    assert sizes.dtype == np.int32 and sorted(map(tuple, sizes.tolist())) == sorted(size for size, _ in SCENES.values())
    assert manifest.preprocessing["resize"] == "letterbox"


@pytest.mark.parametrize("form", FORMS)
def test_splits_are_the_data_sets_own(form, tmp_path):
    made(form, FORMS[form](tmp_path / "set"), tmp_path)
    names = splits_of(tmp_path)
    assert names["test"] == {f"part{i}" for i in range(18, 24)} and names["validation"] == {f"part{i}" for i in range(14, 18)}
    assert names["train"] | names["calibration"] == {f"part{i:02d}" for i in range(14)} and len(names["calibration"]) in (1, 2)


@pytest.mark.parametrize("form", FORMS)
def test_val_is_the_test_split_where_there_is_no_other(form, tmp_path):
    made(form, FORMS[form](tmp_path / "set", only=("train", "val")), tmp_path)
    assert splits_of(tmp_path)["test"] == {f"part{i}" for i in range(14, 18)}


@pytest.mark.parametrize("form", FORMS)
def test_all_may_be_split_again_by_group(form, tmp_path):
    path = FORMS[form](tmp_path / "set")
    root = path.parent if form == "yolo" else path
    names = [p.relative_to(root).as_posix() for p in sorted(root.rglob("*.png"))]
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"{name},{int(name[-6:-4]) // 2}\n" for name in names))
    manifest, _ = made(form, path, tmp_path, pooled=True, groups=str(tmp_path / "groups.csv"))
    assert manifest.details["groups"] == 12 and manifest.details["groups_in_two_splits"] == 0
    assert all({f"part{int(name[4:]) ^ 1:02d}" for name in mine} == mine for mine in splits_of(tmp_path).values())
    assert len(splits_of(tmp_path)["test"]) in (4, 6)


@pytest.mark.parametrize("form", FORMS)
def test_objects_are_counted_and_pictures_without_any_are_part_of_it(form, tmp_path):
    manifest, _ = made(form, FORMS[form](tmp_path / "set"), tmp_path)
    in_test = [box for i in range(18, 24) for box in SCENES[f"part{i}"][1]]
    assert manifest.details["objects"]["test"] == {name: sum(box[0] == number for box in in_test) for number, name in enumerate(NAMES)}
    assert manifest.details["samples"] == 24 and sum(not len(SCENES[name][1]) for name in SCENES) == 4
    told = {"pictures without a file of labels, taken as pictures without objects"} if form == "yolo" else set()
    assert set(manifest.details["problems"]) == told


@pytest.mark.parametrize("form", FORMS)
def test_pictures_alone(form, tmp_path):
    path = FORMS[form](tmp_path / "set")
    module = MODULES[form]
    assert module.probe(build(module.Settings, {"path": str(path), "targets": "none"}, "data"))["targets"] == "none"
    manifest, found = made(form, path, tmp_path, targets="none")
    assert manifest.labels == () and set(found.values()) == {None} and manifest.details["problems"] == {}


@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_masks_are_drawn_from_outlines(form, tmp_path):
    path = write_yolo(tmp_path / "set", outlines=True) if form == "yolo" else write_coco(tmp_path / "set")
    manifest, found = made(form, path, tmp_path, targets="masks")
    assert manifest.labels == ("background", *NAMES)
    for name, mask in found.items():
        want = class_map(name)
        assert mask.shape == want.shape
        assert (mask[1:] == want[1:]).mean() > 0.96, "only edges, and which of two objects lies above, may differ"


def test_the_classes_may_be_those_of_a_model(tmp_path):
    (tmp_path / "names.txt").write_text("screw\nwasher\nbolt\nspring\nnut\n")
    manifest, found = made("coco", write_coco(tmp_path / "set"), tmp_path, label_names=str(tmp_path / "names.txt"))
    assert manifest.labels == ("screw", "washer", "bolt", "spring", "nut")
    assert {name: sorted(boxes.classes.tolist()) for name, boxes in found.items()} == {
        name: sorted((2, 4, 1)[box[0]] for box in boxes) for name, (_, boxes) in SCENES.items()
    }


def test_a_detector_may_know_one_class_alone(tmp_path):
    (tmp_path / "names.txt").write_text("part\n")
    path = write_yolo(tmp_path / "set", names=["part"])
    for label in path.parent.rglob("part*.txt"):
        label.write_text("".join(f"0{line[1:]}\n" for line in label.read_text().splitlines()))
    assert made("yolo", path, tmp_path, label_names=str(tmp_path / "names.txt"))[0].labels == ("part",)


@pytest.mark.parametrize("form", FORMS)
def test_the_probe_follows_pictures_and_labels(form, tmp_path):
    path, module = FORMS[form](tmp_path / "set"), MODULES[form]
    settings = build(module.Settings, {"path": str(path)}, "data")
    seen = [module.probe(settings)["digest"], module.probe(settings)["digest"]]
    root = path.parent if form == "yolo" else path
    label = next(p for suffix in ("*.txt", "*.xml", "instances_train.json") for p in sorted(root.rglob(suffix)) if p.parent.name != "Main")
    label.write_text(label.read_text() + "\n")
    seen.append(module.probe(settings)["digest"])
    picture = next(iter(root.rglob("*.png")))
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert seen[0] == seen[1] and len({*seen, module.probe(settings)["digest"]}) == 3


BAD_LINES = """0 0.5 0.5 0.2 0.2
1 0.95 0.5 0.4 0.4
2 0.5 0.5 0.0 0.2
0 1.5 1.5 0.2 0.2
7 0.5 0.5 0.1 0.1
1 0.1 0.1 0.2 0.1 0.2 0.2
"""


def test_what_is_wrong_with_boxes_is_counted_and_named(tmp_path):
    path = write_yolo(tmp_path / "set")
    (path.parent / "labels/train/part00.txt").write_text(BAD_LINES)
    manifest, found = made("yolo", path, tmp_path)
    problems = {what: (entry["count"], entry["named"]) for what, entry in manifest.details["problems"].items()}
    name = "images/train/part00.png"
    assert problems[objects.CUT] == problems[objects.FLAT] == problems[objects.OUTSIDE] == (1, [name])
    assert problems[objects.UNKNOWN] == (1, [f"{name} (class 7)"])
    assert any(note == f"1 boxes of no area, left out: {name}" for note in manifest.details["notes"])
    boxes = found["part00"]
    assert np.allclose(boxes.corners, [[24, 16, 36, 24], [45, 12, 60, 28], [6, 4, 12, 8]], atol=1e-3)
    assert boxes.classes.tolist() == [0, 1, 1] and np.allclose(boxes.areas, [96, 240, 12], atol=1e-3)


def test_labels_of_another_data_set(tmp_path):
    path = write_yolo(tmp_path / "set", names=["bolt"])
    with pytest.raises(
        DataError, match=r"20 of 28 objects have a class that is not among the 1 names, such as 1, 2; are these the labels of"
    ):
        read("yolo", path)
    folder = write_voc(tmp_path / "voc")
    with pytest.raises(DataError, match="not among the 2 names, such as nut, washer; are these"):
        read("voc", folder, classes=["bolt", "gear"])


def yolo_set(tmp_path: Path, **more) -> Path:
    return write_yolo(tmp_path / "set", **more)


def spoiled(path: Path, content: str) -> Path:
    path.write_text(content)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: spoiled(p / "data.yaml", ""), "data.yaml: empty; a dataset yaml has `train`, `val`"),
        (lambda p: spoiled(p / "data.yaml", "- a\n"), "data.yaml: a list; a dataset yaml has"),
        (lambda p: spoiled(p / "data.yaml", "a: [b\n"), "data.yaml: while parsing .*; a dataset yaml has"),
        (lambda p: p / "absent.yaml", "absent.yaml: No such file or directory; a dataset yaml has"),
        (lambda p: yolo_set(p, names=None), "names: None; list the classes, or give a mapping of numbers to names"),
        (lambda p: yolo_set(p, names={0: "bolt", 2: "nut"}), "names: no name for class 1; number the 2 names from 0"),
        (lambda p: yolo_set(p, nc=4), "nc: 4 classes, but 3 names; make them the same"),
        (lambda p: yolo_set(p, train="pictures/train"), r"train: 'pictures/train' is not there \(.*set/pictures/train\); correct it, or"),
        (lambda p: yolo_set(p, train=None), "has no `train`, from which the calibration split is taken; set data.pooled=true"),
        (lambda p: yolo_set(p, train=None, val=None, test=None), "names no pictures; a dataset yaml has"),
    ],
)
def test_wrong_dataset_yamls(tmp_path, make, message):
    path = make(tmp_path)
    with pytest.raises(DataError, match=message):
        read("yolo", path)


def test_labels_in_pixels_are_told_from_what_was_left_out(tmp_path):
    path = write_yolo(tmp_path / "set")
    for file in (tmp_path / "set/labels").rglob("*.txt"):
        file.write_text("0 30 20 10 10\n")
    message = r"24 pictures without any object \(20 boxes outside of their picture, left out; .*yolo: shares of the sides"
    with pytest.raises(DataError, match=message):
        prepare(plugin("yolo", path=str(path)), tmp_path)


def test_outlines_of_two_points_alone_leave_no_mask(tmp_path):
    folder = write_coco(tmp_path / "set")
    for file in (folder / "annotations").glob("*.json"):
        content = json.loads(file.read_text())
        content["annotations"] = [{**entry, "segmentation": [[1, 1, 9, 9]]} for entry in content["annotations"]]
        file.write_text(json.dumps(content))
    message = r"all pixels of 24 masks are background \(28 outlines of fewer than 3 points, left out\); two classes or more"
    with pytest.raises(DataError, match=message):
        prepare(plugin("coco", path=str(folder), targets="masks"), tmp_path)


def test_xml_cut_short_is_told_where_no_file_can_be_read(tmp_path):
    folder = write_voc(tmp_path / "set")
    for file in (folder / "Annotations").glob("*.xml"):
        file.write_text(file.read_text()[:60])
    with pytest.raises(DataError, match=r"no object in any of its XML files \(Annotations/part00\.xml is not XML: unclosed token"):
        prepare(plugin("voc", path=str(folder)), tmp_path)


def test_a_folder_of_labels_that_is_not_there(tmp_path):
    with pytest.raises(
        DataError, match=r"none of the 24 pictures has a file of labels: part00.png should have .*/outlines/train/part00.txt"
    ):
        read("yolo", write_yolo(tmp_path / "set"), labels="outlines")


def test_where_a_yaml_may_say_that_pictures_are(tmp_path):
    path = write_yolo(tmp_path / "set")
    names = [item.name for item in read("yolo", path)]
    (path.parent / "train.txt").write_text("".join(f"./images/train/part{i:02d}.png\n" for i in range(14)))
    for more in ({"path": "/elsewhere"}, {"path": None, "val": "../images/val"}, {"train": "train.txt"}, {"val": ["images/val"]}):
        content = yaml.safe_load(path.read_text()) | more
        other = path.with_name("other.yaml")
        other.write_text(yaml.safe_dump(content))
        assert [item.name for item in read("yolo", other)] == names, more


@pytest.mark.parametrize(
    "line", ["bolt 0.5 0.5 0.1 0.1", "0 0.5 0.5 0.1", "0 0.1 0.1 0.2 0.2 0.3", "0 nan 0.5 0.1 0.1", "0.5 0.5 0.5 0.1 0.1"]
)
def test_a_line_that_is_no_label(tmp_path, line):
    path = write_yolo(tmp_path / "set")
    (path.parent / "labels/train/part00.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    (bad,) = [item for item in read("yolo", path) if isinstance(item, Unreadable)]
    assert bad.name == "images/train/part00.png" and bad.reason.startswith("part00.txt, line 2: ")
    with pytest.raises(DataError, match=r"1 of 24 pictures cannot be read \(images/train/part00.png: part00.txt, line 2"):
        read("yolo", path, max_unreadable_share=0.01)


def test_labels_beside_their_pictures(tmp_path):
    path = write_yolo(tmp_path / "images/set")
    for label in path.parent.rglob("part*.txt"):
        label.rename(path.parent / "images" / label.parent.name / label.name)
    (path.parent / "images").rename(path.parent / "photos")
    path.write_text(path.read_text().replace("images/", "photos/"))
    _, found = made("yolo", path, tmp_path)
    assert all(len(boxes) == len(SCENES[name][1]) for name, boxes in found.items())


def test_all_of_train_may_be_the_calibration(tmp_path):
    made("yolo", write_yolo(tmp_path / "set"), tmp_path, splits={"validation": 0, "calibration": 1, "test": 0})
    names = splits_of(tmp_path)
    assert len(names["calibration"]) == 14 and not names["train"] and len(names["test"]) == 6 and len(names["validation"]) == 4


@pytest.mark.parametrize(("form", "targets"), [("yolo", "boxes"), ("coco", "masks")])
def test_the_same_files_give_the_same_bytes(form, targets, tmp_path, monkeypatch):
    path = FORMS[form](tmp_path / "set")
    first, _ = made(form, path, tmp_path / "a", targets=targets)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    again, _ = made(form, path, tmp_path / "b", targets=targets)
    assert (
        first == again
        and (tmp_path / "a/models/data/manifest.json").read_bytes() == (tmp_path / "b/models/data/manifest.json").read_bytes()
    )


def test_keypoints_after_a_box_are_no_outline(tmp_path):
    path = write_yolo(tmp_path / "set", kpt_shape=[3, 2])
    for label in path.parent.rglob("part*.txt"):
        label.write_text("".join(f"{line} 0.1 0.1 0.9 0.9 0.5 0.5\n" for line in label.read_text().splitlines()))
    _, found = made("yolo", path, tmp_path)
    assert all(len(boxes) == len(SCENES[name][1]) for name, boxes in found.items())
    assert np.allclose(found["part00"].corners, expected("part00").corners, atol=1e-3)


def changed(folder: Path, split: str, change) -> Path:
    path = folder / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return folder


def test_crowds_areas_and_run_lengths_of_coco(tmp_path):
    """An outline of two parts, a crowd as run lengths, an area that is less than its box, an annotation of a picture that is not listed."""
    region = np.zeros(SCENES["part00"][0], bool)
    region[4:20, 30:50] = True
    runs = np.diff(np.flatnonzero(np.diff(np.r_[-1, region.T.ravel().astype(int), -1])), prepend=0).tolist()[1:]

    def change(content):
        content["annotations"][0] |= {"segmentation": [[2, 5, 12, 5, 12, 25, 2, 25], [14, 5, 22, 5, 14, 25]], "area": 280.5}
        crowd = {"bbox": [30, 4, 20, 16], "iscrowd": 1, "segmentation": {"counts": runs, "size": list(region.shape)}, "area": 320}
        content["annotations"].append(coco_entry(90, 0, (2, 0, 0, 1, 1), (3, 17, 90)) | crowd)
        content["annotations"].append(coco_entry(91, 777, (2, 0, 0, 1, 1), (3, 17, 90)))

    folder = changed(write_coco(tmp_path / "set"), "train", change)
    manifest, found = made("coco", folder, tmp_path)
    boxes = found["part00"]
    assert boxes.crowd.tolist() == [False, True] and boxes.areas.tolist() == [280.5, 320.0] and boxes.classes.tolist() == [0, 2]
    assert manifest.details["problems"] == {coco.STRAY: {"count": 1, "named": ["instances_train.json: 777"]}}
    _, masks = made("coco", folder, tmp_path, targets="masks")
    mask = masks["part00"]
    assert (mask[region] == 3).all() and mask[10, 5] == 1 and mask[10, 13] == 0 and mask[22, 20] == 0


def test_a_polygon_of_two_points_is_left_out_and_told(tmp_path):
    def change(content):
        content["annotations"][0]["segmentation"] = [[2, 5, 22, 25]]

    folder = changed(write_coco(tmp_path / "set"), "train", change)
    manifest, found = made("coco", folder, tmp_path)
    assert manifest.details["problems"][objects.SHORT] == {"count": 1, "named": ["train/part00.png"]}
    assert found["part00"] == expected("part00")
    _, masks = made("coco", folder, tmp_path, targets="masks")
    assert not masks["part00"].any()


def test_pictures_that_are_not_where_they_are_sought(tmp_path):
    folder = write_coco(tmp_path / "set")
    (folder / "train").rename(folder / "photos")
    with pytest.raises(
        DataError, match=r"data.pictures: .*instances_train.json: part00.png is in none of .*set/train, .*; name the folder"
    ):
        read("coco", folder)


def test_annotations_of_pictures_of_another_size(tmp_path):
    folder = changed(write_coco(tmp_path / "set"), "train", lambda content: content["images"][3].update(width=61))
    (bad,) = [item for item in read("coco", folder) if isinstance(item, Unreadable)]
    assert bad == Unreadable("train/part03.png", "the annotations are for 61x43 pixels, the picture has 60x43")
    path = write_voc(tmp_path / "voc")
    (path / "Annotations/part03.xml").write_text(voc_file(43, 61, ()))
    (bad,) = [item for item in read("voc", path) if isinstance(item, Unreadable)]
    assert bad.reason == "Annotations/part03.xml: for 61x43 pixels, the picture has 60x43"


@pytest.mark.parametrize(("difficult", "crowd", "count"), [("crowd", [True], 1), ("keep", [False], 1), ("drop", [], 0)])
def test_difficult_objects_of_voc(tmp_path, difficult, crowd, count):
    folder = write_voc(tmp_path / "set")
    (folder / "Annotations/part00.xml").write_text(voc_file(*SCENES["part00"][0], SCENES["part00"][1], difficult=1))
    _, found = made("voc", folder, tmp_path, difficult=difficult)
    assert found["part00"].crowd.tolist() == crowd and len(found["part00"]) == count


def test_a_box_of_voc_that_ends_where_it_begins_has_no_area(tmp_path):
    folder = write_voc(tmp_path / "set")
    (folder / "Annotations/part00.xml").write_text(voc_file(*SCENES["part00"][0], [(0, 4, 4, 5, 20), (1, 0, 0, 60, 40)]))
    manifest, found = made("voc", folder, tmp_path)
    assert manifest.details["problems"][objects.FLAT]["count"] == 1 and found["part00"].corners.tolist() == [[0, 0, 60, 40]]


@pytest.mark.parametrize("form", FORMS)
def test_pictures_that_cannot_be_read_are_counted_and_named(form, tmp_path):
    path = FORMS[form](tmp_path / "set")
    root = path.parent if form == "yolo" else path
    victim = next(p for p in root.rglob("part03.png"))
    victim.write_text("text")
    manifest, found = made(form, path, tmp_path)
    assert "part03" not in found and manifest.details["unreadable"]["count"] == 1
    assert list(manifest.details["unreadable"]["named"].values()) == ["not a picture format that Pillow can read"]


def test_run_lengths_are_those_of_pycocotools():
    masks = pytest.importorskip("pycocotools.mask", reason="it is the oracle")
    rng = np.random.default_rng(0)
    for size in ((7, 5), (40, 60), (200, 300)):
        smooth = np.asarray(Image.fromarray(rng.random((6, 6)).astype(np.float32)).resize(size[::-1], Image.Resampling.BICUBIC))
        for region in (rng.random(size) > 0.5, smooth > 0.5, np.zeros(size, bool), np.ones(size, bool)):
            text = masks.encode(np.asfortranarray(region.astype(np.uint8)))["counts"].decode()
            assert np.array_equal(coco.decode_text(text, size, size), region)


@pytest.mark.parametrize(
    ("counts", "shape", "message"),
    [
        ([5, 5], (3, 3), "2 runs of 10 pixels for 9"),
        ([-1, 10], (3, 3), "2 runs of 9 pixels for 9"),
        ([9], (3, 4), r"a region of \[3, 4\] for"),
    ],
)
def test_run_lengths_that_do_not_fit(counts, shape, message):
    with pytest.raises(ValueError, match=message):
        coco.decode_counts(counts, shape, (3, 3))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_outlines_are_drawn_as_pycocotools_does():
    masks = pytest.importorskip("pycocotools.mask", reason="it is the oracle")
    rng, size = np.random.default_rng(0), (120, 160)
    for _ in range(20):
        angles = (np.arange(12) + rng.uniform(0, 0.9, 12)) * np.pi / 6
        points = np.stack([80 + rng.uniform(20, 70, 12) * np.cos(angles), 60 + rng.uniform(20, 50, 12) * np.sin(angles)], 1)
        theirs = masks.decode(masks.merge(masks.frPyObjects([points.ravel().tolist()], *size))).astype(bool)
        ours = objects.fill(points, size)
        assert (ours & theirs).sum() / (ours | theirs).sum() > 0.99
        assert Shape.of_polygons(0, [points]).area == pytest.approx(ours.sum(), rel=0.02)


def test_ignored_pixels_are_no_class():
    assert class_map("part00")[0, 0] == IGNORED
