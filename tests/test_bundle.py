"""The bundle: whole, on its own, and clear about what is wrong with it."""

import io
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages import bundle
from stages.bundling import contents
from stages.core import artifact
from stages.core.artifact import Tensor
from stages.core.config import Budget
from stages.core.errors import ConfigError
from stages.payload import answer, infer, preprocess
from tests.fabricate import FIVE, LABELS, fabricate, write_report

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


def project(root: Path, spec: dict) -> None:
    """A finished pipeline whose chosen variant is a real ONNX file, and whose answers are made as `spec` says."""
    fabricate(root, FIVE[:4], budget=Budget("small", size_bytes=12_000_000))
    write_report()
    folder = root / "models/variants" / CHOSEN
    write_model(folder / "model.onnx", 12 * 16)
    image = Tensor("image", (None, 1, 12, 16), "float32", "NCHW", "image")
    artifact.write(folder, replace(artifact.read(folder), inputs=(image,)))
    for name, change in ((f"evaluate/{CHOSEN}", {"details": spec}), ("data", {"preprocessing": SPEC})):
        artifact.write(root / "models" / name, replace(artifact.read(root / "models" / name), **change))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle far away from its project, and a folder of pictures."""
    root = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        project(root, {"answer": "highest"})
        bundle.make()
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
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, cwd=folder.parent)


def said(done: subprocess.CompletedProcess) -> list[dict]:
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def expected(folder: Path, pictures: list[Path]) -> list[dict]:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model/model.onnx")
    feeds = [preprocess.normalize(preprocess.fit(preprocess.decode(str(path)), SPEC)[None], SPEC) for path in pictures]
    logits = np.concatenate([session.run(None, {"image": feed})[0] for feed in feeds])
    return answer.answer(logits, {"answer": "highest"}, LABELS)


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


@pytest.mark.parametrize("name", ["model/model.onnx", "infer.py", "code/stages/payload/preprocess.py", "bundle.json"])
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
    contents.seal(copy)
    text = complaint(run(copy, "--check"))
    assert said in text and "pip install -r requirements.txt" in text


def test_what_is_no_picture_is_named(made, tmp_path):
    path = tmp_path / "note.jpg"
    path.write_text("not a picture")
    assert f"{path}: not a picture that Pillow knows; give a picture" in complaint(run(made, str(path)))
    assert "No such file" in complaint(run(made, str(tmp_path / "gone.png")))
    assert "nothing to answer" in complaint(run(made))


def test_versions_compare_by_their_numbers():
    assert infer.release("1.19.2+cpu") == (1, 19, 2) and infer.release("2026.0.0rc1") == (2026,)
    assert infer.release("1.19.0") <= infer.release("1.19") <= infer.release("1.19.0") and infer.release("10") > infer.release("9.9")
    assert infer.release("1.9") < infer.release("1.19") < infer.release("2")


def test_the_card_tells_figures_device_and_hashes(made):
    text, card = (made / "card.md").read_text(), json.loads((made / "card.json").read_text())
    assert "−0.37 [−1.46, +0.54]" in text and "Fabricated CPU" in text and "latency p50, ms | 0.992 [0.968, 1.02]" in text
    assert card["figures"]["accuracy_delta"] == pytest.approx(-2 / 540) and card["reference"] == "onnx-fp32"
    assert all(len(digest) == 64 for digest in card["provenance"]["files_sha256"].values())
    lines = (made / "requirements.txt").read_text().splitlines()
    assert lines[0].startswith("onnxruntime>=1.19,<2") and "pillow>=10,<13" in lines


def test_without_a_choice_there_is_a_manifest_with_the_reason(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path, FIVE[:4], budget=Budget("tiny", size_bytes=1000))
    write_report()
    bundle.make()
    made = artifact.read(Path("models/bundle"))
    assert made.status == "none" and "nothing fits; nearest:" in made.reason and "nothing is chosen" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="models/bundle is none: nothing fits"):
        bundle.send()


def test_a_detector_says_what_its_threshold_makes_of_a_picture(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    project(tmp_path, DETECTOR)
    bundle.make()
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (12, 16), np.uint8)).save(stream, "PNG")
    (tmp_path / "one.png").write_bytes(stream.getvalue())
    (found,) = said(run(tmp_path / "models/bundle", str(tmp_path / "one.png")))
    assert found["defect"] is (found["score"] > 0.2) and (found["label"] == LABELS[3]) is not found["defect"]


def test_on_the_device_it_answers_for_the_first_test_sample(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    project(tmp_path, {"answer": "highest"})
    bundle.make()
    bundle.send()
    text = capsys.readouterr().out
    assert "its answer for the first test sample: {'sample':" in text and "'probability':" in text
    (tmp_path / "models/bundle/model/model.onnx").write_bytes(b"")
    from stages.core.errors import DeviceError

    with pytest.raises(DeviceError, match=r"model/model\.onnx: damaged"):
        bundle.send()
