"""What is particular to the torch format: a dynamic batch, dynamic quantization as torch does it, plain archives."""

import hashlib
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest

from edgewise.formats.common.programs import to_graph_module
from edgewise.formats.torch import facts, make, run
from edgewise.proof import checks
from tests.conftest import ROOT
from tests.support import odd_source

pytestmark = [pytest.mark.framework, pytest.mark.formats]

MODEL = "model.pt"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return odd_source.write(tmp_path_factory.mktemp("torch") / "source")


@pytest.fixture(scope="module")
def float_model(source):
    folder = source.parent / "float"
    folder.mkdir()
    return folder, make.convert(source, folder, {})


def quantize(source, folder, *, per_channel=True, keep=(), scheme="int8-dynamic"):
    folder.mkdir()
    make.quantize(source.parent / "float", source, folder, scheme, {"per_channel": per_channel}, [], keep)
    return folder


def answers(folder, samples, **settings):
    return run.load(str(folder), {"threads": 1, **settings}).run({"ids": samples})["logits"]


def eager(per_channel: bool):
    """torch.ao.quantization.quantize_dynamic of the network itself, never exported."""
    import torch

    quantization = pytest.importorskip("torch.ao.quantization", reason="this torch has no quantize_dynamic any more")
    recipe = quantization.per_channel_dynamic_qconfig if per_channel else quantization.default_dynamic_qconfig
    with warnings.catch_warnings(action="ignore"):
        return quantization.quantize_dynamic(odd_source.network().eval(), {torch.nn.Linear: recipe})


def test_any_batch(source, float_model):
    inputs, expected = checks.read_probe(source)
    session = run.load(str(float_model[0]), {"threads": 1})
    assert session.inputs == [{"name": "ids", "shape": [None, 6], "dtype": "int64", "layout": None, "meaning": "token_ids"}]
    for count in (1, 2, 5, 16):
        given = session.run({"ids": inputs["ids"][:count]})
        np.testing.assert_allclose(given["logits"], expected["logits"][:count], atol=1e-6)


def test_layers_of_tied_and_unused_weights(float_model):
    folder, made = float_model
    nodes = {node["name"] for node in facts.facts(folder)["nodes"]}
    assert "never" not in made["layers"]
    assert made["layers"]["twice"] == ["model.twice"]
    tied = made["layers"]["words"]
    assert tied == made["layers"].get("head", tied)
    assert {node for named in made["layers"].values() for node in named} == nodes


@pytest.mark.parametrize("per_channel", [True, False])
def test_same_as_torchs_own_dynamic_quantization(per_channel, source, float_model, tmp_path):
    import torch

    samples = odd_source.ids(32, seed=1)
    with torch.no_grad():
        expected = eager(per_channel)(torch.from_numpy(samples)).numpy()
    given = answers(quantize(source, tmp_path / "v", per_channel=per_channel), samples)
    np.testing.assert_allclose(given, expected, atol=1e-5)


@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_and_scales_are_those_that_torchao_chooses(per_channel):
    import torch

    quantization = pytest.importorskip("torchao.quantization")
    torch.manual_seed(1)
    weight = torch.randn(6, 32) * torch.logspace(-3, 1, 6).unsqueeze(1)
    weight[2] = 0
    scheme, block = quantization.MappingType.SYMMETRIC, (1, 32) if per_channel else (6, 32)
    scale, zero = quantization.choose_qparams_affine(weight, scheme, block, torch.int8, -128, 127, torch.finfo(torch.float32).eps)
    held = facts.unpack_weight(make.pack_weight(weight, None, per_channel))
    assert torch.equal(held.int_repr(), quantization.quantize_affine(weight, block, scale, zero, torch.int8, -128, 127))
    torch.testing.assert_close(
        held.q_per_channel_scales().float() if per_channel else torch.tensor(held.q_scale()), scale.squeeze().float()
    )


def test_activations_have_seven_bits_over_the_range_of_the_batch():
    """Against numpy, with the rounding written out."""
    import torch

    drawn = np.random.default_rng(3)
    x, weight, bias = (drawn.normal(size=shape).astype(np.float32) for shape in ((5, 16), (7, 16), (7,)))
    packed = make.pack_weight(torch.from_numpy(weight), torch.from_numpy(bias), True)
    given = torch.ops.quantized.linear_dynamic(torch.from_numpy(x), packed, reduce_range=True).numpy()
    step = (x.max() - x.min()) / 127
    zero = np.rint(-x.min() / step)
    rounded = (np.clip(np.rint(x / step) + zero, 0, 127) - zero) * step
    steps = np.abs(weight).max(1, keepdims=True) / 127.5
    np.testing.assert_allclose(given, rounded @ (np.clip(np.rint(weight / steps), -128, 127) * steps).T + bias, atol=1e-4)


def test_int8_dynamic_needs_nothing_of_the_package_that_torch_removes(source, float_model, tmp_path, monkeypatch):
    import torch

    pytest.importorskip("torch.ao.quantization", reason="this torch has removed it")
    with zipfile.ZipFile(quantize(source, tmp_path / "v") / MODEL) as archive:
        assert not [name for name in archive.namelist() if "torch/ao" in name or b"torch.ao" in archive.read(name)]
    monkeypatch.delattr(torch.ao, "quantization")
    monkeypatch.setitem(sys.modules, "torch.ao.quantization", None)
    make.build(source, "int8-dynamic", {"per_channel": True}, [])


def test_a_weight_that_no_layer_holds_is_quantized_too():
    import torch

    class Bare(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight, self.mix = torch.nn.Parameter(torch.randn(8, 8)), torch.nn.Parameter(torch.randn(4, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.linear(torch.nn.functional.linear(x, self.weight), self.mix)

    torch.manual_seed(0)
    x = torch.randn(3, 8)
    module = Bare().eval()
    graph = make.quantize_linear(to_graph_module(torch.export.export(module, (x,)), ["x"]), [], True)
    torch.testing.assert_close(graph(x), module(x).detach(), atol=0.2, rtol=0)
    assert len(graph.graph.find_nodes(op="call_function", target=torch.ops.quantized.linear_dynamic)) == 2


def test_facts_count_what_the_network_holds(source, float_model, tmp_path):
    found = facts.facts(quantize(source, tmp_path / "v"))
    held = {name: p.numel() for name, p in odd_source.network().named_parameters() if p.ndim >= 2}
    linear = held["twice.weight"] + held["score.weight"] + held["words.weight"]
    others = held["words.weight"] + held["mix.weight"] + held["wide.weight"]  # the tied weight is stored twice now
    assert found["weights_bytes_by_dtype"] == {"float32": 4 * others, "int8": linear}
    assert found["weights_elements"] == linear + others == sum(node["elements"] for node in found["nodes"])
    kinds = {(node["name"], node["operator"]): node["weights_dtype"] for node in found["nodes"]}
    assert {key[1] for key, dtype in kinds.items() if dtype == "int8"} == {"linear"}
    assert kinds["model.mix", "conv1d"] == kinds["model.wide", "conv_transpose2d"] == "float32"


def test_kept_layer_stays_float_and_the_others_do_not(source, float_model, tmp_path):
    found = facts.facts(quantize(source, tmp_path / "v", keep=["model.twice"]))
    linear = {node["name"]: node["weights_dtype"] for node in found["nodes"] if node["operator"] == "linear"}
    assert linear.pop("model.twice") == "float32"
    assert set(linear.values()) == {"int8"}


def test_freezing_changes_nothing_in_the_answers(source, float_model, tmp_path):
    samples = odd_source.ids(8, seed=2)
    for folder in (float_model[0], quantize(source, tmp_path / "v")):
        np.testing.assert_allclose(answers(folder, samples), answers(folder, samples, freeze=True), atol=1e-5)


def test_an_unknown_engine_setting_is_refused(float_model):
    with pytest.raises(ValueError, match=r"unknown engine settings \['speed'\]; allowed: threads, freeze"):
        run.load(str(float_model[0]), {"threads": 1, "speed": 9})


def test_archives_name_no_place_and_no_process(source, float_model, tmp_path):
    folder = quantize(source, tmp_path / "v")
    with zipfile.ZipFile(folder / MODEL) as archive:
        assert not [name for name in archive.namelist() if name.endswith(".debug_pkl")]
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert b"site-packages" not in text
    assert b"eval_with_key" not in text
    assert str(ROOT).encode() not in text


@pytest.mark.pipeline
def test_another_process_writes_the_same_bytes(source, float_model, tmp_path):
    ours = [quantize(source, tmp_path / scheme, scheme=scheme) / MODEL for scheme in make.SCHEMES]
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    code = (
        "import sys; from pathlib import Path; from edgewise.formats.torch import make\n"
        "source, target = map(Path, sys.argv[1:])\n"
        "for scheme in make.SCHEMES:\n"
        "    folder = target / scheme; folder.mkdir()\n"
        "    make.quantize(source, source, folder, scheme, {'per_channel': True}, [], [])\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(source), str(theirs)], cwd=ROOT, capture_output=True, text=True, check=True)
    digests = [hashlib.sha256((theirs / path.parent.name / MODEL).read_bytes()).hexdigest() for path in ours]
    assert digests == [hashlib.sha256(path.read_bytes()).hexdigest() for path in ours]
    assert not result.stdout
    assert not result.stderr, "a library talks"
