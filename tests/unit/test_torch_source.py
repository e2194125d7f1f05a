"""The exported program against the eager model, for every architecture of conf/model/ in small, and a plain torch net."""

import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgewise.artifacts.artifact import Manifest, Port
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.errors import ModelError
from edgewise.sources import python_callable, torch_source, transformers_model
from edgewise.sources.objectives import Labels
from tests.conftest import ROOT
from tests.support.training_project import TINY

pytestmark = pytest.mark.framework

SMALL = {
    "resnet basic": TINY,
    "resnet bottleneck": {**TINY, "arguments": {**TINY["arguments"], "layer_type": "bottleneck"}},
    "mobilenet_v2": {
        "model": "MobileNetV2ForImageClassification",
        "config": "MobileNetV2Config",
        "arguments": {"depth_multiplier": 0.25},
    },
    "vit": {
        "model": "ViTForImageClassification",
        "config": "ViTConfig",
        "arguments": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64, "patch_size": 8},
    },
}
DATA = Manifest("data", inputs=(Port("image", (None, 3, 32, 32), "float32", "NCHW", "image"),), labels=("a", "b", "c"))
OBJECTIVE = Labels(Samples(DATA.labels, {}, {}, np.zeros(0, np.int64), {}), Train("x"))
FEEDS = {"image": np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)}


def plain() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, 2), torch.nn.BatchNorm2d(8), torch.nn.Flatten(), torch.nn.Linear(8 * 15 * 15, 3))


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return plain() if name == "plain torch" else transformers_model.create(transformers_model.Settings(**SMALL[name]), DATA)


@pytest.fixture(scope="module", params=[*SMALL, "plain torch"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path, dict]:
    module, folder = build(request.param), tmp_path_factory.mktemp("source")
    return module.eval(), folder, torch_source.export(torch_source.wrap(module), FEEDS, ("logits",), folder)


def eager(module: torch.nn.Module, image: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        result = module(torch.from_numpy(image))
    return getattr(result, "logits", result).numpy()


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_program_gives_what_the_model_gives(exported: tuple, batch: int) -> None:
    module, folder, _ = exported
    program = torch.export.load(folder / "program.pt2").module()
    image = np.random.default_rng(batch).normal(size=(batch, 3, 32, 32)).astype(np.float32)
    with torch.no_grad():
        given = program(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(given, eager(module, image), rtol=1e-4, atol=1e-5)


def test_probe_holds_the_samples_and_the_outputs(exported: tuple) -> None:
    module, folder, _ = exported
    with np.load(folder / "probe.npz") as probe:
        assert set(probe) == {"in:image", "out:logits"}
        np.testing.assert_array_equal(probe["in:image"], FEEDS["image"])
        np.testing.assert_allclose(probe["out:logits"], eager(module, FEEDS["image"]), rtol=1e-4, atol=1e-5)


def test_weights_are_those_of_the_program(exported: tuple) -> None:
    module, folder, fields = exported
    weights, state = load_file(folder / "weights.safetensors"), module.state_dict()
    assert {name.removeprefix("model.") for name in weights} == set(state)
    assert all(torch.equal(tensor, state[name.removeprefix("model.")]) for name, tensor in weights.items())
    assert set(torch.export.load(folder / "program.pt2").state_dict) == set(weights)
    assert fields["details"]["parameters"] == sum(p.numel() for p in module.parameters())


def test_every_weight_matrix_is_a_layer_by_the_users_path(exported: tuple) -> None:
    module, folder, fields = exported
    expected = {n.removesuffix(".weight") for n, p in module.named_parameters() if n.endswith(".weight") and p.ndim >= 2}
    assert set(fields["details"]["layers"]) == expected
    weights = load_file(folder / "weights.safetensors")
    for path, layer in fields["details"]["layers"].items():
        assert type(module.get_submodule(path)).__name__ == layer["type"]
        assert list(weights[layer["weight"]].shape) == layer["shape"]


def test_program_carries_no_paths_of_this_machine(exported: tuple) -> None:
    _, folder, _ = exported
    roots = {str(Path(module.__file__).parents[1]) for module in (torch, torch_source)} | {
        str(Path.cwd()),
        str(Path.home()),
        "site-packages",
    }
    with zipfile.ZipFile(folder / "program.pt2") as archive:
        content = b"".join(archive.read(name) for name in archive.namelist())
    assert not [root for root in roots if root.encode() in content]


def test_the_same_model_gives_the_same_bytes(exported: tuple, tmp_path: Path) -> None:
    module, folder, _ = exported
    torch_source.export(torch_source.wrap(module), FEEDS, ("logits",), tmp_path)
    for name in ("program.pt2", "weights.safetensors", "probe.npz"):
        assert hashlib.sha256((folder / name).read_bytes()).digest() == hashlib.sha256((tmp_path / name).read_bytes()).digest(), name


class Numbers(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, int]:
        return image.mean((2, 3)), 3


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (torch.nn.Flatten(), r"returns \[16, 3072\] .* the data has 3 labels, so it must return \[16, 3\]"),
        (torch.nn.Conv2d(1, 3, 3), r"does not accept image \[16, 3, 32, 32\]"),
        (Numbers(), "returns a int where a tensor is needed"),
    ],
    ids=["other number of classes", "other channels", "no tensor"],
)
def test_a_model_that_does_not_fit_the_data(module: torch.nn.Module, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        torch_source.check_outputs(torch_source.wrap(module), FEEDS, OBJECTIVE)


class Branching(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3)) if image.sum() > 0 else image.amax((2, 3))


def test_a_model_that_cannot_be_exported(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"torch\.export cannot export the model"):
        torch_source.export(torch_source.wrap(Branching()), FEEDS, ("logits",), tmp_path)


def test_pictures_of_one_channel_are_pooled_without_copies_in_another_order(tmp_path):
    """Stored as [n, height, width, 1] and turned, they pass for channels last."""
    grey = np.random.default_rng(0).normal(size=(4, 16, 16, 1)).astype(np.float32).transpose(0, 3, 1, 2)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 8, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, 3))
    torch_source.export(torch_source.wrap(net), {"image": np.ascontiguousarray(grey)}, ("logits",), tmp_path)
    graph = torch.export.load(tmp_path / "program.pt2").run_decompositions().graph
    assert "as_strided" not in " ".join(str(node.target) for node in graph.nodes)


class Unused(torch.nn.Module):
    """`lost` is called, in place behind it, but nothing uses its result; `never` is not called; `added` goes into a view."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.lost, self.never = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 4, 3), torch.nn.Linear(4, 4)
        self.added, self.last = torch.nn.Linear(4, 4), torch.nn.Linear(4, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        states = [self.first(image)]
        states.append(self.lost(states[0]).relu_())
        pooled = states[0].mean((2, 3))
        pooled.view(-1).add_(self.added(pooled).view(-1))
        return self.last(pooled)


def test_layers_that_no_output_depends_on_are_not_listed(tmp_path: Path) -> None:
    fields = torch_source.export(torch_source.wrap(Unused()), FEEDS, ("logits",), tmp_path)
    assert list(fields["details"]["layers"]) == ["first", "added", "last"]


@pytest.mark.slow
def test_the_callable_that_its_option_file_shows_can_be_built(tmp_path, monkeypatch):
    text = (ROOT / "conf/model/callable.yaml").read_text()
    lines = text[text.index("#   import torch") : text.index("# Other libraries")].splitlines()
    (tmp_path / "my_models.py").write_text("\n".join(line.removeprefix("#").removeprefix("   ") for line in lines))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    settings = python_callable.Settings(callable="my_models.RegNet")
    module = python_callable.create(settings, Manifest("data", labels=("a", "b", "c")))
    with torch.no_grad():
        assert module.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
