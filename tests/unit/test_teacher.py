"""train.teacher: a net that learns from another one, with labels and without."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.config.prune_settings import Distillation
from edgewise.config.schema import Train
from edgewise.data.dataset import probe_model
from edgewise.errors import ConfigError
from edgewise.proof import checks
from tests.support.training_project import TINY, make_data, make_project, write_config

pytestmark = pytest.mark.framework

torch = pytest.importorskip("torch")
TRAIN = Train("test", epochs=4, threads=1, monitor="loss", learning_rate=3e-3)
NARROW = {**TINY, "arguments": {**TINY["arguments"], "hidden_sizes": [8, 8]}}
LABELLED = {**NARROW, "arguments": {**NARROW["arguments"], "num_labels": 10}}


def train(root: Path, recipe: Train, settings=TINY) -> Path:
    from stages import train_export

    if not (root / "models/data").exists():
        make_data(root)
    write_config(root, recipe, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train_export.main()
    return root / "models/source"


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return train(tmp_path_factory.mktemp("teacher"), dataclasses.replace(TRAIN, epochs=10))


def distance(source: Path, teacher: Path) -> float:
    """Mean squared difference of the logits for the probe samples, over the variance of the teacher's."""
    outputs = [checks.read_probe(folder)[1]["logits"] for folder in (source, teacher)]
    return float(np.mean((outputs[0] - outputs[1]) ** 2) / outputs[1].var())


@pytest.mark.parametrize("file", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["a source", "a program"])
def test_a_net_comes_nearer_to_its_teacher_than_one_without(source, tmp_path, file):
    alone = train(tmp_path / "alone", TRAIN, NARROW)
    teacher = str(source / "program.pt2" if file else source)
    taught = train(tmp_path / "taught", dataclasses.replace(TRAIN, teacher=teacher, distillation=Distillation(weight=1.0)), NARROW)
    assert distance(taught, source) < 0.9 * distance(alone, source)


def test_unlabelled_pictures_are_enough(source, tmp_path):
    data = make_data(tmp_path)
    artifact.write(data, dataclasses.replace(artifact.read(data), labels=(), details={"targets": "none"}))
    recipe = dataclasses.replace(TRAIN, monitor="accuracy", teacher=str(source))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgewise.artifacts.artifact.require_scored", lambda *given: None)
        made = train(tmp_path, recipe, LABELLED)
    history = json.loads((tmp_path / "metrics/train.json").read_text())
    assert history["curve"][-1]["loss_validation"] < history["curve"][0]["loss_validation"]
    outputs = {port.name: port.meaning for port in artifact.read(made).outputs}
    assert outputs == {"logits": "logits"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda teacher: {"teacher": str(teacher.parent / "gone")}, "does not exist; name models/source"),
        (lambda teacher: {"teacher": str(teacher.parent / "data")}, "is a data of format None, not a source in torch"),
        (lambda teacher: {"teacher": str(teacher / "weights.safetensors")}, "is not a torch.export program"),
        (
            lambda teacher: {"teacher": str(teacher), "distillation": Distillation(features=1.0)},
            "the layers of a teacher that is a file cannot be read",
        ),
    ],
    ids=["absent", "data", "weights", "features"],
)
def test_what_is_no_teacher_is_said_in_one_line(source, tmp_path, change, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        train(tmp_path, dataclasses.replace(TRAIN, **change(source)), NARROW)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("train.")


@pytest.mark.parametrize(
    ("data", "words"), [({"classes": 4}, "knows the labels 0, 1"), ({"size": 24}, "was trained on data with size [16, 16]")]
)
def test_a_teacher_of_other_data_is_refused(source, tmp_path, data, words):
    make_project(tmp_path, TRAIN, **data)
    with pytest.raises(ConfigError, match=re.escape(words)):
        train(tmp_path, dataclasses.replace(TRAIN, teacher=str(source)), NARROW)


def test_another_content_of_the_teacher_is_noticed(tmp_path):
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "a").write_bytes(b"1")
    found = []
    for content in (b"1", b"2"):
        (folder / "a").write_bytes(content)
        probe_model({"teacher": str(folder)}, tmp_path / "model.json")
        found.append((tmp_path / "model.json").read_text())
    assert found[0] != found[1]
