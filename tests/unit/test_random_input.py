"""data/random_input: the inputs that were asked for, the same for a seed, and marked as what they are."""

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import dataset, random_input
from edgewise.errors import ConfigError
from tests.unit.test_prepare_data import plugin, prepare

INPUTS = {
    "audio": {"shape": [40, 3], "range": [-1, 1]},
    "ids": {"shape": [6], "dtype": "int64", "range": [3, 5]},
    "pixels": {"shape": [2, 2, 1], "dtype": "uint8", "range": [0, 255]},
    "mask": {"shape": [4], "dtype": "bool"},
    "half": {"shape": [], "dtype": "float16"},
}


def made(tmp_path, **settings):
    manifest = prepare(plugin("random", **{"inputs": INPUTS, "samples": 300, **settings}), tmp_path)
    samples = Samples.open(tmp_path / "models/data")
    return manifest, samples, samples.feeds(np.arange(len(samples.arrays["audio"])))


def test_inputs_have_their_names_shapes_types_and_ranges(tmp_path):
    manifest, samples, feeds = made(tmp_path)
    assert [(port.name, port.shape[1:], port.dtype) for port in manifest.inputs] == [
        ("audio", (40, 3), "float32"), ("ids", (6,), "int64"), ("pixels", (2, 2, 1), "uint8"), ("mask", (4,), "bool"),
        ("half", (), "float16"),
    ]  # fmt: skip
    assert -1 <= feeds["audio"].min() < -0.99 and 0.99 < feeds["audio"].max() <= 1
    assert set(feeds["ids"].ravel()) == {3, 4, 5} and set(feeds["pixels"].ravel()) >= {0, 255} and set(feeds["mask"].ravel()) == {0, 1}
    assert samples.targets(np.arange(3)) is None and manifest.details["sizes"]["test"] == 150


def test_they_are_marked(tmp_path):
    manifest, _, _ = made(tmp_path, samples=20)
    assert manifest.details["declared"] == "random"
    assert dataset.probe(plugin("random", inputs=INPUTS), tmp_path / "data.json")["declared"] == "random"
    assert manifest.details["notes"] == ["random inputs: for a first look at speed and size only"]


def test_the_seed_and_the_name_decide(tmp_path):
    first = made(tmp_path / "a", samples=20)[2]
    fewer = made(tmp_path / "b", samples=20, inputs={name: INPUTS[name] for name in ("ids", "audio")})[2]
    other = made(tmp_path / "c", samples=20, seed=1)[2]
    assert all(np.array_equal(fewer[name], first[name]) for name in fewer) and not np.array_equal(first["audio"], other["audio"])
    assert len({row.tobytes() for row in first["audio"]}) == 20


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"data.inputs: empty; name the model's inputs with their shapes, for example data.inputs=\{image"),
        ({"x": {"shape": [0, 3]}}, r"data.inputs.x.shape: \[0, 3\] must be sizes of at least 1"),
        ({"x": {"range": [0, 1]}}, "data.inputs.x.shape: missing"),
        ({"x": {"shape": [3], "range": [1, 0]}}, r"data.inputs.x.range: \[1.0, 0.0\] must be a smallest and a largest number"),
        ({"x": {"shape": [3], "range": [0, 256], "dtype": "uint8"}}, r"\[0.0, 256.0\] must be integers from 0 to 255, which uint8 holds"),
        ({"x": {"shape": [3], "range": [0, 0.5], "dtype": "int8"}}, "must be integers from -128 to 127"),
        ({"x": {"shape": [3], "dtype": "float64"}}, "data.inputs.x.dtype: 'float64'; did you mean 'float16'"),
    ],
)
def test_wrong_inputs(inputs, message):
    with pytest.raises(ConfigError, match=message):
        build(random_input.Settings, {"inputs": inputs}, "data")
