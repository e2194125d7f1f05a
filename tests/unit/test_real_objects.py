"""Real sets beside the checkout: every object and every pixel, counted by a plain script from the files alone."""

import re
from collections import Counter

import numpy as np
import yaml
from PIL import Image

from edgewise.artifacts.samples import Samples
from tests.unit.test_prepare_data import plugin, prepare

TRAINING = ("train", "validation", "calibration")  # what becomes of train where there is no other validation


def count(details, key: str, splits: tuple[str, ...]) -> Counter:
    return sum((Counter(details[key][split]) for split in splits), Counter())


def test_coco128(shared_data, tmp_path):
    """Its folder of labels has two files for pictures that are not there, and lacks two."""
    root = shared_data / "coco128"
    manifest = prepare(plugin("yolo", path=str(root / "data.yaml"), image_size=32), tmp_path)
    names = yaml.safe_load((root / "data.yaml").read_text())["names"]

    def objects(split: str) -> Counter:
        paths = [path for path in (root / "labels" / split).iterdir() if (root / "images" / split / f"{path.stem}.jpg").exists()]
        return Counter(names[int(line.split()[0])] for path in paths for line in path.read_text().splitlines())

    details = manifest.details
    assert details["sizes"]["test"] == 128 and details["samples"] == 256 and manifest.labels == tuple(names.values())
    assert count(details, "objects", ("test",)) == objects("val2017") and objects("val2017").total() == 898
    assert count(details, "objects", TRAINING) == objects("train2017") and objects("train2017").total() == 929
    assert {what: entry["count"] for what, entry in details["problems"].items()} == {
        "pictures without a file of labels, taken as pictures without objects": 2
    }


def test_bccd(shared_data, tmp_path):
    """Cells are darker than what is between them: an independent look at whether boxes are where the pictures show something."""
    root = shared_data / "bccd"
    settings = {"image_size": [480, 640], "channels": 1, "resize": "stretch"}
    manifest = prepare(plugin("voc", path=str(root), **settings), tmp_path)
    details, samples = manifest.details, Samples.open(tmp_path / "models/data")

    def objects(split: str) -> Counter:
        texts = ((root / f"Annotations/{name}.xml").read_text() for name in (root / f"ImageSets/Main/{split}.txt").read_text().split())
        return Counter(name for text in texts for name in re.findall(r"<object>\s*<name>(\w+)</name>", text))

    assert manifest.labels == ("Platelets", "RBC", "WBC") and details["samples"] == 364
    assert count(details, "objects", ("test",)) == objects("test")
    lost = objects("train") + objects("val") - count(details, "objects", TRAINING)
    assert lost == Counter(RBC=2) and details["problems"] == {
        "boxes of no area, left out": {
            "count": 2,
            "named": ["JPEGImages/BloodImage_00343.jpg", "JPEGImages/BloodImage_00338.jpg"],
        }
    }
    test = samples.indices("test")[:20]
    darker = []
    for picture, boxes in zip(samples.raw(test)["image"][..., 0], samples.targets(test), strict=True):
        inside = np.zeros(picture.shape, bool)
        for x0, y0, x1, y1 in np.rint(boxes.corners).astype(int).tolist():
            inside[y0:y1, x0:x1] = True
        darker.append(picture[inside].mean() < picture[~inside].mean())
    assert np.mean(darker) > 0.9 and samples.sizes(test).tolist() == [[480, 640]] * 20


def test_camvid(shared_data, tmp_path):
    root = shared_data / "camvid"
    manifest = prepare(plugin("masks", path=str(root), image_size=[18, 24], ignore=[11]), tmp_path)

    def pixels(split: str) -> list[int]:
        counts = [np.bincount(np.asarray(Image.open(path)).ravel(), minlength=12)[:11] for path in (root / "masks" / split).iterdir()]
        return np.sum(counts, axis=0).tolist()

    details = manifest.details
    assert details["samples"] == 701 and details["sizes"]["test"] == len(list((root / "images/test").iterdir())) == 233
    for ours, theirs in ((("test",), "test"), (("validation",), "val"), (("train", "calibration"), "train")):
        assert list(count(details, "pixels", ours).values()) == pixels(theirs)
    assert details["problems"] == {} and manifest.labels == tuple(map(str, range(11)))
