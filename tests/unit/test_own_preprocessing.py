"""How a model that the user brings takes its samples: range, channels, crop and dtype of pictures, and the names of its classes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgewise.agent import preprocess
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import common, dataset
from edgewise.data.encoders import PictureSettings
from edgewise.errors import ConfigError, DataError
from tests.unit.test_prepare_data import make_pictures, plugin

pytestmark = pytest.mark.usefixtures("in_tmp_path")

PICTURE = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), np.uint8)


def fed(**settings) -> np.ndarray:
    return preprocess.normalize(PICTURE, build(PictureSettings, {"channels_last": True, **settings}, "data").spec)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, PICTURE / 127.5 - 1),
        ({"range": [0, 255]}, PICTURE),
        ({"range": [0, 1]}, PICTURE / 255),
        ({"range": [-1, 1]}, PICTURE / 127.5 - 1),
        ({"range": [255, 0]}, 255.0 - PICTURE),
        ({"mean": [0.5, 0.4, 0.3], "std": [0.2]}, (PICTURE / 255 - [0.5, 0.4, 0.3]) / 0.2),
        ({"std": [0.2]}, PICTURE / 255 / 0.2),
        ({"range": [0, 255], "mean": [104, 117, 123], "channel_order": "bgr"}, PICTURE[..., ::-1] - np.array([104.0, 117, 123])),
    ],
)
def test_range_mean_and_std_say_what_the_model_takes(settings, expected):
    np.testing.assert_allclose(fed(**settings), expected, atol=1e-4)


def test_bytes_stay_bytes():
    given = fed(dtype="uint8", range=[0, 255])
    assert given.dtype == np.uint8 and np.array_equal(given, PICTURE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"range": [0]}, r"data\.range: \[0\.0\] must be two different numbers"),
        ({"range": [1, 1]}, r"data\.range: .* two different numbers"),
        ({"dtype": "uint8"}, r"data\.dtype: uint8 takes unscaled pixel values: set data\.range=\[0,255\]"),
        ({"channel_order": "bgr", "channels": 1}, r"data\.channel_order: 'bgr' needs data\.channels=3"),
        ({"channel_order": "gbr"}, r"data\.channel_order: 'gbr'; did you mean"),
        ({"crop_share": 0.875}, r"data\.crop_share: 0\.875 needs data\.resize=crop"),
        ({"std": [0.5, -1, 1]}, r"data\.std: .* must be above 0"),
    ],
)
def test_settings_that_contradict_each_other(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(PictureSettings, settings, "data")


def test_the_usual_224_of_256():
    """torchvision: short side to 256, the middle 224; here in one step, so alike but for the rounding of the resize."""
    x, y = np.meshgrid(np.linspace(0, 255, 320), np.linspace(0, 255, 256))
    picture = np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)
    ours = preprocess.resize_to_spec(picture, {"channels": 3, "size": [224, 224], "resize": "crop", "crop_share": 0.875})
    theirs = picture[16:240, 48:272]
    assert np.abs(ours.astype(int) - theirs).max() <= 1


LINES = "tench, Tinca tinca\ncrane\nhot_dog, red hot\ncrane\n"


@pytest.fixture
def names_file(tmp_path: Path) -> Path:
    path = tmp_path / "names.txt"
    path.write_text(LINES)
    return path


def test_names_are_numbered_as_the_model_does(names_file):
    plain = ["tench, Tinca tinca", "crane", "hot_dog, red hot", "crane (3)"]
    assert common.read_class_names(names_file, 0) == plain
    assert common.read_class_names(names_file, 1) == ["background", *plain[:3], "crane (4)"]
    assert common.read_class_names(names_file, -1) == ["crane", "hot_dog, red hot", "crane (2)"]
    assert common.find_classes(["Tinca_Tinca", "Hot Dog", "crane (3)"], plain) == {"Tinca_Tinca": 0, "Hot Dog": 2, "crane (3)": 3}


def test_names_that_are_numbered_already_stay_apart():
    assert common.make_unique(["a (2)", "a", "a", "a", "b"]) == ["a (2)", "a", "a (3)", "a (4)", "b"]
    assert len(set(common.make_unique(["a", "a", "a (1)", "a (1)"]))) == 4


def test_labels_that_fit_no_name_or_two(names_file, tmp_path):
    with pytest.raises(DataError, match=r"'trench', a class of the data, is not among the 4 names; similar: tench"):
        common.find_classes(["trench"], common.read_class_names(names_file, 0))
    with pytest.raises(DataError, match="'heron' is in several lines"):
        common.find_classes(["heron"], ["crane, heron", "bird, heron"])
    with pytest.raises(DataError, match=r"data\.label_names: .*gone\.txt: No such file"):
        common.read_class_names(tmp_path / "gone.txt", 0)
    with pytest.raises(ConfigError, match=r"data\.label_offset: -3 with 4 names .* fewer than 2"):
        common.read_class_names(names_file, -3)


def test_data_that_has_some_of_the_models_classes(tmp_path, names_file):
    """Nothing is learned, so a class needs no sample, and the training split may be empty."""
    pictures = make_pictures(tmp_path / "pictures", each=4, labels=("hot dog", "tench"))
    shares = {"validation": 0, "calibration": 0.25, "test": 0.75}
    data = plugin("image_folder", path=str(pictures), label_names=str(names_file), label_offset=1, splits=shares)
    manifest = dataset.prepare(data, 0, tmp_path / "models/data", tmp_path / "models")
    samples = Samples.open(tmp_path / "models/data")
    assert manifest.labels[0] == "background" and len(manifest.labels) == 5
    assert [samples.targets(samples.indices("test")).tolist().count(number) for number in (1, 3)] == [3, 3]
    assert not len(samples.indices("train")) and not len(samples.indices("validation"))
    assert set(manifest.details["counts"]["test"]) == {"tench, Tinca tinca", "hot_dog, red hot"}


def test_another_file_of_names_is_another_data_set(tmp_path, names_file):
    data = plugin("image_folder", path=str(make_pictures(tmp_path / "pictures")), label_names=str(names_file))
    dataset.probe(data, tmp_path / "before.json")
    names_file.write_text(LINES.upper())
    dataset.probe(data, tmp_path / "after.json")
    assert (tmp_path / "before.json").read_text() != (tmp_path / "after.json").read_text()
    without = dataclasses.replace(data, settings={**data.settings, "label_names": None})
    dataset.probe(without, tmp_path / "none.json")
    assert "label_names" not in (tmp_path / "none.json").read_text()
