"""Files that users bring and that cannot work: each is one clear line, and the stage that reads it lives."""

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.config.schema import Train
from edgewise.data import dataset
from edgewise.errors import DataError, ModelError
from edgewise.proof import making
from edgewise.sources import checkpoint, keras_file, model_source, onnx_file, tflite_file, torch_file
from tests.support import own_files
from tests.unit.test_prepare_data import plugin

pytestmark = pytest.mark.framework

Case = tuple[ModuleType, Callable[[Path], Path], str]


def cut(path: Path, share: float = 0.6) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def text(path: Path, content: bytes = b"this is no model") -> Path:
    path.write_bytes(content)
    return path


def bad_onnx(body: str = "logits = MatMul (x, w)", **changes) -> Callable[[Path], Path]:
    return lambda folder: own_files.onnx(folder / "mine.onnx", body, **changes)


def bad_tflite(**changes) -> Callable[[Path], Path]:
    return lambda folder: own_files.tflite(folder / "mine.tflite", **changes)


def other_name(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name))


NAN = np.full((4, 3), np.nan, np.float32)
ONNX: dict[str, Case] = {
    "onnx cut short": (onnx_file, lambda f: cut(own_files.onnx(f / "mine.onnx")), "is not an ONNX file, or truncated"),
    "tflite named onnx": (onnx_file, lambda f: other_name(own_files.tflite(f / "a.tflite"), "mine.onnx"), "is not an ONNX file"),
    "onnx that is text": (onnx_file, lambda f: text(f / "mine.onnx"), "is not an ONNX file"),
    "unknown operator": (onnx_file, bad_onnx("logits = Matmul (x, w)"), "node logits is Matmul, which ONNX opset 17 does not"),
    "newer operator": (onnx_file, bad_onnx("y = MatMul (x, w) logits = Gelu (y)"), "node logits is Gelu, which ONNX opset 17"),
    "custom operator": (onnx_file, bad_onnx("logits = my.ops.Fast (x, w)"), r"node logits is my\.ops\.Fast, a custom operator"),
    "no inputs": (onnx_file, bad_onnx("logits = Identity (w)", x=""), "it has no inputs"),
    "NaN weights": (onnx_file, bad_onnx(weights=NAN), "returns NaN"),
    "other rank": (onnx_file, bad_onnx(x="float[N,2,4]"), r"expects \[2, 4\] for x, the data has \[4\]"),
    "shapes that contradict": (onnx_file, bad_onnx("logits = MatMul (w, x)"), "Runtime rejects"),
    "no such file": (onnx_file, lambda f: f / "mine.onnx", "does not exist"),
}
TFLITE: dict[str, Case] = {
    "tflite cut short": (tflite_file, lambda f: cut(own_files.tflite(f / "mine.tflite")), "rejects|crashes|truncated"),
    "tflite cut to its head": (tflite_file, lambda f: cut(own_files.tflite(f / "mine.tflite"), 0.05), "rejects|crashes|truncated"),
    "onnx named tflite": (tflite_file, lambda f: other_name(own_files.onnx(f / "a.onnx"), "mine.tflite"), "is not a TFLite file"),
    "custom tflite operator": (tflite_file, bad_tflite(custom="MyOp"), "runtime rejects .*MyOp"),
    "tflite without inputs": (tflite_file, bad_tflite(no_inputs=True), "has no inputs; convert it again with its inputs"),
    "a tensor that is not there": (tflite_file, bad_tflite(stray=77), "rejects|crashes"),
}
TORCH: dict[str, Case] = {
    "a pickle": (torch_file, lambda f: text(f / "mine.pt2", pickle.dumps({"code": print})), "is not a torch.export program"),
    "onnx named pt2": (torch_file, lambda f: other_name(own_files.onnx(f / "a.onnx"), "mine.pt2"), "is not a torch.export program"),
}
KERAS: dict[str, Case] = {
    "h5 that is text": (keras_file, lambda f: text(f / "mine.h5"), "cannot load"),
    "keras cut short": (keras_file, lambda f: text(f / "mine.keras", b"PK\x03\x04" + bytes(40)), "is not a Keras file"),
    "another suffix": (keras_file, lambda f: text(f / "mine.hd5"), "is not a file that ends in"),
    "a folder of something": (keras_file, lambda f: f, r"is a folder without saved_model\.pb"),
}


@pytest.mark.parametrize("fault", [*ONNX, *TFLITE, *TORCH, *KERAS])
def test_a_bad_model_file_is_one_clear_line(fault, tmp_path):
    importer, build, message = (ONNX | TFLITE | TORCH | KERAS)[fault]
    for name in importer.REQUIRES:
        pytest.importorskip(name)
    (tmp_path / "own").mkdir()
    (tmp_path / "source").mkdir()
    path = build(tmp_path / "own")
    data = own_files.arrays(tmp_path / "data")
    settings = importer.Settings(path=str(path))
    with pytest.raises(ModelError, match=message) as caught:
        if fault in TFLITE:  # whose runtime trusts its files
            model_source.run_plugin(importer, settings, data, Train("test"), 0, tmp_path / "source")
        else:
            importer.obtain(settings, data, Train("test"), 0, tmp_path / "source")
    assert "\n" not in str(caught.value) and str(path.name) in str(caught.value)


@pytest.mark.parametrize(("importer", "build"), [(onnx_file, own_files.onnx), (tflite_file, own_files.tflite)])
@pytest.mark.parametrize("labels", [2, 5])
def test_labels_that_do_not_fit_the_outputs(importer, build, labels, tmp_path):
    """Outputs can be compared all the same; a task that scores says what to do. The file may name its output logits itself."""
    (tmp_path / "source").mkdir()
    settings = importer.Settings(path=str(build(tmp_path / "mine")))
    fields = importer.obtain(settings, own_files.arrays(tmp_path / "data", labels), Train("test"), 0, tmp_path / "source")
    assert "tried_samples" not in fields["training"]
    ports = {side: making.make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    with pytest.raises(ModelError, match=rf"returns \w+ \[3\], the data has {labels} labels \(a, b.*data\.label_names=FILE.*label_offset"):
        artifact.require_scored(artifact.Manifest("source", **ports), tuple("abcde"[:labels]))


@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_wider_and_narrower_floats_are_converted_and_said(dtype, tmp_path):
    (tmp_path / "source").mkdir()
    kind = {"float64": "double", "float16": "float16"}[dtype]
    weights = np.random.default_rng(0).normal(0, 1, (4, 3)).astype(dtype)
    path = own_files.onnx(tmp_path / "mine.onnx", x=f"{kind}[N,4]", weights=weights)
    fields = onnx_file.obtain(onnx_file.Settings(path=str(path)), own_files.arrays(tmp_path / "data"), Train("t"), 0, tmp_path / "source")
    assert f"{dtype} was converted to float32" in fields["details"]["notes"]


def test_the_good_ones_beside_them_are_taken(tmp_path):
    """The builders themselves are not at fault."""
    data = own_files.arrays(tmp_path / "data")
    opened = functools.partial(own_files.tflite, open_sides=True)
    for importer, build in ((onnx_file, own_files.onnx), (tflite_file, own_files.tflite), (tflite_file, opened)):
        (tmp_path / importer.FORMAT).mkdir(exist_ok=True)
        settings = importer.Settings(path=str(build(tmp_path / f"mine.{importer.FORMAT}")))
        fields = model_source.run_plugin(importer, settings, data, Train("test"), 0, tmp_path / importer.FORMAT)
        assert fields["training"]["tried_samples"] == 30


def npz(path: Path, **content) -> Path:
    np.savez(path, **content)
    return path


RAGGED = np.array([np.zeros(3), np.zeros(4)], dtype=object)
DATA = {
    "text with no label": ("text_tsv", lambda f: text(f / "t.tsv", b"a line\nanother\n" * 20), "40 of 40 .* cannot be read .*1 columns"),
    "text that is not UTF-8": ("text_tsv", lambda f: text(f / "t.tsv", b"caf\xe9\t1\n"), "is not UTF-8 at byte 3"),
    "ragged arrays": ("arrays", lambda f: npz(f / "a.npz", x=RAGGED, y=np.arange(2)), "no objects, no ragged rows"),
    "NaN": ("arrays", lambda f: npz(f / "a.npz", x=np.full((4, 2), np.nan), y=np.arange(4)), "2 of 2 values are NaN or infinite"),
    "rows that do not match": ("arrays", lambda f: npz(f / "a.npz", x=np.zeros((4, 2)), y=np.arange(3)), "must have one row per sample"),
    "labels between the classes": ("arrays", lambda f: npz(f / "a.npz", x=np.zeros((4, 2)), y=np.arange(4) / 2), "0.5 is not a class"),
    "a cut archive": ("arrays", lambda f: cut(npz(f / "a.npz", x=np.zeros((40, 2)), y=np.arange(40))), "give a .npy or .npz file"),
    "a folder without pictures": ("image_folder", lambda f: text(f / "notes.txt").parent, "no pictures in it; it must hold a folder"),
}


@pytest.mark.parametrize("fault", DATA)
def test_bad_data_is_one_clear_line(fault, tmp_path):
    name, build, message = DATA[fault]
    (tmp_path / "own").mkdir()
    data = plugin(name, path=str(build(tmp_path / "own")))
    with pytest.raises(DataError, match=message) as caught:
        dataset.prepare(data, 0, tmp_path / "models/data", tmp_path / "models")
    assert "\n" not in str(caught.value) and not (tmp_path / "models/data").exists()


def test_weights_that_are_cut_short_or_code(tmp_path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros((40, 40), np.float32)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="is a damaged or truncated safetensors file"):
        checkpoint.read_tensors(cut(tmp_path / "w.safetensors"))
    with pytest.raises(ModelError, match=r"model\.weights: .* (is refused|cannot be read)"):
        checkpoint.read_tensors(text(tmp_path / "w.pt", pickle.dumps({"run": print})))
