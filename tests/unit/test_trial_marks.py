"""Boxes and masks tell of a wrong preprocessing, too: toy models that read the values of pixels, and what is said of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.sources import onnx_file, trial
from edgewise.sources.trial import Areas, Located, choose_marks
from tests.support import object_sets
from tests.support.onnx_sources import model, node, normal
from tests.unit.test_prepare_data import plugin, prepare

Arrays = dict[str, np.ndarray]
SIDE = 64


def locate(feeds: Arrays) -> Arrays:
    """The parts of object_sets by their colours: rows of x0, y0, x1, y1, score, class."""
    rows = np.zeros((len(feeds["image"]), 10, 6), np.float32)
    for made, picture in zip(rows, feeds["image"], strict=True):
        for number, channel in enumerate(picture):
            y, x = np.nonzero(channel > 180)
            if len(x):
                made[number] = x.min(), y.min(), x.max() + 1, y.max() + 1, 0.9, number
    return {"output": rows}


def shade(feeds: Arrays) -> Arrays:
    """The class of each pixel as logits [n, 4, h, w]: the background where no colour is strong."""
    image = feeds["image"]
    return {"logits": np.concatenate([np.full_like(image[:, :1], 150), image], axis=1)}


def samples(kind: str, folder: Path, **settings: Any) -> Samples:
    more = {"classes": ("background", *object_sets.NAMES)} if kind == "masks" else {}
    path = object_sets.WRITERS[kind](folder / "set")
    prepare(plugin(kind, path=str(path), image_size=SIDE, resize="stretch", **more, **settings), folder)
    return Samples.open(folder / "models/data")


@pytest.mark.parametrize(
    ("kind", "model", "said"),
    [("yolo", locate, "the model finds 0% of the objects in 15 pictures with"), ("masks", shade, "the model has a mean IoU of 0.")],
)
def test_a_range_that_does_better_is_named(kind, model, said, tmp_path):
    found = trial.try_preprocessing(model, samples(kind, tmp_path, range=[0, 1]), None)
    assert found.samples == 12 and said in found.warning and "with data.range=[0,255]: it was probably trained that way" in found.warning
    right = trial.try_preprocessing(model, samples(kind, tmp_path / "right", range=[0, 255]), None)
    assert right.warning is None and right.words != found.words


def test_pictures_are_judged_one_by_one(tmp_path):
    """By hand: of pictures without an object nothing is known, and where two of a class touch one of them is lost."""
    made = samples("yolo", tmp_path, range=[0, 255])
    pool = np.concatenate([made.indices("train"), made.indices("validation"), made.indices("calibration")])
    marks = Located(samples=made)
    chosen = marks.select(pool)
    names = [name[-6:-4] for name in made.names(chosen)]
    assert sorted(names) == [f"{number:02d}" for number in range(18) if number % 6 != 5]
    shares = dict(zip(names, marks.of(locate(made.feeds(chosen)), chosen), strict=True))
    assert all(shares[f"{number:02d}"] == 1 for number in (0, 2, 4, 6, 8)) and 0 < np.mean(list(shares.values())) < 1


def test_what_cannot_be_read_says_nothing(tmp_path):
    boxes, masks = samples("yolo", tmp_path / "boxes"), samples("masks", tmp_path / "masks")
    odd = {"embedding": np.zeros((12, 7), np.float32)}
    assert trial.try_preprocessing(lambda feeds: odd, boxes, None) is None is trial.try_preprocessing(lambda feeds: odd, masks, None)
    assert isinstance(choose_marks(boxes, None), Located) and isinstance(choose_marks(masks, None), Areas)


@pytest.mark.framework
@pytest.mark.parametrize("last", ["Sigmoid", "Identity"])
def test_a_map_of_probabilities_is_told_from_one_of_logits(last, tmp_path):
    """Of one channel: a threshold of logits would take every pixel of a sigmoid for the object."""
    onnx = pytest.importorskip("onnx")
    nodes = [node("Conv", ["image", "w"], ["a"], name="conv"), node(last, ["a"], ["map"], name="last")]
    weights = {"w": normal(1, 3, 1, 1, seed=1)}
    onnx.save(model(nodes, {"image": ["batch", 3, SIDE, SIDE]}, {"map": ["batch", 1, SIDE, SIDE]}, weights), tmp_path / "mine.onnx")
    samples("masks", tmp_path, range=[0, 1])
    (tmp_path / "source").mkdir()
    settings = onnx_file.Settings(path=str(tmp_path / "mine.onnx"))
    fields = onnx_file.obtain(settings, tmp_path / "models/data", Train("none"), 0, tmp_path / "source")
    assert [port["meaning"] == "probabilities" for port in fields["outputs"]] == [last == "Sigmoid"]
