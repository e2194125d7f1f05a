"""The user's own ONNX files: of any age and shape to every variant, or one clear line."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Train
from edgewise.errors import ModelError
from edgewise.formats.onnx import facts, run
from edgewise.formats.onnx import make as make_onnx
from edgewise.formats.openvino import facts as facts_openvino
from edgewise.formats.openvino import make as make_openvino
from edgewise.formats.openvino import run as run_openvino
from edgewise.proof import checks, isolation
from edgewise.sources import onnx_file
from tests.conftest import ROOT

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
SHARED = ROOT.parent / "shared/data"
CONF = {name: yaml.safe_load((ROOT / f"conf/format/{name}.yaml").read_text()) for name in ("onnx", "openvino")}
LABELS = ("one", "two", "three")


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).normal(0, 0.4, shape).astype(np.float32)


def old_style(batch: str = "1") -> onnx.ModelProto:
    """Opset 7, weights among the inputs, nodes without names, batch norm, a weight that a Reshape unpacks, a bias as [1, 3]."""
    model = onnx.parser.parse_model(f"""
        <ir_version: 3, opset_import: ["" : 7]>
        net (float[{batch},2,8,8] picture, float[16,2,3,3] kernel, float[16] g, float[16] b, float[16] m, float[16] v,
             float[16,1,3] dense, int64[2] flat, int64[2] square, float[1,3] bias) => (float[{batch},3] image) {{
          c = Conv <pads = [1,1,1,1]> (picture, kernel)
          n = BatchNormalization (c, g, b, m, v)
          r = Relu (n)
          p = GlobalAveragePool (r)
          f = Reshape (p, flat)
          w = Reshape (dense, square)
          d = MatMul (f, w)
          image = Add (d, bias)
        }}""")
    constants = {"kernel": weights(16, 2, 3, 3), "dense": weights(16, 1, 3), "bias": weights(1, 3), "g": weights(16), "b": weights(16)}
    constants |= {"m": weights(16), "v": abs(weights(16)) + 1, "flat": np.array([-1, 16]), "square": np.array([16, 3])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def as_float16(model: onnx.ModelProto) -> onnx.ModelProto:
    from onnxruntime.transformers.float16 import convert_float_to_float16

    raised = onnx.version_converter.convert_version(model, 17)
    held = {tensor.name for tensor in raised.graph.initializer}
    real = [tensor for tensor in raised.graph.input if tensor.name not in held]
    raised.graph.ClearField("input")
    raised.graph.input.extend(real)
    return convert_float_to_float16(raised, keep_io_types=False)


def data(folder: Path, arrays: dict[str, np.ndarray], labels=LABELS) -> Path:
    """models/data with these samples, all of them for calibration."""
    (folder / "inputs").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"inputs/{name}.npy", array)
    count = len(next(iter(arrays.values())))
    np.save(folder / "targets.npy", np.zeros(count, np.int64))
    (folder / "splits.json").write_text(json.dumps({"train": [], "validation": [], "calibration": list(range(count))}))
    tensors = tuple(Port(name, (None, *array.shape[1:]), str(array.dtype)) for name, array in arrays.items())
    artifact.write(folder, Manifest(kind="data", labels=labels, inputs=tensors, preprocessing={"kind": "arrays"}))
    return folder


def pictures() -> dict[str, np.ndarray]:
    return {"image": np.random.default_rng(0).normal(0, 1, (20, 2, 8, 8)).astype(np.float32)}


def imported(path: Path, samples: Path, folder: Path) -> dict:
    folder.mkdir()
    fields = dict(onnx_file.obtain(onnx_file.Settings(path=str(path)), samples, Train(name="default"), 0, folder))
    tensors = {side: tuple(Port(**{**t, "shape": tuple(t["shape"])}) for t in fields[side]) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", format=fields["format"], details=fields["details"], labels=LABELS, **tensors))
    return fields


def sqnr_db(source: Path, folder: Path, runner=run) -> float:
    inputs, expected = checks.read_probe(source)
    session = runner.load(str(folder), {"threads": 1, **(runner.AS_WRITTEN or {})})
    return checks.check_outputs(expected, isolation.run_batched(session, inputs), -100.0)


@pytest.mark.parametrize("kind", ["fixed batch", "open batch", "float16", "external data"])
def test_files_of_all_kinds_reach_both_formats(kind, tmp_path):
    model = old_style("N" if kind == "open batch" else "1")
    model = as_float16(model) if kind == "float16" else model
    path = tmp_path / "mine.onnx"
    onnx.save(model, path, save_as_external_data=kind == "external data", location="mine.bin", size_threshold=500)
    fields = imported(path, data(tmp_path / "data", pictures()), tmp_path / "source")
    assert set(fields["details"]["layers"]) == {"Conv_0", "MatMul_6"}
    notes = " ".join(fields["details"]["notes"])
    assert ("opset 7 was converted to 20" in notes) == (kind != "float16")
    assert ("has the fixed batch size 1" in notes) == (kind != "open batch")
    assert ("float16 was converted" in notes) == (kind == "float16")
    for make, runner, described, name in [(make_onnx, run, facts, "onnx"), (make_openvino, run_openvino, facts_openvino, "openvino")]:
        (tmp_path / name).mkdir()
        made = make.convert(tmp_path / "source", tmp_path / name, CONF[name]["convert"])
        assert made["inputs"][0]["shape"] == [None if kind == "open batch" else 1, 2, 8, 8]
        assert sqnr_db(tmp_path / "source", tmp_path / name, runner) > (50 if kind == "float16" else 100)
        found = {node["name"]: node["elements"] for node in described.facts(tmp_path / name)["nodes"]}
        assert [found[node] for layer in ("Conv_0", "MatMul_6") for node in made["layers"][layer]] == [288, 48]


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_every_scheme_holds_its_word_and_keeps_what_is_to_stay_float(name, tmp_path):
    make, runner, described = (make_onnx, run, facts) if name == "onnx" else (make_openvino, run_openvino, facts_openvino)
    onnx.save(old_style(), tmp_path / "mine.onnx")
    imported(tmp_path / "mine.onnx", data(tmp_path / "data", pictures()), tmp_path / "source")
    parent = tmp_path / name
    parent.mkdir()
    layers = make.convert(tmp_path / "source", parent, CONF[name]["convert"])["layers"]
    feeds = [{"image": array[None]} for array in pictures()["image"]]
    for scheme, settings in CONF[name]["schemes"].items():
        for kept in ([], layers["Conv_0"]):
            folder = tmp_path / f"{scheme}-{len(kept)}"
            folder.mkdir()
            make.quantize(parent, tmp_path / "source", folder, scheme, settings, feeds, kept)
            assert checks.check_scheme(described.facts(folder), make.SCHEMES[scheme], kept if scheme != "fp32" else [], scheme) > 0
            assert sqnr_db(tmp_path / "source", folder, runner) > (0 if scheme == "int4-weight" else 10)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_an_int32_input_takes_ids_of_any_width(name, dtype, tmp_path):
    """tests/data/int32_input.onnx: ids [n, 12] to scores of five classes, an embedding of 50 words."""
    make, runner = (make_onnx, run) if name == "onnx" else (make_openvino, run_openvino)
    ids = {"ids": np.random.default_rng(0).integers(0, 50, (20, 12)).astype(dtype)}
    labels = tuple("abcde")
    imported(ROOT / "tests/data/int32_input.onnx", data(tmp_path / "data", ids, labels), tmp_path / "source")
    parent, folder = tmp_path / name, tmp_path / "int8"
    parent.mkdir(), folder.mkdir()
    make.convert(tmp_path / "source", parent, CONF[name]["convert"])
    assert sqnr_db(tmp_path / "source", parent, runner) > 100
    feeds = [{"ids": row[None]} for row in ids["ids"]]
    make.quantize(parent, tmp_path / "source", folder, "int8-static", CONF[name]["schemes"]["int8-static"], feeds, [])
    assert sqnr_db(tmp_path / "source", folder, runner) > 20


def test_several_inputs_by_their_place(tmp_path):
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N,3] left, float[N,3] logits) => (float[N,3] sum, float[N,3] extra) {
          extra = Sub (left, logits)
          sum = Mul (extra, left)
        }""")
    del model.graph.output[1:]
    onnx.save(model, tmp_path / "mine.onnx")
    arrays = {name: np.random.default_rng(seed).normal(size=(9, 3)).astype(np.float32) for seed, name in enumerate(("a", "b"))}
    imported(tmp_path / "mine.onnx", data(tmp_path / "data", arrays), tmp_path / "source")
    given = run.load(str(tmp_path / "source"), {}).run({"a": arrays["a"], "b": arrays["b"]})
    np.testing.assert_allclose(given["logits"], (arrays["a"] - arrays["b"]) * arrays["a"], rtol=1e-6)


def edited(change) -> onnx.ModelProto:
    model = old_style()
    change(model)
    return model


def with_nan(model):
    tensor = next(t for t in model.graph.initializer if t.name == "dense")
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.full((16, 1, 3), np.nan, np.float32), "dense"))


def without_inputs(model):
    del model.graph.input[0]
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights(1, 2, 8, 8), "picture"))


BAD = {
    "a text": (b"not a model at all", "is not an ONNX file"),
    "nothing": (b"", "is not an ONNX file: it has no nodes"),
    "cut short": (old_style().SerializeToString()[:300], "is not an ONNX file|cut short"),
    "old": (edited(lambda m: setattr(m.opset_import[0], "version", 6)), "opset 6 is too old; export it again with opset 7"),
    "custom": (edited(lambda m: setattr(m.graph.node[2], "domain", "my.ops")), "node r is my.ops.Relu, a custom operator"),
    "unknown operator": (
        edited(lambda m: setattr(m.graph.node[2], "op_type", "Rilu")),
        "node r is Rilu, which ONNX opset 7 does not have",
    ),
    "no inputs": (edited(without_inputs), "it has no inputs"),
    "NaN": (edited(with_nan), "returns NaN"),
}


@pytest.mark.parametrize("fault", BAD)
def test_a_bad_file_is_one_clear_line(fault, tmp_path):
    content, message = BAD[fault]
    path = tmp_path / "mine.onnx"
    path.write_bytes(content if isinstance(content, bytes) else content.SerializeToString())
    with pytest.raises(ModelError, match=message) as caught:
        imported(path, data(tmp_path / "data", pictures()), tmp_path / "source")
    assert str(caught.value).startswith("model.path: ") and "\n" not in str(caught.value)


def test_a_file_that_does_not_fit_the_data_says_what_both_are(tmp_path):
    path = tmp_path / "mine.onnx"
    onnx.save(old_style(), path)
    wide = {"image": np.zeros((4, 2, 9, 9), np.float32)}
    with pytest.raises(ModelError, match=r"expects \[2, 8, 8\] for picture, the data has \[2, 9, 9\] .*change data\.\* to match"):
        imported(path, data(tmp_path / "wide", wide), tmp_path / "a")
    imported(path, data(tmp_path / "two", pictures(), ("no", "yes")), tmp_path / "b")
    with pytest.raises(
        ModelError, match=r"returns image_out \[3\], the data has 2 labels \(no, yes\); name the model's own classes with data.label_names"
    ):
        artifact.require_scored(artifact.read(tmp_path / "b"), ("no", "yes"))
    for missing, message in [(tmp_path, "is a folder"), (tmp_path / "gone.onnx", "does not exist")]:
        with pytest.raises(ModelError, match=message):
            onnx_file.load(missing)


def test_external_data_that_is_gone_is_named(tmp_path):
    onnx.save(old_style(), tmp_path / "mine.onnx", save_as_external_data=True, location="mine.bin", size_threshold=500)
    (tmp_path / "mine.bin").unlink()
    with pytest.raises(ModelError, match=r"external data of .* keep it in the same folder"):
        onnx_file.load(tmp_path / "mine.onnx")


def test_mnist_of_opset_7_keeps_its_accuracy(tmp_path):
    path, folder = SHARED / "pretrained/mnist/mnist.onnx", SHARED / "mnist_test"
    if not path.exists() or not folder.exists():
        pytest.skip(f"{path} and {folder} are not here")
    from PIL import Image

    files = sorted(folder.glob("*/*.png"))
    images = np.stack([np.asarray(Image.open(file).convert("L"), np.float32) for file in files])[:, None]
    digits = np.array([int(file.parent.name) for file in files])
    fields = imported(path, data(tmp_path / "data", {"image": images[::20]}, tuple("0123456789")), tmp_path / "source")
    assert fields["details"]["notes"][0].startswith("opset 7 was converted to 20")
    for make, runner, name in [(make_onnx, run, "onnx"), (make_openvino, run_openvino, "openvino")]:
        (tmp_path / name).mkdir()
        make.convert(tmp_path / "source", tmp_path / name, CONF[name]["convert"])
        logits = isolation.run_batched(runner.load(str(tmp_path / name), {"threads": 1}), {"image": images})["logits"]
        assert abs((logits.argmax(1) == digits).mean() - 0.989) <= 0.005
