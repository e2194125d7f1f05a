"""prepare_data and probe_data: what models/data holds, and what is refused."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from edgewise.agent import preprocess
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Plugin
from edgewise.data import dataset, splitting
from edgewise.data.encoders import ArrayFile
from edgewise.errors import DataError
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("in_tmp_path")

SHADES = {"dark": 40, "light": 200, "mid": 120}


def plugin(name: str, **settings) -> Plugin:
    option = yaml.safe_load((ROOT / "conf/data" / f"{name}.yaml").read_text())
    return Plugin(name, option.pop("module"), {**option, **settings})


def prepare(data: Plugin, tmp_path: Path, seed: int = 0) -> artifact.Manifest:
    return dataset.prepare(data, seed, tmp_path / "models/data", tmp_path / "models")


def make_pictures(folder: Path, each: int = 12, labels=tuple(SHADES)) -> Path:
    """Each class has its own shade; the number of the picture is in its first pixels."""
    for label in labels:
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            array = np.full((20, 16), SHADES.get(label, 90), np.uint8)
            array[0, :4] = number
            Image.fromarray(array).save(folder / label / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    tmp_path = tmp_path_factory.mktemp("digits")
    prepare(plugin("digits"), tmp_path)
    return tmp_path / "models/data"


def test_digits_are_scikit_learns(digits):
    from sklearn.datasets import load_digits

    samples, bunch = Samples.open(digits), load_digits()
    everything = np.arange(len(bunch.target))
    assert samples.labels == tuple("0123456789")
    assert np.array_equal(samples.targets(everything), bunch.target)
    scan = Image.fromarray(np.rint(bunch.images[7] * 255 / 16).astype(np.uint8)).resize((64, 64), Image.Resampling.BILINEAR)
    assert np.array_equal(samples.raw(everything[7:8])["image"][0], np.asarray(scan.convert("RGB")))


def test_the_manifest_says_what_a_model_gets(digits):
    manifest, samples = artifact.read(digits), Samples.open(digits)
    test = samples.indices("test")
    feeds = samples.feeds(test[:8])
    (tensor,) = manifest.inputs
    assert (tensor.name, tensor.shape, tensor.dtype, tensor.layout) == ("image", (None, 3, 64, 64), "float32", "NCHW")
    assert feeds["image"].shape == (8, 3, 64, 64) and feeds["image"].dtype == np.float32
    assert np.array_equal(feeds["image"], preprocess.normalize(samples.raw(test[:8])["image"], manifest.preprocessing))
    assert feeds["image"].min() == -1.0 and feeds["image"].max() == 1.0
    assert {name: sum(by_label.values()) for name, by_label in manifest.details["counts"].items()} == {
        name: len(samples.indices(name)) for name in ("train", "validation", "calibration", "test")
    }
    assert len(test) == pytest.approx(0.3 * 1797, abs=1) and manifest.size_bytes == sum(
        p.stat().st_size for p in digits.rglob("*") if p.is_file() and p.name != "manifest.json"
    )


def test_the_same_seed_gives_the_same_bytes(digits, tmp_path):
    again = prepare(plugin("digits"), tmp_path)
    assert (tmp_path / "models/data/manifest.json").read_bytes() == (digits / "manifest.json").read_bytes()
    prepare(plugin("digits"), tmp_path, seed=1)
    assert artifact.read(tmp_path / "models/data").files["splits.json"] != artifact.read(digits).files["splits.json"]
    assert again.details["counts"] == artifact.read(digits).details["counts"]


def test_pictures_keep_their_label_name_and_hash(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    prepare(plugin("image_folder", path=str(folder), channels=1, image_size=[20, 16]), tmp_path)
    samples = Samples.open(tmp_path / "models/data")
    for index, file in enumerate(json.loads((tmp_path / "models/data/files.json").read_text())):
        raw = samples.raw(np.array([index]))["image"][0]
        assert np.array_equal(raw[:, :, 0], np.asarray(Image.open(folder / file["name"])))
        assert samples.labels[samples.targets(np.array([index]))[0]] == file["name"].split("/")[0]
        assert file["sha256"] == artifact.sha256(folder / file["name"]) and file["group"] is None


def test_groups_and_copies_stay_in_one_split(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    (folder / "dark/99.png").write_bytes((folder / "dark/00.png").read_bytes())
    (folder / "light/98.png").write_bytes((folder / "dark/00.png").read_bytes())
    pictures = sorted(folder.rglob("*.png"))
    rows = "".join(f"{p.relative_to(folder)},{p.parent.name}{int(p.stem) // 2}\n" for p in pictures)
    (tmp_path / "groups.csv").write_text("file,group\n" + rows)
    manifest = prepare(plugin("image_folder", path=str(folder), groups=str(tmp_path / "groups.csv")), tmp_path)
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    splits = json.loads((tmp_path / "models/data/splits.json").read_text())
    for key in ("group", "sha256"):
        owners = [{files[i][key] for i in indices} for indices in splits.values()]
        assert sum(map(len, owners)) == len(set.union(*owners))
    assert manifest.details["copies"] == {"count": 2, "with_another_label": 1, "named": ["dark/00.png = light/98.png"]}
    assert "1 samples have a copy with another label: dark/00.png = light/98.png" in splitting.list_warnings(manifest.details)


def test_unreadable_pictures_are_counted_and_some_named(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    for number in range(30):
        (folder / f"dark/bad{number:02d}.jpg").write_text(f"text {number}")
    manifest = prepare(plugin("image_folder", path=str(folder), max_unreadable_share=0.9), tmp_path)
    unreadable = manifest.details["unreadable"]
    assert unreadable["count"] == 30 and len(unreadable["named"]) == 20 and manifest.details["samples"] == 36
    assert "30 samples could not be read" in splitting.list_warnings(manifest.details)[0]
    assert len(Samples.open(tmp_path / "models/data").arrays["image"]) == 36


@pytest.mark.parametrize(
    ("each", "labels", "extra", "message"),
    [
        (12, ("dark",), {}, r"12 samples of 1 class dark; two classes or more are needed"),
        (1, ("dark",), {"targets": "none"}, "1 samples in 1 groups leave .* empty; add samples$"),
        (2, ("dark", "light"), {"splits": {"calibration": 0.001, "validation": 0.001, "test": 0.4}}, "leave .* empty"),
    ],
    ids=["one class", "one sample", "tiny shares"],
)
def test_too_little_data(tmp_path, each, labels, extra, message):
    folder = make_pictures(tmp_path / "pictures", each, labels)
    with pytest.raises(DataError, match=message):
        prepare(plugin("image_folder", path=str(folder), **extra), tmp_path)
    assert not (tmp_path / "models/data").exists() and not list((tmp_path / "models/.tmp").iterdir())


@pytest.mark.parametrize("classes", [2, 3, 40])
def test_one_sample_of_each_class_gets_a_remedy_that_works(tmp_path, classes):
    folder = make_pictures(tmp_path / "pictures", 1, [f"class {number}" for number in range(classes)])
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        Image.fromarray(np.full((20, 16), number, np.uint8)).save(path)
    with pytest.raises(DataError, match=r"; add samples.*; for a model that is trained already, set data.splits.validation=0 ") as caught:
        prepare(plugin("image_folder", path=str(folder)), tmp_path)
    advised = {name: float(value) for name, value in re.findall(r"data\.splits\.(\w+)=([\d.]+)", str(caught.value))}
    manifest = prepare(plugin("image_folder", path=str(folder), splits=advised), tmp_path)
    assert set(advised) == {"validation", "calibration", "test"} and manifest.details["sizes"]["calibration"] == classes // 2


def test_a_class_in_one_group_cannot_be_judged(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    rows = "".join(f"{p.relative_to(folder)},{'one' if 'mid' in str(p) else p.stem + p.parent.name}\n" for p in folder.rglob("*.png"))
    (tmp_path / "groups.csv").write_text("file,group\n" + rows)
    with pytest.raises(DataError, match="class 'mid' has 12 samples in 1 groups, not in both train and test; add samples of it"):
        prepare(plugin("image_folder", path=str(folder), groups=str(tmp_path / "groups.csv")), tmp_path)


def test_a_failure_leaves_the_old_data_alone(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    prepare(plugin("image_folder", path=str(folder)), tmp_path)
    before = (tmp_path / "models/data/manifest.json").read_bytes()
    (folder / "dark/00.png").write_text("text")
    with pytest.raises(DataError):
        prepare(plugin("image_folder", path=str(folder), max_unreadable_share=0.0), tmp_path)
    assert (tmp_path / "models/data/manifest.json").read_bytes() == before


def test_the_probe_is_stable_and_follows_the_data(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    seen = []
    for data in (plugin("digits"), plugin("digits"), plugin("image_folder", path=str(folder))):
        dataset.probe(data, tmp_path / "metrics/data.json")
        seen.append(json.loads((tmp_path / "metrics/data.json").read_text()))
    assert seen[0] == seen[1] and seen[0]["digest"] != seen[2]["digest"] and seen[2]["files"] == 36


def test_a_task_that_needs_labels_says_so_before_anything_is_read(tmp_path):
    folder = make_pictures(tmp_path / "pictures")
    labelled, alone = (plugin("image_folder", path=str(path)) for path in (folder, folder / "dark"))
    tasks = {name: Plugin(name, f"edgewise.tasks.{name}", {}) for name in ("classification", "none")}
    for data, task in ((labelled, "classification"), (labelled, "none"), (alone, "none")):
        dataset.check_labels(tasks[task], dataset.probe(data, tmp_path / "metrics/data.json"))
    with pytest.raises(
        DataError, match=r"this data has no labels, but the task 'classification' needs classes; label it .* task.name=none"
    ):
        dataset.check_labels(tasks["classification"], dataset.probe(alone, tmp_path / "metrics/data.json"))


def test_magnetic_tile_keeps_its_groups(shared_data, tmp_path):
    tiles = shared_data / "magnetic_tile"
    manifest = prepare(plugin("image_folder", path=str(tiles / "images"), groups=str(tiles / "groups.csv")), tmp_path)
    files = json.loads((tmp_path / "models/data/files.json").read_text())
    splits = json.loads((tmp_path / "models/data/splits.json").read_text())
    owners = [{files[i]["group"] for i in indices} for indices in splits.values()]
    assert manifest.details["samples"] == 1344 and sum(map(len, owners)) == len(set.union(*owners))
    assert not splitting.list_warnings(manifest.details)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 1)])
@pytest.mark.parametrize("length", [1, 9, 1000])
def test_an_array_file_is_what_numpy_writes(tmp_path, shape, length):
    rows = np.random.default_rng(0).integers(0, 99, (length, *shape))
    with ArrayFile(tmp_path / "ours.npy") as written:
        for row in rows:
            written.append(row)
    np.save(tmp_path / "theirs.npy", rows)
    assert np.array_equal(np.load(tmp_path / "ours.npy", mmap_mode="r"), np.load(tmp_path / "theirs.npy"))


def test_an_array_file_refuses_ragged_rows(tmp_path):
    with ArrayFile(tmp_path / "x.npy") as written:
        written.append(np.zeros(3))
        for row in (np.zeros(4), np.zeros(3, np.float32)):
            with pytest.raises(ValueError, match="does not match earlier rows, float64"):
                written.append(row)
