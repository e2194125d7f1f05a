"""The bundle of a detector in an environment of its own: the boxes of the evaluation, picture by picture, and drawn."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgewise.agent.drawing import color_of
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.config.settings import build
from edgewise.data import surface
from edgewise.tasks.predictions import read_predictions
from tests.support.onnx_sources import model, node, normal
from tests.support.workspace import TINY, Workspace
from tests.system.bundles import infer, make_environment

pytestmark = pytest.mark.system

SIDE, STRIDE, CLASSES = 96, 8, 2
SURFACE = {"name": "surface", "targets": "boxes", "image_size": SIDE, "channels": 3, "samples": 80}
DECODING = {"head": "yolox", "outputs": {"predictions": "output"}, "strides": [STRIDE]}
SCORE, PIXELS = 1e-3, 0.1  # evaluation runs many pictures at once and on all cores, and infer.py rounds what it prints


def write_detector(path: Path) -> None:
    """A grid of cells that has learned nothing, and finds much: boxes as offsets, then scores behind a sigmoid."""
    import onnx

    channels, cells = 5 + CLASSES, (SIDE // STRIDE) ** 2
    weights = {
        "w": normal(channels, 3, STRIDE, STRIDE, seed=1) * np.float32(0.3),
        "rows": np.array([0, channels, -1], np.int64),
        "parts": np.array([4, channels - 4], np.int64),
    }
    nodes = [
        node("Conv", ["image", "w"], ["grid"], name="conv", strides=[STRIDE, STRIDE]),
        node("Reshape", ["grid", "rows"], ["flat"], name="flatten"),
        node("Transpose", ["flat"], ["cells"], name="turn", perm=[0, 2, 1]),
        node("Split", ["cells", "parts"], ["boxes", "logits"], name="part", axis=2),
        node("Sigmoid", ["logits"], ["scores"], name="squash"),
        node("Concat", ["boxes", "scores"], ["output"], name="join", axis=2),
    ]
    onnx.save(model(nodes, {"image": ["batch", 3, SIDE, SIDE]}, {"output": ["batch", cells, channels]}, weights), path)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    file = tmp_path_factory.mktemp("own") / "detector.onnx"
    write_detector(file)
    task = {"name": "detection", "decoding": DECODING, "threshold": 0.3}
    own = {"data": SURFACE, "model": {"name": "onnx_file", "path": str(file)}, "task": task}
    chosen = {"variants": {"onnx-fp32": {"format": "onnx", "scheme": "fp32"}}, "budget": {"name": "none", "size_bytes": 100_000_000}}
    made = Workspace(tmp_path_factory.mktemp("workspace"), {**TINY, **own, **chosen})
    made.repro("bundle")
    return made


@pytest.fixture(scope="module")
def python(workspace, tmp_path_factory) -> str:
    requirements = workspace.folder / "models/bundle/requirements.txt"
    return make_environment(f"{sys.version_info[0]}.{sys.version_info[1]}", requirements, tmp_path_factory.mktemp("environment"))


def file_name(sample: str) -> str:
    return sample.replace("/", "-")


@pytest.fixture(scope="module")
def pictures(workspace, tmp_path_factory) -> Path:
    """The test split as picture files."""
    folder = tmp_path_factory.mktemp("pictures")
    samples = Samples.open(workspace.folder / "models/data")
    wanted = set(samples.names(samples.indices("test")))
    settings = build(surface.Settings, schema.read(workspace.folder / "models/config.yaml").data.settings, "data")
    for item in surface.items(settings):
        if item.name in wanted:
            Image.fromarray(item.value[:, :, 0] if item.value.shape[2] == 1 else item.value).save(folder / f"{file_name(item.name)}.png")
    return folder


def judged(workspace: Workspace) -> dict[str, list[dict[str, Any]]]:
    """File name of a test picture -> what evaluate found in it above the threshold."""
    kept = read_predictions(workspace.folder / "models/evaluate/onnx-fp32")
    samples = Samples.open(workspace.folder / "models/data")
    ends = np.cumsum(kept.ports["counts"])
    found = {}
    for name, start, end in zip(samples.names(samples.indices("test")), ends - kept.ports["counts"], ends, strict=True):
        rows = zip(*(kept.ports[key][start:end] for key in ("classes", "scores", "corners")), strict=True)
        entries = [{"label": kept.labels[number], "score": float(score), "box": box.tolist()} for number, score, box in rows]
        found[file_name(name)] = [entry for entry in entries if entry["score"] > kept.spec["threshold"]]
    return found


def is_same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    apart = np.abs(np.subtract(one["box"], other["box"])).max()
    return one["label"] == other["label"] and abs(one["score"] - other["score"]) <= SCORE and bool(apart <= PIXELS)


def find_unmatched(expected: list[dict[str, Any]], said: list[dict[str, Any]], threshold: float) -> list[dict[str, Any]]:
    """What only one of the two has; those whose score is the threshold but for rounding may be missing."""
    left, missing = list(said), []
    for one in expected:
        twin = next((other for other in left if is_same(one, other)), None)
        left = [other for other in left if other is not twin]
        missing += [] if twin else [one]
    return [one for one in (*missing, *left) if one["score"] > threshold + SCORE]


def test_every_box_is_that_of_the_evaluation(workspace, pictures, python):
    done = infer(python, workspace.folder / "models/bundle", str(pictures))
    assert done.returncode == 0, done.stderr
    said = {Path(each["sample"]).stem: each["objects"] for each in map(json.loads, done.stdout.splitlines())}
    expected = judged(workspace)
    assert said.keys() == expected.keys() and len(said) >= 20 and sum(map(len, expected.values())) >= 100
    threshold = json.loads((workspace.folder / "models/bundle/bundle.json").read_text())["answer"]["threshold"]
    assert {name: odd for name in said if (odd := find_unmatched(expected[name], said[name], threshold))} == {}


def test_a_picture_is_drawn_with_its_boxes(workspace, pictures, python, tmp_path):
    name, found = max(judged(workspace).items(), key=lambda entry: len(entry[1]))
    done = infer(python, workspace.folder / "models/bundle", str(pictures / f"{name}.png"), "--draw", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    drawn, plain = (np.asarray(Image.open(path).convert("RGB")) for path in (tmp_path / f"out/{name}.png", pictures / f"{name}.png"))
    labels = json.loads((workspace.folder / "models/bundle/bundle.json").read_text())["labels"]
    colors = {color_of(labels.index(one["label"])) for one in found}
    assert drawn.shape == plain.shape and (drawn != plain).any()
    assert colors <= {tuple(pixel) for pixel in drawn.reshape(-1, 3).tolist()}
