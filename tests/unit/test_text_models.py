"""Models that read token ids and a mask: built from the data's vocabulary, trained, exported with any batch."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Train
from edgewise.config.settings import build
from edgewise.errors import ConfigError
from edgewise.formats.onnx import make as onnx_make
from edgewise.formats.openvino import run as openvino_run
from edgewise.proof import checks, making
from edgewise.sources import transformers_model
from tests.conftest import ROOT

pytestmark = pytest.mark.framework

WORDS, LENGTH, SAMPLES = 40, 12, 90
SMALL = {
    "bert_mini": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences of random words; those with word 7 in them are of the second class."""
    folder, rng = tmp_path_factory.mktemp("text") / "data", np.random.default_rng(0)
    ids, length = rng.integers(10, WORDS, (SAMPLES, LENGTH)), rng.integers(4, LENGTH + 1, SAMPLES)
    targets = rng.integers(0, 2, SAMPLES)
    ids[targets == 1, 2] = 7
    mask = (np.arange(LENGTH) < length[:, None]).astype(np.int64)
    (folder / "inputs").mkdir(parents=True)
    for name, array in (("input_ids", ids * mask), ("attention_mask", mask), ("../targets", targets)):
        np.save(folder / f"inputs/{name}.npy", array)
    parts = {"train": range(50), "validation": range(50, 70), "calibration": range(70, 80), "test": range(80, 90)}
    artifact.write_json(folder / "splits.json", {name: list(part) for name, part in parts.items()})
    inputs = tuple(Port(name, (None, LENGTH), "int64", None, name) for name in ("input_ids", "attention_mask"))
    preprocessing = {"kind": "text", "vocab_size": WORDS, "length": LENGTH, "pad_id": 0}
    artifact.write(folder, Manifest("data", inputs=inputs, labels=("no", "yes"), preprocessing=preprocessing))
    return folder


def settings(name: str, **more: int) -> transformers_model.Settings:
    option = yaml.safe_load((ROOT / f"conf/model/{name}.yaml").read_text())
    option.pop("module")
    return build(transformers_model.Settings, {**option, "arguments": {**SMALL[name], **more}}, "model")


@pytest.mark.parametrize("name", SMALL)
def test_text_models_learn_and_export(text: Path, tmp_path: Path, name: str) -> None:
    train = Train("test", epochs=20, batch_size=10, learning_rate=3e-3, threads=1)
    fields = transformers_model.obtain(settings(name), text, train, 0, tmp_path)
    assert fields["training"]["accuracy_validation"] > 0.8
    assert [(entry["name"], entry["shape"], entry["dtype"]) for entry in fields["inputs"]] == [
        ("input_ids", [None, LENGTH], "int64"),
        ("attention_mask", [None, LENGTH], "int64"),
    ]
    program = torch.export.load(tmp_path / "program.pt2").module()
    with np.load(tmp_path / "probe.npz") as probe, torch.no_grad():
        for batch in (1, 5):
            given = program(*(torch.from_numpy(probe[f"in:{n}"][:batch]) for n in ("input_ids", "attention_mask")))
            np.testing.assert_allclose(given.numpy(), probe["out:logits"][:batch], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", SMALL)
def test_vocabulary_and_length_come_from_the_data(text: Path, name: str) -> None:
    module = transformers_model.create(settings(name), artifact.read(text))
    assert (module.config.vocab_size, module.config.max_position_embeddings, module.config.pad_token_id) == (WORDS, LENGTH, 0)
    own = dataclasses.replace(settings(name), arguments={**SMALL[name], "max_position_embeddings": 64})
    assert transformers_model.create(own, artifact.read(text)).config.max_position_embeddings == 64


def test_pictures_only_settings_are_refused(text: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.shift_pixels: 4 changes pictures, but this data set has none"):
        transformers_model.obtain(settings("bert_mini"), text, Train("x", shift_pixels=4), 0, tmp_path)


@pytest.mark.parametrize(("name", "more"), [*((name, {}) for name in SMALL), ("bert_mini", {"hidden_size": 1024, "num_hidden_layers": 1})])
def test_openvino_finds_every_layer_of_a_text_model(text: Path, tmp_path: Path, name: str, more: dict) -> None:
    """The table of positions is read at the same places in every run: the ONNX exporter folds a small one into what reads it, and leaves
    one of more than some thousand numbers, as of a real BERT, to OpenVINO."""
    openvino = pytest.importorskip("edgewise.formats.openvino.make")
    source, through, folder = (tmp_path / part for part in ("source", "onnx", "openvino"))
    for path in (source, through, folder):
        path.mkdir()
    fields = transformers_model.obtain(settings(name, **more), text, Train("test", epochs=0, batch_size=10, threads=1), 0, source)
    sides = {side: making.make_tensors(fields[side], artifact.read(text).inputs) for side in ("inputs", "outputs")}
    artifact.write(source, Manifest(kind="source", labels=("no", "yes"), format=fields["format"], details=fields["details"], **sides))
    layers = onnx_make.convert(source, through, {"opset": 20, "ir_version": 10})["layers"]
    artifact.write_json(through / "layers.json", layers)
    found = openvino.convert(through, folder, {})["layers"]
    assert found.keys() == layers.keys() and all(nodes for layer, nodes in found.items() if layers[layer])
    expected = checks.read_probe(source)
    assert checks.check_outputs(expected[1], openvino_run.load(str(folder), {"threads": 1}).run(expected[0]), 80.0) > 80
