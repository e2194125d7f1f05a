"""One bad file, line or entry of a data set of pictures with objects costs its picture alone; a list or a set that is none is named."""

import numpy as np
import pytest
import yaml

from edgewise.data import coco, objects
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Item, Unreadable
from tests.support.object_sets import voc_file, write_coco, write_voc, write_yolo
from tests.unit.test_objects import changed, made, read, spoiled


@pytest.mark.parametrize("box", [[None, 1, 2, 3], ["a", 1, 2, 3], [1, 2, 3], None, {"x": 1}, "1234", [[1], 2, 3, 4]])
def test_one_box_of_coco_that_is_none_costs_its_picture_alone(tmp_path, box):
    folder = changed(write_coco(tmp_path / "set"), "train", lambda content: content["annotations"][0].update(bbox=box))
    (bad,) = [item for item in read("coco", folder) if isinstance(item, Unreadable)]
    assert bad.reason.endswith(f"bbox: {box!r} must be x, y, width, height")


@pytest.mark.parametrize(("field", "problem"), [("image_id", coco.STRAY), ("category_id", objects.UNKNOWN)])
def test_a_number_of_an_annotation_of_coco_that_is_a_list_costs_it_alone(tmp_path, field, problem):
    folder = changed(write_coco(tmp_path / "set"), "train", lambda content: content["annotations"][0].update({field: [1]}))
    found = [what for item in read("coco", folder, max_unreadable_share=1.0) if isinstance(item, Item) for what, _ in item.problems]
    assert found == [problem]


@pytest.mark.parametrize("section", ["images", "categories"])
def test_a_number_of_coco_that_is_a_list_stops_no_other(tmp_path, section):
    folder = changed(write_coco(tmp_path / "set"), "train", lambda content: content[section][0].update(id=[1]))
    assert len([item for item in read("coco", folder) if isinstance(item, Item)]) == 24


@pytest.mark.parametrize("area", [float("nan"), float("inf"), -4.0, 10**400], ids=["nan", "inf", "negative", "huge"])
def test_an_area_of_coco_that_is_none_is_that_of_the_box(tmp_path, area):
    folder = changed(write_coco(tmp_path / "set"), "train", lambda content: content["annotations"][0].update(area=area))
    areas = np.concatenate([item.label.areas for item in read("coco", folder) if isinstance(item, Item)])
    assert np.isfinite(areas).all() and (areas > 0).all()


@pytest.mark.parametrize(
    "content",
    ['<?xml version="1.0" encoding="nonsense"?><annotation/>', '<?xml version="1.0" encoding="gb2312"?><annotation/>', "<annotation>"],
)
def test_one_annotation_of_voc_that_cannot_be_read_costs_its_picture_alone(tmp_path, content):
    folder = write_voc(tmp_path / "set")
    (folder / "Annotations/part00.xml").write_text(content)
    (bad,) = [item for item in read("voc", folder) if isinstance(item, Unreadable)]
    assert bad.name.endswith("part00.png") and bad.reason.startswith("Annotations/part00.xml is not XML: ")


def test_a_size_of_voc_that_is_no_number_costs_its_picture_alone(tmp_path):
    folder = write_voc(tmp_path / "set")
    path = folder / "Annotations/part00.xml"
    path.write_text(path.read_text().replace("<width>60</width>", "<width>inf</width>"))
    assert [item.name[-10:] for item in read("voc", folder) if isinstance(item, Unreadable)] == ["part00.png"]


def test_a_file_of_labels_that_cannot_be_read_costs_its_picture_alone(tmp_path):
    path = write_yolo(tmp_path / "set")
    label = path.parent / "labels/train/part00.txt"
    label.unlink()
    label.mkdir()
    (bad,) = [item for item in read("yolo", path) if isinstance(item, Unreadable)]
    assert (bad.name, bad.reason) == ("images/train/part00.png", "part00.txt: Is a directory")


def test_lists_of_names_that_are_no_utf_8_are_named(tmp_path):
    folder = write_voc(tmp_path / "voc")
    (folder / "ImageSets/Main/train.txt").write_bytes("größe\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"train.txt: not UTF-8 at byte 2; give a text file with a name in each line"):
        read("voc", folder)
    path = write_yolo(tmp_path / "yolo")
    (path.parent / "train.txt").write_bytes("größe.png\n".encode("latin-1"))
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"train": "train.txt"}))
    with pytest.raises(DataError, match=r"train.txt: not UTF-8 at byte 2"):
        read("yolo", path)


def test_a_data_set_of_which_no_picture_can_be_read_is_refused(tmp_path):
    path = write_yolo(tmp_path / "set")
    for picture in path.parent.rglob("*.png"):
        picture.write_text("text")
    with pytest.raises(DataError, match=r"^data: 0 pictures without any object"):
        made("yolo", path, tmp_path, max_unreadable_share=1.0)


def test_wrong_voc_sets(tmp_path):
    folder = write_voc(tmp_path / "set")
    for name, content in (("part00", "<annotation>"), ("part01", voc_file(41, 60, ()).replace("</size>", "</size><object/>"))):
        (folder / f"Annotations/{name}.xml").write_text(content)
    (folder / "Annotations/part02.xml").unlink()
    reasons = {item.name[-10:-4]: item.reason for item in read("voc", folder, max_unreadable_share=0.2) if isinstance(item, Unreadable)}
    assert reasons["part00"].startswith("Annotations/part00.xml is not XML: no element found")
    assert reasons["part01"] == "Annotations/part01.xml: an <object> without <name>"
    assert reasons["part02"] == "Annotations/part02.xml: No such file or directory"
    (folder / "ImageSets/Main/test.txt").write_text("part00\n")
    with pytest.raises(DataError, match=r"part00 is in test.txt and in another list of ImageSets/Main/; keep one of them"):
        read("voc", folder)
    with pytest.raises(DataError, match="no XML files in Annotations/; the folder must hold JPEGImages/"):
        read("voc", tmp_path)
    with pytest.raises(ConfigError, match=r"data.targets: 'masks'; allowed: boxes, none"):
        read("voc", folder, targets="masks")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.json", "absent.json: No such file or directory; give a JSON file with images"),
        (lambda p: spoiled(p / "x.json", "[1, 2"), "x.json is not JSON: .*; give a JSON file"),
        (lambda p: spoiled(p / "x.json", '{"images": [], "categories": {}}'), "has no list of annotations and categories; give"),
        (lambda p: spoiled(p / "x.json", "[" * 100_000), "x.json is not JSON: .*; give a JSON file"),
        (lambda p: p, "no JSON files; give a JSON file with images"),
        (lambda p: changed(write_coco(p / "set"), "train", lambda c: c["images"][2].pop("id")), r"images\[2\] lacks id or file_name; give"),
        (
            lambda p: changed(write_coco(p / "set"), "val", lambda c: c["annotations"].append("x")),
            r"annotations\[\d+\] is a str and no mapping",
        ),
        (
            lambda p: changed(write_coco(p / "set"), "val", lambda c: c["categories"].insert(0, None)),
            r"categories\[0\] is a NoneType and no",
        ),
        (lambda p: changed(write_coco(p / "set"), "train", lambda c: c["images"].clear()), "instances_train.json: images: empty; give"),
        (lambda p: write_coco(p / "set", only=("val", "test")), "instances_val.json: none is named after train, .* set data.pooled=true"),
        (
            lambda p: changed(write_coco(p / "set"), "val", lambda c: c["categories"][0].update(name="screw")),
            "instances_val.json: category 90 is 'screw', in another file 'washer'; give files that agree",
        ),
    ],
)
def test_wrong_coco_sets(tmp_path, make, message):
    with pytest.raises(DataError, match=message):
        read("coco", make(tmp_path))
