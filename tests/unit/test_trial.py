"""Wrong preprocessing of a model that the user brings is recognized, and the right one named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.agent import preprocess
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data.encoders import PictureSettings
from edgewise.errors import ModelError
from edgewise.sources import imported, trial
from edgewise.sources.oracle import Oracle, fit_ports

pytestmark = pytest.mark.framework

WRONG = {  # settings of the data section, the right one in the message
    "resnet8": [
        {},
        {"range": [0, 1]},
        {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        {"range": [0, 255], "channel_order": "bgr"},
        {"range": [255, 0]},
        {"range": [1, 0]},
        {"range": [-128, 127]},
        {"range": [0, 255], "mean": [103.939, 116.779, 123.68], "channel_order": "bgr"},
        {"channels_last": False},
        {"image_size": 64},
        {"channels": 1},
    ],
    "mnist": [
        {"range": [255, 0]},
        {"range": [1, 0]},
        {"range": [1, -1]},
        {"range": [0, -1]},
        {"range": [128, -127]},
        {"range": [255, 0], "mean": [127.5], "std": [127.5]},
        {"range": [0, 255], "mean": [255]},
        {"range": [0, 1], "mean": [1]},
        {"channels_last": True},
        {"image_size": 32},
        {"channels": 3},
    ],
}
RIGHT = {"resnet8": {"image_size": 32, "channels_last": True}, "mnist": {"image_size": 28, "channels": 1}}
FOLDER = {"resnet8": "cifar10_test", "mnist": "mnist_test"}


def write(folder: Path, images: np.ndarray, targets: np.ndarray, labels: tuple[str, ...], settings: dict, train: int) -> Path:
    """models/data: the first `train` samples to look at, the others for the test. images: uint8 [n, h, w, c]."""
    spec = build(PictureSettings, settings, "data").spec
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/image.npy", np.stack([preprocess.resize_to_spec(image, spec) for image in images]))
    np.save(folder / "targets.npy", targets)
    order = [int(i) for i in np.random.default_rng(1).permutation(len(targets))]
    splits = {"train": order[: train // 2], "validation": [], "calibration": order[train // 2 : train], "test": order[train:]}
    (folder / "splits.json").write_text(json.dumps(splits))
    sides, channels = spec["size"], spec["channels"]
    shape = (None, *sides, channels) if spec["layout"] == "NHWC" else (None, channels, *sides)
    image = Port("image", shape, spec["dtype"], spec["layout"], "image")
    artifact.write(folder, Manifest("data", inputs=(image,), preprocessing=spec, labels=labels))
    return folder


@pytest.fixture(scope="module")
def real() -> dict[str, tuple]:
    """Pictures and targets by model."""
    from tests.conftest import SHARED_DATA

    found = {}
    for name, folder in FOLDER.items():
        files = sorted((SHARED_DATA / folder).glob("*/*"))
        if not files:
            pytest.skip(f"{folder} is not in the folder shared/data beside the checkout")
        labels = tuple(sorted({file.parent.name for file in files}))
        found[name] = [preprocess.decode_picture(str(f)) for f in files], np.array([labels.index(f.parent.name) for f in files]), labels
    return found


@pytest.fixture(scope="module")
def models() -> dict[str, Any]:
    """The session of each."""
    from edgewise.sources import onnx_file, tflite_file
    from tests.conftest import SHARED_DATA

    return {
        "mnist": onnx_file.FileSession(SHARED_DATA / "pretrained/mnist/mnist.onnx"),
        "resnet8": tflite_file.FileSession(SHARED_DATA / "pretrained/mlperf_tiny/pretrainedResnet.tflite"),
    }


def verdict(session: Any, data: Path) -> str | None:
    """What the user is told: that the shapes do not fit, or what the trial found."""
    samples = Samples.open(data)
    try:
        fit = fit_ports("mine", imported.Settings(path="mine"), session, artifact.read(data), imported.make_probe(samples))
    except ModelError as error:
        return str(error)
    oracle = Oracle(session, fit)
    found = trial.try_preprocessing(oracle.run, samples, "logits")
    assert found is not None
    return found.warning


def setting(settings: dict, name: str) -> str:
    """The message in which the right way must be named: what is asked for where the shapes differ, else the range."""
    shaped = {"channels_last": "data.channels_last=", "image_size": "data.image_size=", "channels": "data.channels="}
    asked = next((f"{words}{str(RIGHT[name].get(key, False)).lower()}" for key, words in shaped.items() if key in settings), None)
    return asked.replace("channels=false", "channels=3") if asked else "with data.range=[0,255]: "


@pytest.mark.parametrize("name", WRONG)
def test_ten_wrong_ways_are_recognized_and_the_right_one_named(name, real, models, tmp_path):
    named = []
    for number, wrong in enumerate(WRONG[name]):
        found = verdict(models[name], write(tmp_path / str(number), *real[name], {**RIGHT[name], **wrong}, 800)) or ""
        if setting(wrong, name) in found:
            named.append(wrong)
    assert len(named) >= 10, named
    right = write(tmp_path / "right", *real[name], {**RIGHT[name], "range": [0, 255]}, 800)
    assert verdict(models[name], right) is None


def toy(order: np.ndarray):
    """Classes by brightness; the model wants raw bytes, and numbers its classes in `order`."""
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 4, 600)
    images = (targets[:, None, None, None] * 60 + rng.integers(0, 40, (600, 8, 8, 1))).astype(np.uint8)

    def score(feeds):
        logits = -np.abs(feeds["image"].mean((1, 2, 3))[:, None] - (np.arange(4) * 60 + 20)[None])
        return {"logits": logits[:, order]}

    return images, targets, ("a", "b", "c", "d"), score


def test_the_test_split_is_never_looked_at(tmp_path):
    images, targets, labels, score = toy(np.arange(4))
    data = write(tmp_path / "data", images, targets, labels, {"channels": 1, "image_size": 8}, 300)
    samples = Samples.open(data)
    held = samples.raw(samples.indices("test"))["image"].tobytes()
    seen: set[bytes] = set()

    def watched(feeds):
        seen.update(np.rint(picture * 127.5 + 127.5).astype(np.uint8).tobytes() for picture in feeds["image"])
        return score(feeds)

    found = trial.try_preprocessing(watched, samples, "logits")
    assert found.samples == 100 and "data.range=[0,255]" in found.warning
    assert not [picture for picture in seen if picture in held]


def test_another_order_of_the_classes_is_told(tmp_path):
    images, targets, labels, score = toy(np.array([1, 2, 3, 0]))
    data = write(tmp_path / "data", images, targets, labels, {"channels": 1, "image_size": 8, "range": [0, 255]}, 300)
    assert (
        "with its classes in another order it would be correct on 100: check that the classes"
        in trial.try_preprocessing(score, Samples.open(data), "logits").warning
    )


def test_a_model_that_knows_nothing_is_told(tmp_path):
    images, targets, labels, _ = toy(np.arange(4))
    rng = np.random.default_rng(5)
    data = write(tmp_path / "data", images, targets, labels, {"channels": 1, "image_size": 8}, 300)
    found = trial.try_preprocessing(lambda feeds: {"logits": rng.random((len(feeds["image"]), 4))}, Samples.open(data), "logits")
    assert "no better than chance" in found.warning and "no common preprocessing helps" in found.warning


def test_ways_leave_out_what_is_set():
    spec = build(PictureSettings, {"range": [0, 255]}, "data").spec
    told = [words for words, _ in trial.alternatives(spec)]
    assert "data.range=[0,255]" not in told and "data.range=[0,255] data.channel_order=bgr" in told
    assert all("bgr" not in words for words, _ in trial.alternatives(build(PictureSettings, {"channels": 1}, "data").spec))
    for words, way in trial.alternatives(spec):
        settings = {
            k.removeprefix("data."): json.loads(v) if v.startswith("[") else v for k, _, v in (w.partition("=") for w in words.split())
        }
        made = build(PictureSettings, settings, "data").spec
        assert all(np.allclose(made[key], way[key]) for key in ("scale", "mean", "std")) and made["order"] == way["order"]
