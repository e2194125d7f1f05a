"""Nets whose height and width are open, fed with pictures at their own sizes, through the formats that can take them."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.agent import sessions
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import calibration, float_models
from edgewise.config.schema import Format, Train, part
from edgewise.errors import ModelError, VariantFailed
from edgewise.proof import checks, making
from edgewise.sources import onnx_file
from edgewise.stats.agreement import worst_of
from tests.support.onnx_sources import converted, model, node
from tests.support.source_kinds import form, make_of
from tests.unit.test_prepare_data import plugin, prepare
from tests.unit.test_ragged import make_pictures

pytestmark = [pytest.mark.framework, pytest.mark.formats]

onnx = pytest.importorskip("onnx")
STRIDE = 4
LEAST_DB = {"fp32": 100.0, "fp16": 45.0, "int8-dynamic": 20.0, "int8-static": 20.0}


def net(side: str | int = "height"):
    """A map of the picture's own size, through half of it: convolution, upsampling, sigmoid."""
    random = np.random.default_rng(1)
    shapes = {"v": (8, 3, 3, 3), "w": (8, 4, 2, 2), "u": (1, 4, 1, 1)}
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [
        node("Conv", ["image", "v"], ["a"], name="down", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2]),
        node("Relu", ["a"], ["b"], name="relu"),
        node("ConvTranspose", ["b", "w"], ["c"], name="up", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["c", "u"], ["d"], name="head", kernel_shape=[1, 1]),
        node("Sigmoid", ["d"], ["map"], name="sigmoid"),
    ]
    return model(nodes, {"image": ["batch", 3, side, "width"]}, {"map": ["batch", 1, side, "width"]}, weights)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("open")
    settings = {"resize": "as_is", "pad_stride": STRIDE, "image_size": 24, "range": [0, 1]}
    shares = {"validation": 0.0, "calibration": 0.5, "test": 0.5}
    prepare(plugin("image_folder", path=str(make_pictures(place / "pictures")), targets="none", splits=shares, **settings), place)
    return place / "models/data"


def obtain(made, data: Path, folder: Path) -> Path:
    """models/source of a net."""
    folder.mkdir()
    onnx.save(made, folder.parent / "mine.onnx")
    fields = dict(onnx_file.obtain(onnx_file.Settings(path=str(folder.parent / "mine.onnx")), data, Train(name="none"), 0, folder))
    del fields["weights"], fields["training"]
    fields |= {side: making.make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", preprocessing=artifact.read(data).preprocessing, **fields))
    return folder


@pytest.fixture(scope="module")
def source(data, tmp_path_factory) -> Path:
    return obtain(net(), data, tmp_path_factory.mktemp("sources") / "source")


def run(name: str, folder: Path, inputs):
    return sessions.run_batched(sessions.load(part(form(name)["module"], "run"), str(folder), {"threads": 1}), inputs)


def test_the_source_stays_open_and_its_oracle_has_every_size(source):
    (image,), (found,) = artifact.read(source).inputs, artifact.read(source).outputs
    assert image.shape == (None, 3, None, None) and found.shape == (None, 1, None, None) and found.sample_axis == 0
    inputs, outputs = checks.read_probe(source)
    sizes = [(given.shape[1:], made.shape[1:]) for given, made in zip(inputs["image"], outputs["map"], strict=True)]
    assert len(set(sizes)) > 3 and all(given == made and given[0] % STRIDE == 0 for given, made in sizes)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_variants_take_every_size(name, source, data, tmp_path):
    pytest.importorskip("onnxruntime" if name == "onnx" else name)
    parent = converted(name, source, tmp_path / name)
    samples = Samples.open(data)
    feeds = calibration.load_feeds(samples, calibration.select(samples, 5))
    inputs, expected = checks.read_probe(source)
    for scheme in make_of(name).SCHEMES.keys() & LEAST_DB.keys():
        folder = tmp_path / f"{name}-{scheme}"
        folder.mkdir()
        chosen = {"per_channel": None, "calibration": None, **(form(name)["schemes"][scheme] or {})}
        make_of(name).quantize(parent, source, folder, scheme, chosen, feeds if chosen["calibration"] else [], [])
        given = run(name, folder, inputs)
        assert worst_of(checks.compare_outputs(expected, given, LEAST_DB[scheme])).output == "map"


@pytest.mark.parametrize("method", ["mean", "entropy", "percentile"])
def test_each_way_to_find_ranges_takes_every_size(method, source, data, tmp_path):
    parent, samples = converted("onnx", source, tmp_path / "onnx"), Samples.open(data)
    feeds = calibration.load_feeds(samples, calibration.select(samples, 3))
    settings = {**form("onnx")["schemes"]["int8-static"], "per_channel": True, "calibration": {"method": method}}
    (tmp_path / "made").mkdir()
    make_of("onnx").quantize(parent, source, tmp_path / "made", "int8-static", settings, feeds, [])
    inputs, expected = checks.read_probe(source)
    given = run("onnx", tmp_path / "made", inputs)
    assert checks.check_outputs(expected, given, 10.0) >= 10.0


@pytest.mark.parametrize("name", ["ncnn", "mnn", "tract"])
def test_formats_of_one_size_refuse_in_a_line(name, source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VariantFailed, match=rf"^{name} takes inputs of one size, and data\.resize is as_is: .*data\.image_size$"):
        float_models.convert(name, Format(form(name)["module"], True), artifact.read(source))


def test_a_net_of_one_size_names_the_settings_that_fit(data, tmp_path):
    fixed = net(40)
    fixed.graph.input[0].type.tensor_type.shape.dim[3].dim_value = 56
    with pytest.raises(ModelError, match=r"expects \[3, 40, 56\].*set data\.resize=stretch data\.image_size=\[40,56\]"):
        obtain(fixed, data, tmp_path / "source")
