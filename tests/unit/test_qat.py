"""int8-qat: a net that static int8 with one scale a tensor ruins, fine-tuned with fake quantization."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Train, Tuning
from edgewise.errors import VariantFailed
from edgewise.formats.onnx import facts, make, run
from edgewise.proof import checks
from tests.conftest import ROOT
from tests.support import sources

pytestmark = pytest.mark.framework

pytest.importorskip("torchao")
CONF = yaml.safe_load((ROOT / "conf/format/onnx.yaml").read_text())
TRAIN = Train("test", optimizer="sgd", monitor="last", threads=1)


def spread(net) -> None:
    """Channels of very different size that compute the same: one scale for all of them leaves the small ones without a bit."""
    import torch

    factors = torch.logspace(-1.8, 1.8, 16)
    with torch.no_grad():
        for tensor in (net.norm.weight, net.norm.bias, net.depthwise.bias):
            tensor *= factors
        net.block[0].weight /= factors.view(1, -1, 1, 1)


def faint(net) -> None:
    """Values so small before its first batch norm that the epsilon, another one than torch's own, is most of their variance."""
    import torch

    with torch.no_grad():
        for tensor, factor in ((net.stem.weight, 1e-2), (net.norm.running_mean, 1e-2), (net.norm.running_var, 1e-4)):
            tensor *= factor
        net.norm.eps = 1e-3


def project(folder: Path, change: Callable) -> Path:
    """source/, the net of tests/support/sources.py after `change`; data/; an empty tuned/."""
    from edgewise.sources import torch_source

    net = sources.trained()
    change(net.eval())
    (folder / "source").mkdir()
    fields = torch_source.export(torch_source.wrap(net), {"image": sources.pictures(16, 99)[0]}, ("logits",), folder / "source")
    image = Port("image", (None, 3, 16, 16), "float32", "NCHW", "image")
    sides = {"inputs": (image,), "outputs": (Port("logits", (None, 4), "float32"),)}
    artifact.write(folder / "source", Manifest(kind="source", format="torch", labels=sources.LABELS, details=fields["details"], **sides))
    write_data(folder / "data", image)
    (folder / "tuned").mkdir()
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    """A project with a spread net, and in tuned/ what came of it."""
    from edgewise.compress import qat

    folder = project(tmp_path_factory.mktemp("models"), spread)
    qat.fine_tune(folder / "source", folder / "data", Tuning(8, 2e-2, False), TRAIN, 0, folder / "tuned")
    return folder


def write_data(folder: Path, image: Port) -> None:
    (folder / "inputs").mkdir(parents=True)
    pictures, targets = sources.pictures(256, 5)
    np.save(folder / "inputs/image.npy", pictures)
    np.save(folder / "targets.npy", targets)
    splits = {"train": range(160), "validation": range(160, 200), "calibration": range(200, 256), "test": ()}
    (folder / "splits.json").write_text(json.dumps({name: list(indices) for name, indices in splits.items()}))
    artifact.write(folder, Manifest(kind="data", inputs=(image,), labels=sources.LABELS, preprocessing={"kind": "array"}))


def accuracy(source: Path, scheme: str, folder: Path) -> float:
    """Of an ONNX file with int8 throughout, one scale a tensor, on pictures that nothing has seen."""
    for name in ("float", "int8"):
        (folder / name).mkdir(parents=True)
    layers = make.convert(source, folder / "float", CONF["convert"])["layers"]
    feeds = [{"image": picture[None]} for picture in sources.pictures(32, 7)[0]]
    throughout = {"per_channel": False, **({"spread": "int8"} if "spread" in CONF["schemes"][scheme] else {})}
    make.quantize(folder / "float", source, folder / "int8", scheme, {**CONF["schemes"][scheme], **throughout}, feeds, [])
    assert checks.check_scheme(facts.facts(folder / "int8"), make.SCHEMES[scheme], [], scheme) == 1.0 and len(layers) == 4
    pictures, targets = sources.pictures(400, 11)
    return float((run.load(str(folder / "int8"), {"threads": 1}).run({"image": pictures})["logits"].argmax(1) == targets).mean())


@pytest.mark.slow
def test_it_wins_back_much_of_what_static_int8_loses(models, tmp_path):
    static = accuracy(models / "source", "int8-static", tmp_path / "static")
    trained = accuracy(models / "tuned", "int8-qat", tmp_path / "qat")
    assert static < 0.5 < 0.6 < trained  # 0.27 (chance is 0.25) and 0.75


@pytest.mark.pipeline
def test_what_comes_out_is_a_source_under_the_same_names(models):
    from safetensors.numpy import load_file

    before, after = (load_file(models / name / "weights.safetensors") for name in ("source", "tuned"))
    assert {name: array.shape for name, array in before.items()} == {name: array.shape for name, array in after.items()}
    assert not np.allclose(before["model.stem.weight"], after["model.stem.weight"])
    inputs, expected = checks.read_probe(models / "tuned")
    np.testing.assert_array_equal(inputs["image"], checks.read_probe(models / "source")[0]["image"])
    assert not np.allclose(expected["logits"], checks.read_probe(models / "source")[1]["logits"])
    assert artifact.read(models / "tuned").details["qat"] == {"epochs": 8, "learning_rate": 2e-2, "per_channel": False}


@pytest.mark.slow
def test_another_epsilon_of_the_batch_norms_changes_hands_and_not_the_function(tmp_path):
    """torchao folds them as if it were 1e-5: what was trained, and what is written, would be two functions."""
    import torch

    from edgewise.compress import qat

    folder = project(tmp_path, faint)
    program = torch.export.load(folder / "source/program.pt2")
    qat.set_batch_norm_epsilon(program)
    inputs, expected = checks.read_probe(folder / "source")
    with torch.no_grad():
        found = program.module(check_guards=False)(torch.from_numpy(inputs["image"])).numpy()
    np.testing.assert_allclose(found, expected["logits"], rtol=1e-4, atol=1e-4)
    assert {node.args[7] for node in program.graph.nodes if "batch_norm" in str(node.target)} == {1e-5}
    qat.fine_tune(folder / "source", folder / "data", Tuning(2, 1e-3, True), TRAIN, 0, folder / "tuned")
    assert accuracy(folder / "tuned", "int8-qat", tmp_path / "qat") > 0.6


@pytest.mark.pipeline
def test_a_net_that_would_be_written_as_another_one_is_no_source(tmp_path, monkeypatch):
    from edgewise.compress import qat

    folder = project(tmp_path, faint)
    monkeypatch.setattr(qat, "set_batch_norm_epsilon", lambda program: None)
    with pytest.raises(VariantFailed, match=r"with fake quantization, but .* without it"):
        qat.fine_tune(folder / "source", folder / "data", Tuning(2, 1e-3, True), TRAIN, 0, folder / "tuned")


def test_a_layer_with_its_norm_and_its_relu_is_rounded_once_and_a_mask_never():
    import torch
    from torch import nn
    from torchao.quantization import pt2e

    from edgewise.compress import qat

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.score = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.norm(self.conv(x)))
            return self.score(torch.relu(x + x.flip(-1)).mean((2, 3))) + -1e30

    model = torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 8),)).module(check_guards=False)
    pt2e.move_exported_model_to_train(model)
    qat.annotate(model, "activation", "weight")
    marks = {node.name: node.meta["quantization_annotation"] for node in model.graph.nodes if "quantization_annotation" in node.meta}
    given = {name: list(mark.input_qspec_map.values()) for name, mark in marks.items() if mark.input_qspec_map}
    assert given.pop("mean") == [marks["mean"].output_qspec]  # shared
    assert given == {"conv2d": ["activation", "weight"], "add": ["activation"] * 2, "linear": ["activation", "weight"]}
    assert {name for name, mark in marks.items() if mark.output_qspec == "activation"} == {"relu", "relu_1", "linear"}


def test_a_source_without_a_program_is_the_variants_reason(models, tmp_path):
    from edgewise.compress import qat

    artifact.write(tmp_path, Manifest(kind="source", format="keras"))
    with pytest.raises(VariantFailed, match="not from a source of format keras"):
        qat.fine_tune(tmp_path, models / "data", Tuning(1, 1e-3, True), TRAIN, 0, tmp_path)
