"""Structured pruning: what is cut, what it costs, how it is trained again, and what a variant gets of it."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.config.compose import Options, compose_choices, read_choices
from edgewise.config.prune_settings import Distillation, Prune
from edgewise.config.schema import Plugin, Pruning, Train, Tuning
from edgewise.errors import ConfigError, VariantFailed
from tests.conftest import ROOT
from tests.support import sources
from tests.support.formats import FORMATS, form, part, require
from tests.support.training_project import TINY, make_project

pytestmark = pytest.mark.framework

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")
QUICK = Prune(macs_share=0.5, multiple=2, steps=2, epochs=1)
TRAIN = Train("test", epochs=1, threads=1, monitor="loss")
MODEL = Plugin("tiny", "edgewise.sources.transformers_model", TINY)


def feeds() -> dict[str, np.ndarray]:
    return {"image": sources.pictures(2)[0]}


def chain():
    """Two convolutions and a head: what goes with a channel can be written down by hand."""
    from torch import nn

    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3), nn.Flatten(), nn.Linear(8 * 12 * 12, 4)).eval()


def slim(net, kind="macs_share", share=0.5, **settings):
    from edgewise.compress import slimming

    costs = slimming.measure(net, feeds())
    made = slimming.prune(net, feeds(), kind, share * costs.of(kind), **{"multiple": 2, **settings})
    return made, costs, slimming.measure(made, feeds())


@pytest.mark.parametrize("kind", ["macs_share", "params_share"])
@pytest.mark.parametrize("share", [0.7, 0.3])
def test_the_share_is_reached_and_not_by_far_too_much(kind, share):
    _, before, after = slim(sources.network(), kind, share)
    assert 0.6 * share <= after.of(kind) / before.of(kind) <= share


def test_multiply_adds_are_those_of_the_shapes():
    from edgewise.compress import slimming

    costs = slimming.measure(chain(), feeds())
    assert [layer.multiply_adds for layer in costs.layers.values()] == [14 * 14 * 16 * 27, 12 * 12 * 8 * 16 * 9, 8 * 144 * 4]
    assert costs.multiply_adds == sum(layer.multiply_adds for layer in costs.layers.values())


def test_the_channels_of_the_smallest_weights_go_with_all_that_reads_them():
    """By hand: the squares of a filter and of the slices of the next layer that read its output; the head keeps its outputs."""
    net = chain()
    first, second = net[0].weight.detach().numpy(), net[2].weight.detach().numpy()
    norms = (first**2).sum((1, 2, 3)) + (second**2).sum((0, 2, 3))
    made, _, _ = slim(net, share=0.6)
    kept = np.sort(np.argsort(norms)[len(norms) - made[0].out_channels :])
    np.testing.assert_array_equal(made[0].weight.detach().numpy(), first[kept])
    assert made[0].out_channels % 2 == made[2].out_channels % 2 == 0 and made[0].out_channels < 16
    assert made[2].in_channels == made[0].out_channels and made[4].in_features == made[2].out_channels * 144
    assert made[4].out_features == 4 and net[0].out_channels == 16  # the module that was given stays as it was


def test_layers_that_are_kept_and_a_residual_sum_stay_whole():
    made, _, _ = slim(sources.network(), share=0.9, keep=["stem"])
    assert made.stem.out_channels == made.depthwise.out_channels == 16 and made.block[0].out_channels < 32
    made, _, _ = slim(sources.network(), share=0.4)
    assert made.stem.out_channels == made.depthwise.groups == made.block[0].in_channels < 16


def test_a_layer_that_runs_and_reaches_no_output_is_cut_with_the_others():
    from torch import nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.aside, self.head = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 8, 1), nn.Linear(16, 4)

        def forward(self, image):
            stem = self.stem(image)
            self.aside(stem)
            return self.head(stem.mean((2, 3)))

    made, before, after = slim(Net(), share=0.5)
    assert made.aside.in_channels == made.stem.out_channels < 16 and after.multiply_adds <= 0.5 * before.multiply_adds


@pytest.mark.parametrize("name", ["attention", "counts"])
def test_what_the_code_counts_on_by_number_stays(name):
    """Heads of attention, and a reshape to a number that stands in the code."""
    from torch import nn
    from torch.nn import functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.mix, self.out = nn.Conv2d(3, 24, 4, stride=4), nn.Linear(24, 48), nn.Linear(48, 4)
            self.q, self.k, self.v = (nn.Linear(24, 24) for _ in range(3))

        def forward(self, image):
            tokens = self.embed(image).flatten(2).transpose(1, 2)
            if name == "attention":
                heads = [layer(tokens).unflatten(2, (3, 8)).transpose(1, 2) for layer in (self.q, self.k, self.v)]
                tokens = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
            else:
                tokens = tokens.reshape(len(image), 16, 24)
            return self.out(torch.relu(self.mix(tokens)).mean(1))

    made, before, after = slim(Net(), share=0.75)
    assert made.q.out_features == 24 and made.mix.out_features < 48 and after.multiply_adds < before.multiply_adds
    assert (made.embed.out_channels == 24) == (name == "counts")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"multiple": 64}, "prune.multiple: 64; allowed for this model: 1 to 31, .* choose a smaller one"),
        ({"share": 0.01}, "prune.macs_share: not reached"),
        ({"keep": ["stem", "block.0"]}, "no channel of this model can be removed"),
    ],
)
def test_what_cannot_be_cut_is_said_in_one_line(settings, words):
    with pytest.raises(ValueError, match=words) as caught:
        slim(sources.network(), **settings)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """models/source and models/data of a tiny net on digits."""
    from stages import train_export

    root = tmp_path_factory.mktemp("pruning")
    make_project(root, TRAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train_export.main()
    return root / "models"


def make(project: Path, folder: Path, prune: Prune = QUICK, train: Train = TRAIN, model: Plugin = MODEL):
    from edgewise.compress.pruning import make_pruned

    folder.mkdir()
    return make_pruned(model, project / "source", project / "data", prune, train, 0, folder)


def test_a_pruned_source_is_a_source_and_the_same_seed_gives_the_same_bytes(project, tmp_path):
    steps = make(project, tmp_path / "one")
    make(project, tmp_path / "two")
    one, two, whole = artifact.read(tmp_path / "one"), artifact.read(tmp_path / "two"), artifact.read(project / "source")
    assert one == two and set(one.files) == set(whole.files)
    assert (one.inputs, one.outputs, one.labels) == (whole.inputs, whole.outputs, whole.labels)
    cut = one.details["pruned"]
    assert cut["multiply_adds_before"] == whole.details["multiply_adds"]
    assert cut["multiply_adds"] == one.details["multiply_adds"] <= 0.5 * whole.details["multiply_adds"]
    assert cut["parameters"] == one.details["parameters"] < whole.details["parameters"]
    shapes = {path: layer["shape"][0] for path, layer in one.details["layers"].items()}
    assert shapes == {path: layer["after"][0] for path, layer in cut["layers"].items()}
    assert len(steps) == 2 and steps[0]["multiply_adds"] > steps[1]["multiply_adds"] and steps[0]["epochs"] == 1


@pytest.mark.parametrize(
    "change",
    [
        {"criterion": "taylor", "distillation": Distillation(features=10.0)},
        pytest.param({"criterion": "bn_scale"}, marks=pytest.mark.slow),
    ],
)
def test_other_criteria_and_distances_give_another_source(project, tmp_path, change):
    make(project, tmp_path / "one", dataclasses.replace(QUICK, steps=1, epochs=0))
    make(project, tmp_path / "two", dataclasses.replace(QUICK, steps=1, epochs=1, **change))
    hashes = {artifact.read(tmp_path / name).files["weights.safetensors"]["sha256"] for name in ("one", "two")}
    assert len(hashes) == 2


def test_it_learns_from_the_source_alone_where_there_are_no_labels(project, tmp_path):
    shutil.copytree(project / "data", tmp_path / "data")
    shutil.copytree(project / "source", tmp_path / "source")
    manifest = artifact.read(tmp_path / "data")
    artifact.write(tmp_path / "data", dataclasses.replace(manifest, details={"targets": "none"}))
    steps = make(tmp_path, tmp_path / "slim", dataclasses.replace(QUICK, steps=1, epochs=3))
    losses = [row["loss_validation"] for row in steps[0]["curve"]]
    assert losses[-1] < losses[0]


def test_a_source_of_another_net_is_refused(project, tmp_path):
    other = Plugin("tiny", MODEL.module, {**TINY, "arguments": {**TINY["arguments"], "hidden_act": "gelu"}})
    with pytest.raises(ValueError, match=r"the module that model\.\* builds gives other outputs"):
        make(project, tmp_path / "other", model=other)
    program = Plugin("torch_file", "edgewise.sources.torch_file", {"path": "my.pt2"})
    with pytest.raises(ValueError, match=r"not from this source: model\.path 'my\.pt2' is an exported program"):
        make(project, tmp_path / "program", model=program)
    with pytest.raises(ValueError, match=r"not from this source: model\.name 'onnx_file'"):
        make(project, tmp_path / "onnx", model=Plugin("onnx_file", "edgewise.sources.onnx_file", {"path": "my.onnx"}))


def test_a_source_that_answers_everything_alike_is_refused_for_that(project, tmp_path):
    """Its outputs are rounding about one value, by which no module can be recognized."""
    for name in ("data", "source"):
        shutil.copytree(project / name, tmp_path / name)
    with np.load(project / "source/probe.npz") as stored:
        arrays = dict(stored)
    same = {key: np.full_like(array, 0.1) if key.startswith("out:") else array for key, array in arrays.items()}
    (tmp_path / "source/probe.npz").unlink()
    np.savez(tmp_path / "source/probe.npz", **same)
    with pytest.raises(ValueError, match=r"not from this source: the source gives the same logits for every sample"):
        make(tmp_path, tmp_path / "slim")


class TestSharing:
    """models/pruned as the stage keeps it."""

    @pytest.fixture
    def here(self, project, monkeypatch) -> Path:
        monkeypatch.chdir(project.parent)
        return project / "pruned"

    def update(self, environment=None, **jobs: Prune | None) -> None:
        from edgewise.compress import pruned_sources

        prunings = {name.replace("_", "-"): Pruning(prune) if prune else None for name, prune in jobs.items()}
        config = dataclasses.replace(schema.read(), prunings=prunings)
        pruned_sources.update(config, environment or {"code": "1"})

    def test_each_source_is_made_once_kept_and_dropped(self, here, monkeypatch):
        from edgewise.compress import pruned_sources, pruning

        made: list[float] = []
        real = pruning.make_pruned
        monkeypatch.setattr(pruned_sources.pruning, "make_pruned", lambda *given: made.append(given[3].macs_share) or real(*given))
        half, less = dataclasses.replace(QUICK, steps=1, epochs=0), dataclasses.replace(QUICK, macs_share=0.4, steps=1, epochs=0)
        self.update(onnx_fp32=None, onnx_fp32_slim=half, openvino_fp32_slim=half)
        plain = (here / "onnx-fp32/manifest.json").read_bytes()
        first = (here / "onnx-fp32-slim/manifest.json").read_bytes()
        assert made == [0.5] and artifact.read(here / "onnx-fp32-slim").details == artifact.read(here / "openvino-fp32-slim").details
        self.update(onnx_fp32=None, onnx_fp32_slim=half, onnx_fp32_less=less)
        assert made == [0.5, 0.4] and not (here / "openvino-fp32-slim").exists()
        assert (here / "onnx-fp32/manifest.json").read_bytes() == plain and (here / "onnx-fp32-slim/manifest.json").read_bytes() == first
        self.update({"code": "2"}, onnx_fp32_less=less)
        assert made == [0.5, 0.4, 0.4] and len(list((here / "sources").glob("*"))) == 2  # the source and its record

    @pytest.mark.slow
    def test_int8_qat_goes_on_from_the_pruned_source_with_the_whole_one_as_teacher(self, here):
        """In the same stage, under a key of its own; both have the same channels, and a variant of the float source shares the first."""
        pytest.importorskip("torchao")
        from edgewise.compress import pruned_sources

        half, tuning = dataclasses.replace(QUICK, steps=1), Tuning(1, 1e-3, True)
        config = dataclasses.replace(schema.read(), prunings={"onnx-fp32-slim": Pruning(half), "onnx-int8-qat-slim": Pruning(half, tuning)})
        pruned_sources.update(config, {"code": "1"})
        base, tuned = (here / "sources" / artifact.read(here / name).details["source"] for name in config.prunings)
        details = [artifact.read(folder).details for folder in (base, tuned)]
        assert details[0]["pruned"] == details[1]["pruned"] and details[0]["layers"] == details[1]["layers"]
        assert "qat" not in details[0] and details[1]["qat"] == dataclasses.asdict(tuning)
        assert tuned.name == f"{base.name}-{tuning.key}" and {path.name for path in (here / "sources").glob("*.json")} == {
            f"{base.name}.json",
            f"{tuned.name}.json",
        }

    def test_what_cannot_be_made_is_recorded_for_its_variants(self, here):
        wide = dataclasses.replace(QUICK, multiple=512)
        self.update(onnx_fp32=None, onnx_fp32_wide=wide)
        record = artifact.read(here / "onnx-fp32-wide")
        assert record.status == "failed" and "prune.multiple: 512" in str(record.reason)
        assert artifact.read(here / "onnx-fp32").status == "skipped" and not list((here / "sources").glob("*"))

    def test_an_interrupted_run_leaves_nothing_and_the_next_one_makes_it(self, here, monkeypatch):
        from edgewise.compress import pruning

        def interrupt(*given, **more):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(pruning.torch_source, "export", interrupt)
            self.update(onnx_fp32_slim=QUICK)
        assert not list((here.parent / ".pruned").glob("*")) and not list((here.parent / ".tmp").glob("*"))
        self.update(onnx_fp32_slim=QUICK)
        assert artifact.read(here / "onnx-fp32-slim").ok

    def test_a_missing_package_fails_the_variant_with_what_installs_it(self, here, monkeypatch):
        import sys

        monkeypatch.setitem(sys.modules, "torch_pruning", None)
        self.update(onnx_fp32_slim=dataclasses.replace(QUICK, macs_share=0.45))
        assert "pip install" in str(artifact.read(here / "onnx-fp32-slim").reason)


@pytest.fixture(scope="module")
def pruned(project, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pruned") / "slim"
    make(project, folder, dataclasses.replace(QUICK, steps=1))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_a_pruned_source_and_its_file_has_the_fewer_channels(project, pruned, tmp_path, name):
    """The float file against the pruned source's own outputs; a file of the whole source is told apart from it."""
    from edgewise.compress.float_models import convert_tuned
    from edgewise.proof import checks, making

    require(name)
    formats = {other: schema.Format(form(other)["module"], True, form(other).get("convert") or {}) for other in FORMATS}
    folders = {source: tmp_path / source.name for source in (pruned, project / "source")}
    for source, scratch in folders.items():
        scratch.mkdir()
        folder = convert_tuned(name, formats, source, scratch)
        making.compare_with_source(formats[name].module, folder, {}, 60.0, source)
    layers = artifact.read(pruned).details["layers"]
    small, whole = (part(name, "facts").facts(scratch / name) for scratch in folders.values())
    checks.check_channels(small, layers, "slim")
    with pytest.raises(VariantFailed, match="channels that were cut are still in it"):
        checks.check_channels(whole, layers, "whole")


def choices(prune) -> schema.Config:
    chosen = read_choices(ROOT / "params.yaml")
    chosen["variants"] = {
        "onnx-fp32": {"format": "onnx", "scheme": "fp32"},
        "onnx-fp32-slim": {"format": "onnx", "scheme": "fp32", "prune": prune},
    }
    return compose_choices(chosen, Options(ROOT / "conf"))


def test_a_variant_can_name_another_whose_settings_it_takes():
    chosen = read_choices(ROOT / "params.yaml")
    plain = {"format": "onnx", "scheme": "fp32"}
    chosen["variants"] = {
        "onnx-fp32": plain,
        "onnx-fp32-slim": {**plain, "prune": {"macs_share": 0.4}},
        "onnx-fp32-too": {**plain, "prune": "onnx-fp32-slim"},
    }
    config = compose_choices(chosen, Options(ROOT / "conf"))
    assert config.prunings["onnx-fp32-too"] == config.prunings["onnx-fp32-slim"] == Pruning(Prune(macs_share=0.4))
    for named in ("onnx-fp32", "onnx-fp32-slm", "onnx-fp32-too"):
        chosen["variants"]["onnx-fp32-too"]["prune"] = named
        words = rf"onnx-fp32-too\.prune: '{named}' is not a variant with settings of prune; .*allowed: onnx-fp32-slim"
        with pytest.raises(ConfigError, match=words):
            compose_choices(chosen, Options(ROOT / "conf"))


@pytest.mark.parametrize(
    ("prune", "words"),
    [
        ({"macs_share": 0}, r"variants.onnx-fp32-slim.prune.macs_share: 0.0 must be at least 0.01 and at most 0.99"),
        ({"macs_share": 1.5}, r"prune.macs_share: 1.5 must be"),
        ({"macs_share": 0.5, "params_share": 0.5}, r"prune: macs_share and params_share given; give one"),
        ({}, r"prune: no share given"),
        ({"mac_share": 0.5}, r"prune.mac_share: unknown setting; did you mean 'macs_share'"),
        ({"macs_share": 0.5, "criterion": "size"}, r"prune.criterion: 'size'"),
        ({"latency_share": 0.5}, r"prune.latency_share: 0.5; latency differs"),
        (0.5, r"prune: 0.5 is a float, must be a mapping"),
    ],
)
def test_bad_settings_are_one_line(prune, words):
    with pytest.raises(ConfigError, match=words) as caught:
        choices(prune)
    assert "\n" not in str(caught.value)


def test_variants_of_the_same_settings_ask_for_the_same_source_and_others_for_none():
    config = choices({"macs_share": 0.4, "learning_rate": None})
    assert config.prunings["onnx-fp32"] is None and config.tunings["int8-qat"] == {}
    job = config.prunings["onnx-fp32-slim"]
    assert job == Pruning(Prune(macs_share=0.4)) and job.key.startswith("macs-40-")
    assert job.key != Pruning(Prune(macs_share=0.4, steps=3)).key and json.dumps(schema.to_plain(job))


def test_distances_are_those_of_the_formulas():
    from edgewise.sources import distillation

    random = np.random.default_rng(0)
    own, wanted = (random.normal(size=(5, 4)).astype(np.float32) for _ in range(2))
    softened = [np.exp(logits / 2) / np.exp(logits / 2).sum(1, keepdims=True) for logits in (own, wanted)]
    expected = 4 * (softened[1] * np.log(softened[1] / softened[0])).sum(1).mean()
    tensors = [torch.from_numpy(array) for array in (own, wanted)]
    assert distillation.soft_divergence(*tensors, 2.0).item() == pytest.approx(expected, rel=1e-4)
    assert distillation.squared_error(*tensors).item() == pytest.approx(((own - wanted) ** 2).mean() / wanted.var(ddof=1), rel=1e-4)
    for kind, outputs in {"classes": tensors[:1], "values": tensors[:1], "boxes": [torch.randn(2, 3, 7), torch.randn(2, 4, 7)]}.items():
        names = ("scores", "boxes") if kind == "boxes" else ("logits",)
        distance = distillation.choose_distance(kind, names, 2.0)
        assert distance(outputs, outputs).item() == pytest.approx(0, abs=1e-5)
        assert distance([output + torch.randn_like(output) for output in outputs], outputs).item() > 0.01


def test_samples_and_settings_stay_what_they_are(project):
    """The teacher has no say in the scores: they are those of the objective alone."""
    from edgewise.sources.distillation import Distilled
    from edgewise.sources.objectives import choose

    samples = Samples.open(project / "data")
    objective = choose(samples, TRAIN)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 10))
    distilled = Distilled(objective, net, Distillation(), samples)
    answers = [(samples.indices("validation"), [torch.zeros(40, 10)])]
    assert distilled.validate(answers) == objective.validate(answers)
    with pytest.raises(VariantFailed, match=r"prune\.keep: 'nothing' matches no layer"):
        make(project, Path(str(project) + "-keep"), dataclasses.replace(QUICK, keep=("nothing",)))
