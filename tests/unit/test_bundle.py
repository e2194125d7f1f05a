"""The bundle: whole, on its own, and clear about what is wrong with it."""

import argparse
import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path, PurePath

import numpy as np
import pytest
from PIL import Image

from edgewise.agent import answers, feeds, infer, preprocess, sessions
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.bundle import assembly, contents
from edgewise.config.schema import Budget, Plugin
from edgewise.errors import ConfigError, DeviceError
from tests.support.fabricate import FIVE, LABELS, fabricate, write_report

pytestmark = pytest.mark.framework  # the model of the bundle is made with onnx

CHOSEN = "onnx-int8-static"
SPEC = {
    **{"kind": "image", "size": [12, 16], "channels": 1, "resize": "crop", "interpolation": "bilinear", "scale": 1 / 255},
    **{"mean": [0.5], "std": [0.25], "layout": "NCHW", "dtype": "float32"},
}
DETECTOR = {"answer": "odds", "normal": 3, "threshold": 0.2, "meaning": "logits"}


def write_model(path: Path, features: int) -> None:
    """Flatten and one matrix, fixed."""
    import onnx
    from onnx import helper, numpy_helper

    weights = np.random.default_rng(0).normal(size=(features, len(LABELS))).astype(np.float32)
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, ["n", 1, 12, 16])
    logits = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["n", len(LABELS)])
    nodes = [helper.make_node("Flatten", ["image"], ["flat"]), helper.make_node("MatMul", ["flat", "w"], ["logits"])]
    graph = helper.make_graph(nodes, "net", [image], [logits], [numpy_helper.from_array(weights, "w")])
    onnx.save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), path)


SMALL = Budget("small", size_bytes=12_000_000)


def project(root: Path, spec: dict, chosen: str = CHOSEN, budget: Budget = SMALL) -> None:
    """A finished pipeline whose chosen variant is a real ONNX file, and whose answers are made as `spec` says."""
    fabricate(root, FIVE[:4], budget=budget)
    write_report()
    folder = root / "models/variants" / chosen
    write_model(folder / "model.onnx", 12 * 16)
    image = Port("image", (None, 1, 12, 16), "float32", "NCHW", "image")
    artifact.write(folder, replace(artifact.read(folder), inputs=(image,)))
    for name, change in ((f"evaluate/{chosen}", {"details": spec}), ("data", {"preprocessing": SPEC})):
        artifact.write(root / "models" / name, replace(artifact.read(root / "models" / name), **change))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle far away from its project, and a folder of pictures."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        project(root, {"answer": "highest"})
        assembly.make_bundle()
    target = tmp_path_factory.mktemp("device") / "bundle"
    shutil.move(root / "models/bundle", target)
    pictures = target.parent / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(1)
    for number in range(6):
        Image.fromarray(rng.integers(0, 255, (20, 30 + number, 3), np.uint8)).save(pictures / f"{number}.png")
    return target


@pytest.fixture
def copy(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def run(folder: Path, *arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess:
    """infer.py as a device would: another folder, no project on the path."""
    command = [sys.executable, "-I", str(folder / "infer.py"), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=120, cwd=folder.parent)


def said(done: subprocess.CompletedProcess) -> list[dict]:
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(folder: Path, pictures: list[Path]) -> list[dict]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model/model.onnx")
    feeds = [preprocess.normalize(preprocess.resize_to_spec(preprocess.decode_picture(str(path)), SPEC)[None], SPEC) for path in pictures]
    logits = np.concatenate([session.run(None, {"image": feed})[0] for feed in feeds])
    return answers.make_answers(logits, {"answer": "highest"}, LABELS)


def test_pictures_a_folder_and_frames_get_the_answers_of_the_model(made):
    pictures = sorted((made.parent / "pictures").iterdir())
    wanted = expected(made, pictures)
    one = said(run(made, str(pictures[0])))
    assert one == [{"sample": str(pictures[0]), **wanted[0]}]
    assert [each["label"] for each in said(run(made, str(made.parent / "pictures")))] == [each["label"] for each in wanted]
    frame = np.asarray(Image.open(pictures[2]))
    size = f"{frame.shape[1]}x{frame.shape[0]}"
    again = said(run(made, "--frames", size, stdin=frame.tobytes() * 3))
    assert [each["sample"] for each in again] == ["frame 0", "frame 1", "frame 2"]
    assert {each["label"] for each in again} == {wanted[2]["label"]}
    broken = run(made, "--frames", size, stdin=frame.tobytes()[:-1])
    assert broken.returncode == 2 and b"frame 0 ends after" in broken.stderr


def complaint(done: subprocess.CompletedProcess) -> str:
    text = done.stderr.decode()
    assert done.returncode == 2 and text.startswith("error: ") and text.count("\n") == 1, text
    return text


def test_the_checksums_cover_every_file_but_themselves(made):
    files = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert {"manifest.json", "model/manifest.json"} <= files
    assert set(json.loads((made / infer.CHECKSUMS).read_text())) == files - {infer.CHECKSUMS}


def test_what_a_file_manager_leaves_behind_is_no_harm(copy):
    (copy / "model/.DS_Store").touch()
    (copy / "code/__pycache__").mkdir()
    (copy / "code/__pycache__/json.cpython-39.pyc").touch()
    assert run(copy, "--check").returncode == 0


@pytest.mark.parametrize(
    ("stderr", "said"),
    [
        ("W0000 a runtime's own words\nerror: a.png: not a picture\nI0000 more\n", "a.png: not a picture"),
        ("Traceback (most recent call last):\n  File ...\nImportError: no module\n", "ImportError: no module"),
        ("", "infer.py ended with code 2"),
    ],
)
def test_of_what_a_bundle_said_on_the_device_the_reason_is_told(stderr, said):
    assert assembly.failure_reason({"code": 2, "stderr": stderr}) == said


@pytest.mark.parametrize("name", ["model/parts.json", "code/json.py"])
def test_a_file_left_over_from_another_bundle_is_named(copy, name):
    (copy / name).write_text("{}")
    assert f"{name}: not a file of this bundle; remove it" in complaint(run(copy, "--check"))


FILES = ("model/model.onnx", "infer.py", "code/edgewise/agent/preprocess.py", "bundle.json", "model/manifest.json", "manifest.json")


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_bit_anywhere_is_named(copy, name):
    path = copy / name
    content = bytearray(path.read_bytes())
    content[-2 if name.endswith(".onnx") else 10] ^= 1  # in a program: inside its docstring
    path.write_bytes(bytes(content))
    assert f"{name}: damaged: its sha256 is" in complaint(run(copy, "--check")) and "copy the whole bundle again" in complaint(run(copy))


def test_a_missing_file_is_named(copy):
    (copy / "requirements.txt").unlink()
    assert "requirements.txt: No such file" in complaint(run(copy, "--check"))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"onnxruntime": {"from": "99.1", "below": "100", "measured": "99.1"}}, r"this bundle needs onnxruntime >= 99.1 and < 100"),
        ({"onnxruntime": {"from": "0.1", "below": "1", "measured": "0.5"}}, "is installed: this bundle needs"),
        ({"no-such-runtime": {"from": "1", "below": "2", "measured": "1"}}, "no-such-runtime is not installed"),
    ],
)
def test_a_package_out_of_its_range_is_named(copy, change, said):
    settings = json.loads((copy / infer.SETTINGS).read_text())
    artifact.write_json(copy / infer.SETTINGS, {**settings, "requires": {**settings["requires"], **change}})
    (copy / infer.CHECKSUMS).unlink()
    contents.write_checksums(copy)
    text = complaint(run(copy, "--check"))
    (package,) = change
    asked = f"'{package}>={change[package]['from']},<{change[package]['below']}'"
    assert said in text and text.endswith(f"{sys.executable} -m pip install {asked}\n")


def test_one_command_mends_all_packages(monkeypatch):
    installed = {"numpy": "2.4.6", "pillow": "13.0.0"}
    monkeypatch.setattr(infer, "find_release", installed.get)
    monkeypatch.setattr(sys, "executable", "/home/pi/venv/bin/python")
    ranges = {"tflite": ("2", "3"), "numpy": ("1.26", "3"), "pillow": ("10", "13")}
    requires = {name: {"from": low, "below": high, "measured": low} for name, (low, high) in ranges.items()}
    with pytest.raises(
        infer.BundleError, match=r"tflite is not installed.*pi/venv/bin/python -m pip install 'tflite>=2,<3' 'pillow>=10,<13'$"
    ):
        infer.check_packages(requires)
    with pytest.raises(infer.BundleError, match=r"^pillow 13\.0\.0 is installed.*change it with: \S+ -m pip install 'pillow>=10,<13'$"):
        infer.check_packages({name: requires[name] for name in installed})


def test_what_is_no_picture_is_named(made, tmp_path):
    path = tmp_path / "note.jpg"
    path.write_text("not a picture")
    assert f"{path}: not a picture format that Pillow can read; give a picture" in complaint(run(made, str(path)))
    assert "No such file" in complaint(run(made, str(tmp_path / "gone.png")))
    assert "no samples" in complaint(run(made))


def test_bad_files_are_named_and_the_others_answered(made, tmp_path):
    folder = Path(shutil.copytree(made.parent / "pictures", tmp_path / "pictures"))
    content = (folder / "3.png").read_bytes()
    (folder / "0-note.jpg").write_text("not a picture")
    (folder / "2-empty.png").touch()
    (folder / "3-half.png").write_bytes(content[: len(content) // 2])
    done = run(made, str(folder), str(tmp_path / "gone.png"), str(folder / "1.png"))
    names = [Path(json.loads(line)["sample"]).name for line in done.stdout.splitlines()]
    assert names == ["0.png", "1.png", "2.png", "3.png", "4.png", "5.png", "1.png"]
    lines = done.stderr.decode().splitlines()
    bad = [str(folder / "0-note.jpg"), str(folder / "2-empty.png"), str(folder / "3-half.png"), str(tmp_path / "gone.png")]
    assert done.returncode == 2 and len(lines) == 4
    assert all(line.startswith(f"error: {path}: ") for line, path in zip(lines, bad, strict=True))


def test_a_folder_without_files_is_named(made, tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"no samples: there is no file in {tmp_path / 'empty'}" in complaint(run(made, str(tmp_path / "empty")))


def test_a_folder_that_cannot_be_listed_is_named_and_the_others_are_read(tmp_path, monkeypatch):
    for name in ("a.png", "closed/b.png", "open/c.png", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(tmp_path / name)
    real = os.listdir

    def listdir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "listdir", listdir)
    assert list(feeds.list_files([str(tmp_path)])) == [str(tmp_path / name) for name in ("a.png", "closed", "open/c.png")]
    assert isinstance(feeds.read_picture(str(tmp_path / "closed"), SPEC, "image"), ValueError)


def test_a_name_that_is_not_utf_8_stops_nothing(made, tmp_path):
    """In a locale without UTF-8 too: a line of JSON is UTF-8, and what cannot be said in it is escaped as JSON escapes it."""
    folder = Path(shutil.copytree(made.parent / "pictures", tmp_path / "pictures"))
    (folder / "0.png").rename(folder / os.fsdecode(b"0\xff\xe4.png"))
    (folder / "1.png").rename(folder / "1\u00e4.png")
    command = [sys.executable, str(made / "infer.py"), str(folder)]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, capture_output=True, timeout=120, env=environment)
    assert [Path(each["sample"]).name for each in said(done)][:2] == ["0\udcff\udce4.png", "1\u00e4.png"]


ARRAYS = {"preprocessing": {"kind": "none"}, "inputs": [{"name": n, "shape": [None, 3], "dtype": "float32"} for n in ("a", "b")]}


def test_bad_arrays_are_named_and_the_others_read(tmp_path):
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.savez(tmp_path / "good.npz", a=rows, b=rows)
    np.savez(tmp_path / "uneven.npz", a=rows, b=rows[:1])
    np.savez(tmp_path / "lacks.npz", a=rows)
    np.savez(tmp_path / "scalar.npz", a=np.float32(1), b=rows)
    np.savez(tmp_path / "wide.npz", a=rows, b=np.zeros((2, 4), np.float32))
    (tmp_path / "half.npz").write_bytes((tmp_path / "good.npz").read_bytes()[:200])
    (tmp_path / "empty.npz").touch()
    names = ["empty", "half", "lacks", "scalar", "uneven", "wide", "good", "gone"]
    found = list(feeds.read_samples([str(tmp_path / f"{name}.npz") for name in names], None, ARRAYS, ""))
    bad = {Path(name).stem: str(given) for name, given in found if isinstance(given, ValueError)}
    assert list(bad) == [name for name in names if name != "good"]
    assert all(text.startswith(str(tmp_path / f"{name}.npz: ")) for name, text in bad.items())
    assert (
        "a has 2 rows, b has 1 rows; give the same number of rows for each input" in bad["uneven"]
        and "b has rows of [4], the model takes [3]" in bad["wide"]
    )
    good = [given for _, given in found if not isinstance(given, ValueError)]
    assert [given.feeds["b"].tolist() for given in good] == [[[0, 1, 2]], [[3, 4, 5]]]


def test_a_line_that_is_not_utf_8_is_named_and_the_others_read(tmp_path, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"one": 1, "two": 2, "?": 0}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one two\n\xff\xfe\ntwo\r\n"), "ascii"))
    settings = {"preprocessing": {"kind": "text", "tokenizer": "tokenizer.json"}, "inputs": []}
    found = list(feeds.read_samples(["-", "one"], None, settings, str(tmp_path)))
    assert [given.feeds["input_ids"].tolist() for _, given in found if not isinstance(given, ValueError)] == [[[1, 2]], [[2]], [[1]]]
    assert [str(given) for _, given in found if isinstance(given, ValueError)] == ["line 2 of stdin: not UTF-8; save it as UTF-8"]


class Moody:
    """A session that raises an error of its runtime's own for one sample and gives NaN for another."""

    def __init__(self, *folder_and_settings):
        self.count = 0

    def run(self, sample):
        self.count += 1
        if self.count == 1:
            raise MemoryError("out of\nmemory")
        return {"y": np.full((1, 2), np.nan if self.count == 2 else 0.25)}


def test_a_sample_that_the_model_cannot_take_stops_no_other(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", a=np.zeros((3, 3), np.float32), b=np.zeros((3, 3), np.float32))
    monkeypatch.setattr(sessions, "load", Moody)
    settings = {**ARRAYS, "runner": "json", "engine": {}, "answer": {"answer": "values"}, "labels": []}
    arguments = argparse.Namespace(samples=[str(tmp_path / "x.npz")], frames=None, stream=False, draw=None)
    first, second, third = infer.iterate_answers(arguments, settings)
    assert (
        isinstance(first, infer.BundleError) and str(first) == f"{tmp_path}/x.npz[0]: the model gives no answer: MemoryError: out of memory"
    )
    assert isinstance(second, infer.BundleError) and "x.npz[1]: the model's answer holds NaN or infinity" in str(second)
    assert json.loads(third) == {"sample": f"{tmp_path}/x.npz[2]", "values": [0.25, 0.25]}


def test_versions_compare_by_their_numbers():
    assert infer.parse_release("1.19.2+cpu") == (1, 19, 2) and infer.parse_release("2026.0.0rc1") == (2026,)
    assert infer.parse_release("1.19.0") <= infer.parse_release("1.19") <= infer.parse_release("1.19.0") and infer.parse_release(
        "10"
    ) > infer.parse_release("9.9")
    assert infer.parse_release("1.9") < infer.parse_release("1.19") < infer.parse_release("2")


def test_the_card_tells_figures_device_and_hashes(made):
    text, card = (made / "card.md").read_text(), json.loads((made / "card.json").read_text())
    assert "−0.37 [−1.46, +0.54]" in text and "Fabricated CPU" in text and "latency p50, ms | 0.992 [0.968, 1.02]" in text
    assert card["figures"]["accuracy_delta"] == pytest.approx(-2 / 540) and card["reference"] == "onnx-fp32"
    assert all(len(digest) == 64 for digest in card["provenance"]["files_sha256"].values())
    lines = (made / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith("onnxruntime>=1.19,<2") and "pillow>=10,<13" in lines


def test_the_card_is_named_after_the_users_files():
    model, data = Plugin("onnx_file", "x", {"path": "nets/my.onnx"}), Plugin("image_folder", "y", {"path": "/data/tiles"})
    assert contents.make_title(model, data) == "my on tiles"


def test_without_a_choice_there_is_a_manifest_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path, FIVE[:4], budget=Budget("tiny", size_bytes=1000))
    write_report()
    assembly.make_bundle()
    made = artifact.read(Path("models/bundle"))
    assert made.status == "none" and "nothing fits; nearest:" in made.reason and "nothing is chosen" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="models/bundle is none: nothing fits"):
        assembly.send_bundle("device")


def test_a_bundle_of_the_reference_says_that_nothing_is_gained(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    project(tmp_path, {"answer": "highest"}, "onnx-fp32", Budget("strict", accuracy_drop_points=0.1))
    assembly.make_bundle()
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("bundle: onnx-fp32 in models/bundle; copy the folder")
    assert second.startswith("bundle: onnx-fp32 is the reference itself, so nothing is gained: ")


def test_a_detector_says_what_its_threshold_makes_of_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project(tmp_path, DETECTOR)
    assembly.make_bundle()
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (12, 16), np.uint8)).save(stream, "PNG")
    (tmp_path / "one.png").write_bytes(stream.getvalue())
    (found,) = said(run(tmp_path / "models/bundle", str(tmp_path / "one.png")))
    assert found["defect"] is (found["score"] > 0.2) and (found["label"] == LABELS[3]) is not found["defect"]


def test_on_the_device_it_answers_for_the_first_test_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    project(tmp_path, {"answer": "highest"})
    assembly.make_bundle()
    assembly.send_bundle("local")
    text = capsys.readouterr().out
    assert 'its answer for the first test sample: {"sample": ' in text and '"probability": ' in text
    data = tmp_path / "models/data"
    first = json.loads((data / "splits.json").read_text())["test"][0]
    assert text.splitlines()[-1] == f"bundle: that sample's own label: {LABELS[np.load(data / 'targets.npy')[first]]}"
    artifact.write(data, replace(artifact.read(data), details={"targets": "none"}))
    assert assembly.read_true_label(data) is None
    (tmp_path / "models/bundle/model/model.onnx").write_bytes(b"")
    with pytest.raises(DeviceError, match=r"model/model\.onnx: damaged"):
        assembly.send_bundle("device")
    with pytest.raises(ConfigError, match=r"--to pi: the configured device is 'local'"):
        assembly.send_bundle("pi")


@pytest.mark.parametrize(
    ("version", "following"), [("1.5.1+cpu", "1.6"), ("1.5rc1", "1.6"), ("3", "3.1"), ("2.0", "2.1"), ("2026.4.0.dev20261101", "2026.5")]
)
def test_the_next_minor_release_of_whatever_is_installed(version, following):
    assert contents.next_minor(version) == following


def test_a_release_candidate_of_the_runtime_has_a_range():
    plain = Manifest(kind="variant")
    assert contents.runtime_range(plain, "1.19", "2.0rc1") == ("1.19", "3")
    tied = replace(plain, details={"file": {"release": "1.20rc2"}})
    assert contents.runtime_range(tied, "1.19", "1.20rc2") == ("1.20rc2", "1.21")


@pytest.mark.parametrize("printed", ["", "Welcome\n", "\n{}\n", "[1]\n"])
def test_what_a_device_prints_in_place_of_an_answer_is_quoted(printed):
    with pytest.raises(DeviceError, match=r"infer\.py printed no answer but ") as caught:
        assembly.read_answer({"code": 0, "stdout": printed, "stderr": ""})
    assert caught.value.fault == "protocol" and repr(printed) in str(caught.value)


@pytest.mark.parametrize("text", ["-5 stars, FOLDER", "--check", "a plain sentence"])
def test_a_sentence_that_looks_like_an_option_is_a_sample_on_the_device(tmp_path, monkeypatch, text):
    """Given as it is: no option of infer.py, and no word in it is replaced."""
    given: list[dict] = []

    class Board:
        def place(self, folder):
            return f"/there/{folder.name}"

        def run(self, job, deadline_s):
            given.append(job)
            return [{"event": "bundle", "code": 0, "stdout": "{}\n", "stderr": ""}]

    monkeypatch.setattr(assembly, "sample_input", lambda bundle, data: contextlib.nullcontext((tmp_path, [text, PurePath("sample.npz")])))
    monkeypatch.setattr(assembly, "lock", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(assembly, "connect", lambda device: contextlib.nullcontext(Board()))
    assembly.run_on_device(Plugin("board", "board"), Path("bundle"), Path("data"))
    assert given[0]["arguments"] == ["--", text, f"/there/{tmp_path.name}/sample.npz"]
