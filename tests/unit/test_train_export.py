"""The stage as a whole, on real digits: what it writes, that it repeats itself, that nothing half made is left."""

import dataclasses
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgewise.agent import ragged
from edgewise.artifacts import artifact
from edgewise.config.schema import Train
from edgewise.errors import MissingExtra, ModelError, UserError
from edgewise.sources.model_source import find_collapsed, find_unsuited
from stages import train_export
from tests.conftest import ROOT
from tests.support.training_project import TINY, make_project, write_config

pytestmark = pytest.mark.framework

TRAIN = Train("test", epochs=2, batch_size=32, learning_rate=0.01, shift_pixels=1, threads=1)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run() -> tuple[artifact.Manifest, dict]:
    train_export.main()
    return artifact.read(Path("models/source")), json.loads(Path("metrics/train.json").read_text())


def start(place: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "stages.train_export"]
    return subprocess.Popen(command, cwd=place, env={"PYTHONPATH": str(ROOT), "PATH": ""}, stderr=subprocess.PIPE, text=True)


def test_writes_a_source_by_the_contract(here: Path) -> None:
    samples = make_project(here, TRAIN)
    manifest, metrics = run()
    assert (manifest.kind, manifest.format, manifest.status, manifest.labels) == ("source", "torch", "ok", samples.labels)
    assert [(t.name, t.shape, t.dtype, t.layout, t.meaning) for t in manifest.inputs] == [
        ("image", (None, 3, 16, 16), "float32", "NCHW", "image")
    ]
    assert [(t.name, t.shape, t.dtype, t.meaning) for t in manifest.outputs] == [("logits", (None, 10), "float32", "logits")]
    assert manifest.preprocessing == samples.preprocessing
    assert set(manifest.files) == {"program.pt2", "weights.safetensors", "probe.npz"}
    assert metrics["weights_sha256"] == manifest.files["weights.safetensors"]["sha256"]
    assert [row["epoch"] for row in metrics["curve"]] == [1, 2] and metrics["epochs"] == 2
    assert {"loss_train", "loss_validation", "accuracy_validation", "learning_rate"} <= set(metrics["curve"][0])
    with np.load("models/source/probe.npz") as probe:
        calibration = samples.feeds(samples.indices("calibration")[:16])
        np.testing.assert_array_equal(probe["in:image"], calibration["image"])
        assert probe["out:logits"].shape == (16, 10)


def test_accuracy_is_that_of_the_exported_program(here: Path) -> None:
    samples = make_project(here, TRAIN)
    _, metrics = run()
    chosen = samples.indices("validation")
    program = torch.export.load("models/source/program.pt2").module()
    answers = program(torch.from_numpy(samples.feeds(chosen)["image"])).argmax(1).numpy()
    assert metrics["accuracy_validation"] == pytest.approx(np.mean(answers == samples.targets(chosen)))


@pytest.mark.pipeline
def test_the_same_seed_gives_the_same_files_in_another_process_and_place(tmp_path: Path) -> None:
    jobs = []
    for place in ("here", "somewhere/else"):
        (tmp_path / place).mkdir(parents=True)
        make_project(tmp_path / place, TRAIN)
        jobs.append(start(tmp_path / place))
    for job in jobs:
        assert (job.communicate()[1], job.returncode) == ("", 0)
    first, second = (tmp_path / place for place in ("here", "somewhere/else"))
    assert artifact.describe_files(first / "models/source") == artifact.describe_files(second / "models/source")
    for name in ("models/source/manifest.json", "metrics/train.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_source_goes_on_from_its_own_weights(here: Path) -> None:
    make_project(here, TRAIN)
    _, metrics = run()
    kept = Path("kept.safetensors")
    kept.write_bytes(Path("models/source/weights.safetensors").read_bytes())
    make_project(here / "next", Train("test", epochs=0), {**TINY, "weights": str(kept.resolve())})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here / "next")
        manifest, again = run()
    assert again["weights_sha256"] == metrics["weights_sha256"]
    assert again["accuracy_validation"] == metrics["accuracy_validation"] and again["epochs"] == 0
    assert manifest.details["initial_weights_sha256"] == artifact.sha256(kept)
    assert str(here) not in (here / "next/models/source/manifest.json").read_text()


def test_bad_weights_leave_nothing_behind(here: Path) -> None:
    make_project(here, TRAIN)
    run()
    weights = load_file("models/source/weights.safetensors")
    weights["model.classifier.1.bias"].fill_(float("nan"))
    save_file(weights, "bad.safetensors")
    make_project(here / "next", TRAIN, {**TINY, "weights": str(Path("bad.safetensors").resolve())})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here / "next")
        with pytest.raises(ModelError, match="NaN or infinite"):
            run()
    assert sorted(path.name for path in (here / "next/models").rglob("*") if path.is_dir()) == [".tmp", "data", "inputs"]
    assert not (here / "next/metrics").exists()


def test_killed_in_the_middle_leaves_nothing_that_looks_whole(here: Path) -> None:
    make_project(here, dataclasses.replace(TRAIN, epochs=10_000))
    job, workshop = start(here), here / "models/.tmp/models-source"
    while not workshop.exists() and job.poll() is None:
        time.sleep(0.05)
    job.kill()
    job.communicate()
    assert workshop.exists() and not (here / "models/source").exists() and not (here / "metrics").exists()
    write_config(here, dataclasses.replace(TRAIN, epochs=0))
    assert run()[0].ok and not workshop.exists()


def test_pictures_of_one_channel_and_two_classes(here: Path) -> None:
    make_project(here, TRAIN, channels=1, classes=2)
    manifest, metrics = run()
    assert manifest.inputs[0].shape == (None, 1, 16, 16) and manifest.outputs[0].shape == (None, 2)
    assert metrics["accuracy_validation"] > 0.8


def test_a_missing_package_names_its_extra(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_project(here, TRAIN)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"'transformers' is not installed; .*\[train\]"):
        run()


def test_a_model_for_other_pictures(here: Path) -> None:
    make_project(here, TRAIN, {"callable": "torch.nn.Linear", "arguments": {"in_features": 5, "out_features": 10}}, "python_callable")
    with pytest.raises(UserError, match=r"does not accept image \[16, 3, 16, 16\]"):
        run()


@pytest.mark.parametrize(
    ("pictures", "logits", "warned"),
    [
        (np.arange(48.0).reshape(16, 3), np.tile([3.0, -1.0], (16, 1)), True),
        (np.arange(48.0).reshape(16, 3), 5 + 1e-7 * np.arange(32.0).reshape(16, 2), True),
        (np.arange(48.0).reshape(16, 3), np.arange(32.0).reshape(16, 2), False),
        (np.ones((16, 3)), np.ones((16, 2)), False),
    ],
    ids=["one answer", "one answer but for rounding", "answers", "one sample repeated"],
)
def test_a_source_that_answers_the_same_for_every_sample_is_named(tmp_path, pictures, logits, warned):
    np.savez(tmp_path / "probe.npz", **{"in:image": pictures, "out:logits": logits})
    found = find_collapsed(tmp_path)
    assert [text.partition(" for every")[0] for text in found] == (["the source gives the same logits"] if warned else [])


def test_outputs_of_various_sizes_are_looked_at_too(tmp_path):
    """With resize: as_is each sample has a map of its own size."""
    pictures, maps = np.empty(2, object), np.empty(2, object)
    pictures[:] = [np.ones((1, 4, 6), np.float32), np.zeros((1, 8, 6), np.float32)]
    maps[:] = [np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(12, dtype=np.float32).reshape(4, 3)]
    np.savez(tmp_path / "probe.npz", **ragged.pack({"in:image": pictures, "out:map": maps}))
    assert find_collapsed(tmp_path) == []


@pytest.mark.parametrize(
    ("targets", "name", "epochs", "warned"),
    [
        ("boxes", "default", 6, True),
        ("masks", "default", 6, True),
        ("boxes", "detection", 40, False),
        ("classes", "default", 6, False),
        ("boxes", "default", 0, False),
    ],
)
def test_a_detector_trained_as_a_classifier_is_told_of_better_settings(targets, name, epochs, warned):
    data = artifact.Manifest(kind="data", details={"targets": targets})
    found = find_unsuited(dataclasses.replace(TRAIN, name=name), data, {"epochs": epochs})
    assert [f"train.name={'detection' if targets == 'boxes' else 'segmentation'}" in text for text in found] == ([True] if warned else [])
