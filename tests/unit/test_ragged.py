"""Samples of various sizes: pictures that go into a model as they come, from the data to the device's outputs."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.agent import jobs, preprocess, ragged
from edgewise.agent.geometry import Geometry
from edgewise.agent.sessions import run_batched
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Variant
from edgewise.data.encoders import PictureSettings
from edgewise.errors import ConfigError, VariantFailed
from edgewise.measure import device_outputs
from edgewise.measure.runs import store_inputs
from edgewise.plugins import Predictions
from edgewise.proof import checks
from edgewise.stats.agreement import as_rows, compare_groups, relative_variation, sqnr_db
from edgewise.tasks import evaluation, none
from edgewise.tasks.predictions import are_same, read_predictions, write_outputs
from tests.unit.test_compose import choices, composed, put
from tests.unit.test_prepare_data import plugin, prepare

SIZES = ((40, 60), (33, 20), (64, 64), (17, 90), (40, 60), (25, 31), (50, 18), (16, 16), (70, 41), (28, 28))
VARIANT = Variant("onnx-fp32", "onnx", "fp32", "edgewise.formats.onnx")


def make_ragged(*shapes: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return ragged.join([random.normal(size=(1, *shape)).astype(np.float32) for shape in shapes])


def make_pictures(folder: Path) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """models/data of pictures at their own sizes, padded to a multiple of 8 at the right and the bottom."""
    place = tmp_path_factory.mktemp("as_is")
    settings = {"resize": "as_is", "pad_stride": 8, "pad_anchor": "corner", "pad_value": 7, "image_size": [24, 48], "range": [0, 255]}
    shares = {"validation": 0.0, "calibration": 0.4, "test": 0.6}
    prepare(plugin("image_folder", path=str(make_pictures(place / "pictures")), targets="none", splits=shares, **settings), place)
    return place / "models/data"


# arrays


def test_samples_of_one_shape_stay_one_array():
    one = ragged.join([np.zeros((1, 3)), np.ones((2, 3))])
    assert one.shape == (3, 3) and not ragged.is_ragged(one)
    assert ragged.join([make_ragged((2, 3), (2, 4)), np.zeros((1, 2, 3))]).shape == (3,)


def test_what_is_packed_comes_back(tmp_path):
    arrays = {"a": make_ragged((2, 3), (4, 1), (0, 5)), "out:b": np.arange(6).reshape(3, 2), "c": make_ragged((3,), (1,), (2,))}
    np.savez(tmp_path / "x.npz", **ragged.pack(arrays))
    with np.load(tmp_path / "x.npz", allow_pickle=False) as stored:
        back = ragged.unpack(dict(stored))
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert ragged.find_shapes(back[name]) == ragged.find_shapes(array)
        assert all(np.array_equal(ragged.take(back[name], i), ragged.take(array, i)) for i in range(3))


def test_positions_become_rows_on_the_axes_where_samples_differ():
    maps = make_ragged((2, 3, 4), (2, 5, 6))
    rows = as_rows(maps)
    expected = np.concatenate([sample.reshape(2, -1).T for sample in maps])
    assert rows.shape == (3 * 4 + 5 * 6, 2) and np.array_equal(rows, expected)
    assert as_rows(make_ragged((3, 2), (4, 2))).shape == (7, 2)
    assert as_rows(make_ragged((3, 2), (6,))).shape == (12,)  # of different rank: all values
    assert relative_variation(make_ragged((2, 2), (3, 3))) > 0.9


def test_groups_of_channels_are_compared_over_all_pixels():
    """Boxes and scores in one output: the channel of small values is a group, and dead where it is constant."""
    boxes, scores = make_ragged((4, 5, 5), (4, 6, 3)), make_ragged((1, 5, 5), (1, 6, 3), seed=1)
    expected = ragged.join([np.concatenate([100 * b, 1 / (1 + np.exp(-s))])[None] for b, s in zip(boxes, scores, strict=True)])
    given = ragged.join([np.concatenate([sample[:4] + 0.1, np.full_like(sample[4:], 0.5)])[None] for sample in expected])
    first, second = compare_groups({"y": expected}, {"y": given})
    assert (first.name, second.name, first.dead, second.dead) == ("y[0:4]", "y[4]", False, True)
    flat = [np.concatenate([sample[:4].ravel() for sample in side]) for side in (expected, given)]
    assert first.largest_difference == pytest.approx(0.1, rel=1e-3) and first.sqnr_db == pytest.approx(sqnr_db(*flat), abs=0.5)
    with pytest.raises(VariantFailed, match=r"output y\[4\] is dead"):
        checks.compare_outputs({"y": expected}, {"y": given}, 10.0)


def test_a_sample_of_another_size_is_another_shape():
    expected, given = make_ragged((1, 4, 4), (1, 5, 5)), make_ragged((1, 4, 4), (1, 5, 6))
    with pytest.raises(VariantFailed, match=r"output y has shape \(1, 5, 6\), the source gives \(1, 5, 5\)"):
        checks.compare_outputs({"y": expected}, {"y": given}, 10.0)
    ports = [Predictions({"y": array}, None) for array in (expected, given, expected.copy())]
    assert are_same(ports[0], ports[2]) and not are_same(ports[0], ports[1])


def test_an_sqnr_just_below_the_limit_is_shown_below_it():
    reference = np.random.default_rng(0).normal(size=(16, 40)).astype(np.float32)
    noise = reference - reference.mean(axis=0)
    given = reference + (noise * 10 ** (-2.98 / 20)).astype(np.float32)
    with pytest.raises(VariantFailed, match=r"SQNR 2\.98 dB, this scheme needs at least 3 dB"):
        checks.compare_outputs({"y": reference}, {"y": given}, 3.0)


class Doubler:
    """Twice its input. batch: the number of samples that it takes at once; None: any."""

    def __init__(self, batch: int | None, name: str = "x"):
        self.inputs = [{"name": name, "shape": [batch, None, None], "dtype": "float32"}]
        self.seen: list[tuple[int, ...]] = []

    def run(self, feeds):
        (given,) = feeds.values()
        self.seen.append(given.shape)
        return {"y": 2 * given}


@pytest.mark.parametrize("batch", [None, 2])
def test_samples_of_various_sizes_run_one_by_one(batch):
    given, session = make_ragged((2, 3), (4, 5), (2, 3)), Doubler(batch)
    found = run_batched(session, {"x": given})["y"]
    assert session.seen == [(batch or 1, *sample.shape) for sample in given]
    assert all(np.array_equal(made, 2 * sample) for made, sample in zip(found, given, strict=True)) and len(found) == 3


# pictures


def test_a_picture_stays_as_it_is_but_for_bars_to_the_next_multiple():
    spec = PictureSettings(resize="as_is", pad_stride=32, pad_anchor="corner", image_size=64).spec
    picture = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    made = preprocess.resize_to_spec(picture, spec)
    assert made.shape == (64, 96, 3) and np.array_equal(made[:50, :70], picture)
    assert (made[50:] == 114).all() and (made[:, 70:] == 114).all()
    box = np.array([[3.0, 4.0, 20.0, 30.0]])
    assert np.array_equal(Geometry.of(spec, 50, 70).boxes_to_input(box), box)
    bare = PictureSettings(resize="as_is").spec
    assert np.array_equal(preprocess.resize_to_spec(picture, bare), picture)


def test_pictures_of_various_sizes_are_stored_and_read_back(folder):
    samples = Samples.open(folder)
    everything = np.arange(len(SIZES))
    raw, feeds = samples.raw(everything)["image"], samples.feeds(everything)["image"]
    names = samples.names(everything)
    assert samples.ragged and [tuple(size) for size in samples.sizes(everything)] == [SIZES[int(name[:2])] for name in names]
    for index, name in enumerate(names):
        height, width = SIZES[int(name[:2])]
        stored = ragged.take(raw, index)[0]
        picture = np.asarray(Image.open(folder.parents[1] / "pictures" / name))
        assert stored.shape == (-(-height // 8) * 8, -(-width // 8) * 8, 3)
        assert np.array_equal(stored[:height, :width], picture) and (stored[height:] == 7).all()
        assert np.array_equal(ragged.take(feeds, index)[0], stored.transpose(2, 0, 1).astype(np.float32))
    single = samples.feeds(everything[1:2])["image"]
    assert single.shape[:2] == (1, 3) and single.dtype == np.float32  # one sample is an ordinary array


def test_latency_is_measured_at_one_size(folder, tmp_path):
    samples = Samples.open(folder)
    store_inputs(samples, "model", tmp_path)
    with np.load(tmp_path / "inputs.npz") as stored:
        assert stored["image"].shape[1:] == (3, 24, 48) and len(stored["image"]) == len(samples.indices("test"))
    store_inputs(samples, "end_to_end", tmp_path)
    with np.load(tmp_path / "inputs.npz") as stored:
        assert stored["image"].shape[1:] == (24, 48, 3) and stored["image"].dtype == np.uint8


def test_the_device_gets_each_picture_at_its_own_size(folder, tmp_path):
    feeds = device_outputs.store_feeds(Samples.open(folder), 4, tmp_path)
    read = jobs.read_inputs({"inputs": str(tmp_path / device_outputs.INPUTS_FILE)})
    assert len(read) == 4 and len({feed["image"].shape for feed in read}) > 1
    assert all(np.array_equal(feed["image"], ragged.take(feeds["image"], i)) for i, feed in enumerate(read))
    host = {"y": ragged.join([feed["image"].mean(axis=1) for feed in read])}
    other = {"y": ragged.apply(lambda array: array + 1e-3, host["y"])}
    assert device_outputs.compare(host, host, VARIANT).verdict == "identical"
    assert device_outputs.compare(host, other, VARIANT).largest_difference == pytest.approx(1e-3, rel=0.1)
    with pytest.raises(VariantFailed, match="outputs y "):
        device_outputs.compare(host, {"y": host["y"][::-1]}, VARIANT)


def test_each_picture_is_judged_by_itself(folder, monkeypatch):
    session, samples, made = Doubler(None, "image"), Samples.open(folder), Manifest(kind="variant")
    monkeypatch.setattr(evaluation.sessions, "load", lambda *_, **__: session)
    found = evaluation.predict(VARIANT, made, samples, "test", none, none.Settings())
    test = samples.indices("test")
    expected = ragged.apply(lambda array: 2 * array, samples.feeds(test)["image"])
    assert are_same(found, Predictions({"y": expected}, None)) and len(found.ports["y"]) == len(test)
    (tmp := folder.parent / "kept").mkdir()
    write_outputs(tmp, found.ports)
    artifact.write(tmp, Manifest(kind="evaluation", details={"targets": "none"}))
    assert are_same(read_predictions(tmp), found)


# settings


AS_IS = {"name": "image_folder", "path": "pictures", "resize": "as_is"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"name": "onnx_file", "path": "x.onnx"}}, r"task\.name is 'classification'"),
        ({"model": {"name": "resnet18"}, "task": {"name": "none"}}, r"model\.name is 'resnet18'"),
    ],
)
def test_a_task_or_model_of_one_size_is_refused(changes, message):
    tree = {**choices(), "data": AS_IS, **changes}
    with pytest.raises(ConfigError, match=rf"data\.resize: 'as_is' needs model\.name=onnx_file and task\.name=none.*{message}"):
        composed(tree)


def test_an_onnx_file_without_a_task_takes_them():
    tree = {**choices(), "data": AS_IS, "task": {"name": "none"}, "model": {"name": "onnx_file", "path": "x.onnx"}}
    assert composed(put(tree, "data/pad_stride", 32)).data.settings["pad_stride"] == 32


def test_a_sample_that_is_missing_among_various_sizes_is_noticed():
    expected = make_ragged((3, 4), (5, 6), (7, 8))
    with pytest.raises(VariantFailed, match=r"output y has shape nothing more, the source gives \(7, 8\)"):
        checks.compare_outputs({"y": expected}, {"y": expected[:2]}, 60.0)
