"""Inputs and outputs of torch modules and programs: any number and structure, fixed batches, state, constants; in every format."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, ModelError
from edgewise.proof import checks, isolation, making
from edgewise.sources import torch_file, torch_ports, torch_source
from tests.support import own_files, source_kinds
from tests.support.formats import FORMATS, part, require

pytestmark = pytest.mark.framework

rng = np.random.default_rng(0)
BATCH = {0: torch.export.Dim("batch", min=1, max=64)}
X = rng.normal(0, 1, (16, 4)).astype(np.float32)
STEPS = rng.normal(0, 1, (16, 5, 4)).astype(np.float32)
K = rng.integers(0, 9, (16, 4)).astype(np.int32)


class Several(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.ends = torch.nn.ModuleList(torch.nn.Linear(4, count) for count in (3, 2))

    def forward(self, x: torch.Tensor, k: torch.Tensor) -> dict[str, Any]:
        sums = x + k.float()
        return {"zeta": sums.unsqueeze(-1).unsqueeze(-1), "ends": [end(sums) for end in self.ends], "alpha": sums.argmax(1)}


class Pair(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.line(x).unsqueeze(-1), self.line(x).softmax(-1)


class Memory(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = torch.nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, h: torch.Tensor, share: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = torch.tanh(self.line(x) + h * share)
        return h.sum(-1, keepdim=True), h


def seeded(kind: type[torch.nn.Module]) -> torch.nn.Module:
    torch.manual_seed(0)
    return kind().eval()


Case = tuple[type[torch.nn.Module], tuple[torch.Tensor, ...], Any, Mapping[str, np.ndarray], Mapping[str, Any], list[str]]
CASES: dict[str, Case] = {
    "a dict of several": (
        Several,
        (torch.zeros(2, 4), torch.zeros(2, 4, dtype=torch.int32)),
        (BATCH, BATCH),
        {"x": X, "k": K},
        {},
        ["zeta", "ends.0", "ends.1", "alpha"],
    ),
    "a batch of one": (Pair, (torch.zeros(1, 4),), None, {"x": X}, {}, ["output_0", "output_1"]),
    "fewer outputs": (Pair, (torch.zeros(2, 4),), (BATCH,), {"x": X}, {"outputs": ["output_1"]}, ["output_1"]),
    "state and a constant": (
        Memory,
        (torch.zeros(1, 4), torch.zeros(1, 4), torch.tensor(0.5)),
        None,
        {"x": STEPS},
        {"state": {"h": "output_1"}, "inputs": {"share": 0.5}},
        ["output_0"],
    ),
}


REFUSED = {("ncnn", "a dict of several"): "output alpha is int64; a net of ncnn gives floats alone: leave it out with model.outputs"}


@pytest.fixture(scope="module", params=CASES)
def source(request, tmp_path_factory) -> tuple[Path, str]:
    """models/source of a program, as train-export writes it, and what it is."""
    kind, examples, shapes, arrays, settings, _ = CASES[request.param]
    folder = tmp_path_factory.mktemp("program")
    torch.export.save(torch.export.export(seeded(kind), examples, dynamic_shapes=shapes), folder / "mine.pt2")
    (folder / "source").mkdir()
    chosen = torch_file.Settings(path=str(folder / "mine.pt2"), **settings)
    fields = dict(torch_file.obtain(chosen, own_files.plain_data(folder / "data", dict(arrays)), Train("none"), 0, folder / "source"))
    del fields["weights"], fields["training"]
    fields |= {side: making.make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    artifact.write(folder / "source", Manifest(kind="source", **fields))
    return folder / "source", request.param


def expected_of(case: str) -> dict[str, np.ndarray]:
    """What the module itself gives, called by hand."""
    kind, _, _, _, settings, names = CASES[case]
    module = seeded(kind)
    with torch.no_grad():
        if kind is Memory:
            state, found = torch.zeros(16, 4), []
            for step in torch.from_numpy(STEPS).unbind(1):
                result, state = module(step, state, torch.tensor(0.5))
                found.append(result)
            return {"output_0": torch.stack(found, 1).numpy()}
        if kind is Several:
            made = module(torch.from_numpy(X), torch.from_numpy(K))
            leaves = [made["zeta"], *made["ends"], made["alpha"]]
        else:
            leaves = list(module(torch.from_numpy(X)))[1 if settings else 0 :]
    return {name: leaf.numpy() for name, leaf in zip(names, leaves, strict=True)}


def test_the_probe_holds_every_output_by_name(source):
    folder, case = source
    _, stored = checks.read_probe(folder)
    expected = expected_of(case)
    assert list(stored) == CASES[case][-1] == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(stored[name], array, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FORMATS if "torch" in part(name, "make").SOURCES])
def test_every_format_gives_all_of_them(source, name, tmp_path):
    require(name)
    folder, case = source
    if (name, case) in REFUSED:
        with pytest.raises(ValueError, match=REFUSED[name, case]):
            source_kinds.make_of(name).convert(folder, tmp_path, source_kinds.form(name).get("convert") or {})
        return
    made = source_kinds.make_of(name).convert(folder, tmp_path, source_kinds.form(name).get("convert") or {})
    manifest = artifact.read(folder)
    sides = {side: making.make_tensors(made[side], getattr(manifest, side)) for side in ("inputs", "outputs")}
    making.write_ports(tmp_path, sides["inputs"], sides["outputs"])
    inputs, expected = checks.read_probe(folder)
    given = isolation.compute_outputs(f"edgewise.formats.{name}", tmp_path, {"threads": 1}, inputs)
    assert checks.check_outputs(expected, given, 100) > 100
    assert json.dumps(made["layers"])


def test_names_of_nested_results():
    a, b = torch.zeros(1), torch.zeros(2)
    assert list(torch_ports.take_tensors(a)) == ["output"]
    assert list(torch_ports.take_tensors((a, [b, None, a]))) == ["output_0", "output_1", "output_2"]
    assert list(torch_ports.take_tensors({"boxes": [a, b], "scores": a})) == ["boxes.0", "boxes.1", "scores"]


def test_of_a_transformers_result_what_it_answers():
    modeling = pytest.importorskip("transformers.modeling_outputs")
    a = torch.zeros(2, 3)
    alone = modeling.SequenceClassifierOutput(logits=a, hidden_states=(a, a))
    assert list(torch_ports.take_tensors(alone)) == ["logits"]
    boxes = modeling.ModelOutput(logits=a, pred_boxes=a, last_hidden_state=a, loss=a)
    assert list(torch_ports.take_tensors(boxes)) == ["logits", "pred_boxes"]


def test_a_module_with_more_than_scores_is_taken_as_it_is(tmp_path):
    feeds = {"x": X}
    wrapped = torch_source.wrap(seeded(Pair))
    shapes = {name: [*result.shape] for name, result in torch_ports.take_tensors(wrapped.model(torch.from_numpy(X))).items()}
    names = torch_source.name_outputs(shapes, 3)
    assert names == ["output_0", "logits"]
    fields = torch_source.export(wrapped, feeds, names, tmp_path)
    assert [(port["name"], port["shape"]) for port in fields["outputs"]] == [("output_0", [None, 3, 1]), ("logits", [None, 3])]
    with np.load(tmp_path / "probe.npz") as probe:
        assert set(probe) == {"in:x", "out:output_0", "out:logits"}


class Turned(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x.unsqueeze(0), x.mean(1, keepdim=True)


def test_samples_on_another_axis_of_an_output_are_found(tmp_path):
    fields = torch_source.export(torch_source.wrap(Turned()), {"x": X}, ("state", "mean"), tmp_path)
    assert [(port["shape"], port["sample_axis"]) for port in fields["outputs"]] == [([1, None, 4], 1), ([None, 1], 0)]
    with np.load(tmp_path / "probe.npz") as probe:
        np.testing.assert_array_equal(probe["out:state"], X[:, None])


class Constant(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x * 2, torch.ones(3)


def test_an_output_that_does_not_depend_on_the_samples_is_named(tmp_path):
    with pytest.raises(ModelError, match="output extra of the model is the same for any number of samples"):
        torch_source.export(torch_source.wrap(Constant()), {"x": X}, ("twice", "extra"), tmp_path)


def test_settings_of_programs_are_refused_beside_a_callable(tmp_path):
    settings = torch_file.Settings(path="weights.pt", callable="my.net", outputs=["a"])
    with pytest.raises(ConfigError, match=r"model\.outputs: it is for programs of torch\.export\.save"):
        torch_file.obtain(settings, tmp_path, Train("none"), 0, tmp_path)
