"""data/arrays and data/python: any array becomes samples; what cannot is named."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts.samples import Samples
from edgewise.config.settings import build
from edgewise.data import arrays, python
from edgewise.errors import ConfigError, DataError
from tests.unit.test_prepare_data import plugin, prepare

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 5, 3)), np.arange(60) % 12


def stored(tmp_path: Path, **given: np.ndarray) -> dict[str, str]:
    for name, array in given.items():
        np.save(tmp_path / f"{name}.npy", array)
    return {"path": str(tmp_path / "x.npy"), "labels": str(tmp_path / "y.npy")}


def everything(tmp_path: Path) -> tuple[Samples, dict[str, np.ndarray], np.ndarray]:
    samples = Samples.open(tmp_path / "models/data")
    indices = np.arange(sum(len(s) for s in samples.splits.values()))
    return samples, samples.feeds(indices), samples.targets(indices)


def test_x_and_y_come_back_as_float32_with_numbers_in_order(tmp_path):
    manifest = prepare(plugin("arrays", **stored(tmp_path, x=X, y=Y)), tmp_path)
    samples, feeds, targets = everything(tmp_path)
    assert samples.labels == tuple(map(str, range(12))) and np.array_equal(targets, Y)
    assert np.array_equal(feeds["x"], X.astype(np.float32)) and manifest.preprocessing == {"kind": "none"}
    (tensor,) = manifest.inputs
    assert (tensor.name, tensor.shape, tensor.dtype) == ("x", (None, 5, 3), "float32")


def test_an_npz_may_hold_several_inputs_and_groups(tmp_path):
    ids, groups = RNG.integers(0, 9, (60, 4)), np.arange(60) // 2
    np.savez(tmp_path / "set.npz", ids=ids, mask=ids > 3, y=np.array(["no", "yes"])[np.arange(60) // 2 % 2], groups=groups)
    manifest = prepare(plugin("arrays", path=str(tmp_path / "set.npz"), dtype="int64"), tmp_path)
    samples, feeds, _ = everything(tmp_path)
    assert samples.labels == ("no", "yes") and manifest.details["groups"] == 30
    assert np.array_equal(feeds["ids"], ids) and np.array_equal(feeds["mask"], ids > 3) and feeds["mask"].dtype == np.int64
    assert sum(len(set(groups[samples.indices(name)])) for name in samples.splits) == 30


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (X, Y[:50], r"rows by array: {'x': 60, 'y': 50}; each input, y and groups must have one row per sample"),
        (X[:0], Y[:0], "must have one row per sample"),
        (X, np.eye(12)[Y], r"shape \[60, 12\]; give one label per sample: the argmax of one-hot rows"),
        (X, Y + 0.5, "data.labels: 0.5 is not a class"),
        (np.where(X > 2, np.nan, X), Y, "values are NaN or infinite; impute or drop them"),
        (np.array(X, dtype=str), Y, "are not numbers"),
        (X + 1j, Y, "values of type complex128 are not numbers"),
        (np.array([[1], [1, 2]] * 30, dtype=object), Y, r"Python objects in dtype.*no ragged rows"),
        (X, Y * 0, "60 samples of 1 class 0; two classes"),
    ],
    ids=["lengths", "empty", "one-hot", "halves", "nan", "texts", "complex", "pickle", "one class"],
)
def test_wrong_arrays(tmp_path, x, y, message):
    with pytest.raises(DataError, match=message):
        prepare(plugin("arrays", **stored(tmp_path, x=x, y=y)), tmp_path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 no zip", None])
def test_files_that_are_no_arrays(tmp_path, content):
    path = tmp_path / "x.npz"
    if content is not None:
        path.write_bytes(content)
    for action in (arrays.probe, lambda settings: list(arrays.items(settings))):
        with pytest.raises(DataError, match=r"x.npz: .*; give a .npy or .npz file"):
            action(build(arrays.Settings, {"path": str(path)}, "data"))


@pytest.mark.parametrize("key", ["labels", "groups"])
def test_a_file_of_labels_without_an_array_is_named(tmp_path, key):
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "empty.npz")
    with pytest.raises(DataError, match=rf"data.{key}: .*empty.npz: holds no array"):
        list(arrays.items(build(arrays.Settings, {"path": str(tmp_path / "x.npy"), key: str(tmp_path / "empty.npz")}, "data")))


@pytest.mark.parametrize("given", [{"x": X}, {"x": X, "groups": np.arange(60) // 2}])
def test_arrays_without_labels(tmp_path, given):
    np.savez(tmp_path / "set.npz", **given)
    data = plugin("arrays", path=str(tmp_path / "set.npz"))
    assert arrays.probe(build(arrays.Settings, data.settings, "data"))["targets"] == "none"
    manifest = prepare(data, tmp_path)
    samples, feeds, targets = everything(tmp_path)
    assert targets is None and samples.labels == () and samples.kind == manifest.details["targets"] == "none"
    assert np.array_equal(feeds["x"], X.astype(np.float32)) and not (tmp_path / "models/data/targets.npy").exists()
    assert manifest.details["groups"] == (30 if "groups" in given else 60) and manifest.details["notes"] == []
    assert manifest.details["sizes"] == {"train": 36, "validation": 6, "calibration": 6, "test": 12}


def test_labels_that_shall_not_be_read(tmp_path):
    data = plugin("arrays", **stored(tmp_path, x=X, y=Y[:60] * np.nan), targets="none")
    prepare(data, tmp_path)
    assert everything(tmp_path)[2] is None


def test_inputs_of_any_name_rank_and_type_stay_what_they_are(tmp_path):
    given = {
        "input.1": RNG.normal(size=(60, 2, 3, 4, 2)),
        "serving/sr:0": np.arange(60, dtype=np.int32),
        "ids": np.full((60, 3), 2**40),
        "pixels": RNG.integers(0, 256, (60, 4, 4, 3)).astype(np.uint8),
        "codes": RNG.integers(0, 2**16, (60, 2)).astype(np.uint16),
        "flags": RNG.random((60, 5)) > 0.5,
        "half": RNG.random((60, 2)).astype(np.float16),
        "steps": RNG.random((60, 7, 3)).astype(">f4"),
    }
    np.savez(tmp_path / "set.npz", **given)
    manifest = prepare(plugin("arrays", path=str(tmp_path / "set.npz")), tmp_path)
    feeds = everything(tmp_path)[1]
    assert [port.name for port in manifest.inputs] == list(given) == list(feeds)
    assert {port.name: port.dtype for port in manifest.inputs} == {name: array.dtype.name for name, array in feeds.items()} == {
        "input.1": "float32", "serving/sr:0": "int32", "ids": "int64", "pixels": "uint8", "codes": "int32", "flags": "bool",
        "half": "float16", "steps": "float32",
    }  # fmt: skip
    assert all(np.array_equal(feeds[name], array.astype(feeds[name].dtype)) for name, array in given.items())
    assert manifest.inputs[1].shape == (None,) and manifest.inputs[0].shape == (None, 2, 3, 4, 2)


@pytest.mark.parametrize(
    ("x", "dtype", "message"),
    [
        (np.array([[1], [3_000_000_000]]), "int32", r"sample 1, array 'x': 3000000000 does not fit into int32, the type of"),
        (np.array([[1.0], [2.5]]), "int64", r"sample 1, array 'x': 2.5 does not fit into int64"),
        (np.array([[-1], [2]]), "uint8", r"sample 0, array 'x': -1 does not fit into uint8"),
        (np.array([[1.0], [1e6]]), "float16", r"sample 1, array 'x': 1000000.0 does not fit into float16"),
        (np.array([[1.0], [1e300]]), "stored", r"1e\+300 does not fit into float32, .*; set data.dtype to another one"),
        (np.array([[1], [2]]), "bool", r"sample 1, array 'x': 2 does not fit into bool"),
    ],
)
def test_values_that_the_type_of_the_input_cannot_hold(tmp_path, x, dtype, message):
    with pytest.raises(DataError, match=message):
        prepare(plugin("arrays", **stored(tmp_path, x=x, y=np.arange(2)), dtype=dtype), tmp_path)


def test_the_probe_reads_the_content(tmp_path):
    settings = build(arrays.Settings, stored(tmp_path, x=X, y=Y), "data")
    seen = [arrays.probe(settings)["digest"], arrays.probe(settings)["digest"]]
    stored(tmp_path, y=(Y + 1) % 12)
    assert seen[0] == seen[1] != arrays.probe(settings)["digest"]


OWN = '''
import numpy as np
class Windows:
    """As a torch Dataset: length and index, no end."""
    def __init__(self, n): self.n = n
    def __len__(self): return self.n
    def __getitem__(self, i): return np.full((4, 2), i % 300), np.int64(i % 3)
def pictures(n=40):
    for i in range(n):
        yield {"x": np.full((30, 20), 6 * i, np.uint8), "label": "ab"[i // 2 % 2], "group": i // 2, "name": f"frame {i}"}
def two(n=40):
    for i in range(n):
        yield {"x": {"left": np.ones(3) * i, "right": np.ones((2, 2))}, "label": i % 2, "split": "test" if i > 29 else None}
def ragged(): return [(np.ones(3 + i // 9), i % 2) for i in range(20)]
def naming(): return [{"name": "a", "label": 1}]
def unlabelled(): return [{"x": np.full(3, i), "group": i // 2} for i in range(40)]
def half(): return [{"x": np.ones(3), "label": None if i == 7 else i % 2} for i in range(20)]
def splitting(): return [{"x": np.ones(3), "label": 1, "split": "dev"}]
def names(): return [{"x": {"../x": np.ones(3)}, "label": 1}]
def float_pictures(): return [(np.ones((3, 3)), 1)]
def number(): return 7
nothing = None
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_data.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_data", raising=False)
    return tmp_path


def test_a_torch_like_data_set(own):
    manifest = prepare(plugin("python", callable="own_data:Windows", arguments={"n": 60}), own)
    _, feeds, targets = everything(own)
    assert np.array_equal(feeds["x"][:, 0, 0], np.arange(60)) and np.array_equal(targets, np.arange(60) % 3)
    assert manifest.inputs[0].shape == (None, 4, 2)


def test_pictures_of_a_generator_are_resized_and_grouped(own):
    manifest = prepare(plugin("python", callable="own_data:pictures", pictures=True, channels=1, image_size=16), own)
    samples, feeds, _ = everything(own)
    assert feeds["image"].shape == (40, 1, 16, 16) and manifest.details["groups"] == 20
    assert (samples.raw(np.array([7]))["image"] == 42).all()


def test_samples_of_a_callable_without_labels(own):
    manifest = prepare(plugin("python", callable="own_data:unlabelled", dtype="stored"), own)
    assert everything(own)[2] is None and manifest.details["groups"] == 20 and manifest.inputs[0].dtype == "int64"


def test_several_inputs_and_given_splits(own):
    prepare(plugin("python", callable="own_data:two"), own)
    samples, feeds, _ = everything(own)
    assert {name: array.shape for name, array in feeds.items()} == {"left": (40, 3), "right": (40, 2, 2)}
    assert list(samples.indices("test")) == list(range(30, 40))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"callable": "own_data.two"}, ConfigError, "write it as package.module:function"),
        ({"callable": "own_date:two"}, ConfigError, "No module named 'own_date'; write it as"),
        ({"callable": "own_data:three"}, ConfigError, "has no attribute 'three'"),
        ({"callable": "own_data:nothing"}, ConfigError, "is a NoneType; name a function or class"),
        ({"callable": "own_data:Windows"}, ConfigError, r"data.arguments: own_data:Windows missing .* 'n'; it takes \(n\)"),
        ({"callable": "own_data:number"}, DataError, "returned int, must return an iterable of samples"),
        ({"callable": "own_data:ragged"}, DataError, r"sample 9, array 'x': .*\[4\] does not match.*crop or pad all samples to one shape"),
        ({"callable": "own_data:naming"}, DataError, r"sample 0 is \['label', 'name'\]; a sample is \(x, label\) or"),
        ({"callable": "own_data:half"}, DataError, "1 of 20 samples have no label, such as 000007; label all of them, or set data.targets"),
        ({"callable": "own_data:splitting"}, DataError, "split 'dev'; allowed: train, validation, calibration, test"),
        ({"callable": "own_data:names"}, DataError, "'../x' cannot be the name of an input"),
        ({"callable": "own_data:float_pictures", "pictures": True}, DataError, r"sample 0 is float64 \[3, 3, 1\]; a picture is uint8"),
    ],
)
def test_wrong_data_sets_of_the_user(own, given, error, message):
    with pytest.raises(error, match=message):
        prepare(plugin("python", **given), own)


def test_the_probe_follows_the_module_and_what_is_watched(own):
    (own / "table.csv").write_text("1")
    settings = build(python.Settings, {"callable": "own_data:two", "watch": [str(own / "table.csv")]}, "data")
    seen = [python.probe(settings)["digest"], python.probe(settings)["digest"]]
    (own / "table.csv").write_text("2")
    seen.append(python.probe(settings)["digest"])
    (own / "own_data.py").write_text(OWN + "# changed\n")
    seen.append(python.probe(settings)["digest"])
    assert seen[0] == seen[1] and len(set(seen)) == 3
    with pytest.raises(DataError, match=r"data.watch: .*absent: No such file"):
        python.probe(build(python.Settings, {"callable": "own_data:two", "watch": [str(own / "absent")]}, "data"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_damaged_file_is_refused_wherever_the_damage_is(tmp_path, save):
    """Some places of the data, of the headers and of the table at the end."""
    save(tmp_path / "d.npz", x=np.random.default_rng(0).normal(size=(60, 4)), y=np.arange(60) % 2)
    whole = (tmp_path / "d.npz").read_bytes()
    refused = 0
    for place in range(0, len(whole), 3):
        (tmp_path / "d.npz").write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            arrays.load(tmp_path / "d.npz")
        except DataError as error:
            assert "d.npz: " in str(error)
            refused += 1
    assert refused > len(whole) / 6
