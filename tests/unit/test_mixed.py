"""int8-mixed: the scan against ONNX Runtime's own quantizer, the search against exhaustive answers."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import mixed
from edgewise.compress.build import Build
from edgewise.compress.mixed import Candidate, bisect
from edgewise.compress.sensitivity import find_parts, rank_layers
from edgewise.config import compose
from edgewise.config.schema import Calibration, Mixed, Scan, Variant
from edgewise.errors import VariantFailed
from edgewise.formats.onnx import make, run
from edgewise.formats.torch import scan
from edgewise.proof import checks
from edgewise.stats.agreement import sqnr_db
from tests.conftest import ROOT
from tests.support import sources

pytestmark = pytest.mark.framework

CONF = yaml.safe_load((ROOT / "conf/format/onnx.yaml").read_text())


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    return sources.write(tmp_path_factory.mktemp("models") / "source")


@pytest.fixture(scope="module")
def feeds() -> list[dict[str, np.ndarray]]:
    return [{"image": picture[None]} for picture in sources.pictures(32, 7)[0]]


def onnx_noises(source: Path, feeds, folder: Path) -> dict[str, float]:
    """What each layer, quantized alone by ONNX Runtime's tool, adds to the noise of the outputs."""
    parent = folder / "float"
    parent.mkdir()
    layers = make.convert(source, parent, CONF["convert"])["layers"]
    batch = {"image": np.concatenate([feed["image"] for feed in feeds[: scan.JUDGED]])}
    exact = run.load(str(parent), {"threads": 1}).run(batch)["logits"]
    settings, noises = {**CONF["schemes"]["int8-static"], "per_channel": False}, {}
    for layer in [*layers, ""]:
        place = folder / f"only-{layer}"
        place.mkdir()
        kept = checks.list_nodes([other for other in layers if other != layer], layers)
        make.quantize(parent, source, place, "int8-static", settings, feeds, kept)
        given = run.load(str(place), {"threads": 1, "graph_optimization": "disable"}).run(batch)["logits"]
        noises[layer] = 10 ** (-sqnr_db(exact, given) / 10)
    floor = noises.pop("")  # sums and pools are in 8 bits all the same
    return {layer: noise - floor for layer, noise in noises.items()}


def test_the_scan_sees_each_layer_as_the_real_quantizer_does(source, feeds, tmp_path):
    found = scan.scan(source, feeds, False, find_parts(source), {})
    real = onnx_noises(source, feeds, tmp_path)
    assert set(found["layers"]) == set(real) == {"stem", "depthwise", "block.0", "head"}
    for layer, noise in real.items():
        assert abs(10 * np.log10(found["layers"][layer]["noise"] / noise)) < 6, layer
    assert found["layers"]["head"]["noise"] == pytest.approx(real["head"], rel=0.2)  # by far the noisiest: the logits themselves in 8 bits
    assert found["layers"]["block.0"]["elements"] == 16 * 32 * 9


def test_all_layers_together_make_about_the_sum_of_their_noises(source, feeds):
    found = scan.scan(source, feeds, True, find_parts(source), {})
    assert 0.5 < found["noise"] / sum(layer["noise"] for layer in found["layers"].values()) < 1.5


def branching(ends: tuple[int, ...]):
    """A stem and heads of 3 and 2 outputs, with the same weights whichever of them there are; and what is best, an integer."""
    torch = pytest.importorskip("torch")

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.stem = torch.nn.Linear(8, 8)
            self.heads = torch.nn.ModuleList(torch.nn.Linear(8, count) for count in (3, 2))

        def forward(self, x):
            inner = torch.relu(self.stem(x))
            return (*(self.heads[i](inner) for i in ends), self.heads[ends[0]](inner).argmax(1))

    return Net().eval()


def test_the_noise_of_several_outputs_is_that_of_the_worst(tmp_path):
    from edgewise.sources import torch_source

    rng = np.random.default_rng(0)
    feeds = [{"x": rng.normal(0, 1, (1, 8)).astype(np.float32)} for _ in range(16)]
    noises = []
    for ends in ((0,), (1,), (0, 1)):
        folder = tmp_path / str(ends)
        folder.mkdir()
        names = [*(f"y{i}" for i in ends), "best"]
        fields = torch_source.export(torch_source.wrap(branching(ends)), {"x": feeds[0]["x"].repeat(4, 0)}, names, folder)
        (folder / "manifest.json").write_text(json.dumps(fields))
        noises.append(scan.scan(folder, feeds, True, find_parts(folder), {})["layers"]["stem"]["noise"])
    assert noises[0] != noises[1] and noises[2] == pytest.approx(max(noises[:2]), rel=1e-6)


def test_a_torch_source_with_state_is_not_scanned():
    with pytest.raises(ValueError, match=r"h is a constant, state, or .* keep_float"):
        scan._check_ports({"inputs": {"h": {"state": "next"}}, "outputs": {}})


def test_a_scale_for_each_channel_is_finer_and_a_norm_behind_the_layer_counts():
    torch = pytest.importorskip("torch")
    weight = torch.randn(8, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * (2.0 ** torch.arange(8)).view(-1, 1, 1, 1)

    def error(per_channel, factors=None):
        rounded = scan.round_weight(weight, "Conv2d", factors, per_channel)
        return ((rounded - weight) / weight.abs().amax((1, 2, 3), keepdim=True)).abs().amax().item()

    assert error(True) < 0.51 / 127 < 10 / 127 < error(False)
    assert error(False, 0.5 ** torch.arange(8)) < 2 / 127  # the norm makes the channels nearly equal before they are rounded


def ladder(limit: int):
    """A model that is good enough with `limit` layers in float."""
    return lambda head: Candidate(len(head), 10.0 + 20 * (len(head) >= limit), 0.0 if len(head) >= limit else 3.0)


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 19])
def test_the_shortest_head_that_is_good_enough(limit):
    order = [f"layer.{i}" for i in range(20)]
    for wanted in (Mixed(sqnr_db=25), Mixed(sqnr_db=0, accuracy_drop_points=1.0)):
        head, trials = bisect(order, wanted, ladder(limit))
        assert head == order[:limit]
        assert len(trials) <= 7 and len({trial.layers for trial in trials}) == len(trials)


def test_what_even_the_last_layer_spoils_is_a_failure_that_says_how_near_it_came():
    with pytest.raises(VariantFailed, match=r"with 19 of 20 layers in float \(10\.0 dB and 3\.00 points\)"):
        bisect([str(i) for i in range(20)], Mixed(sqnr_db=25), ladder(20))


MIXED = Variant(
    "onnx-int8-mixed", "onnx", "int8-mixed", "edgewise.formats.onnx", calibration=Calibration(8), per_channel=True, mixed=Mixed(sqnr_db=25)
)


def test_layers_come_in_the_order_of_their_noise_for_a_byte(tmp_path):
    (tmp_path / "int8-mixed").mkdir()
    layers = {
        "large": {"noise": 0.3, "float_bytes": 3000},
        "small": {"noise": 0.1, "float_bytes": 30},
        "quiet": {"noise": 0, "float_bytes": 3},
    }
    (tmp_path / "int8-mixed/per-channel-8.json").write_text(json.dumps({"layers": layers}))
    artifact.write(tmp_path / "int8-mixed", Manifest(kind="sensitivity"))
    assert rank_layers(MIXED, tmp_path) == ["small", "large", "quiet"]


def test_a_source_that_cannot_be_scanned_is_the_variants_reason(tmp_path):
    (tmp_path / "int8-mixed").mkdir()
    artifact.write(tmp_path / "int8-mixed", Manifest(kind="sensitivity", status="skipped", reason="not from a source of format keras"))
    with pytest.raises(VariantFailed, match="not from a source of format keras"):
        rank_layers(MIXED, tmp_path)


def test_variants_with_the_same_settings_share_a_scan():
    choices = compose.read_choices(ROOT / "params.yaml")
    wanted = {"onnx": None, "openvino": None, "tflite": False}
    for name, per_channel in wanted.items():
        choices["variants"][f"{name}-int8-mixed"] = {"format": name, "scheme": "int8-mixed", "per_channel": per_channel}
    scans = compose.compose_choices(choices, compose.Options(ROOT / "conf")).scans
    assert scans.pop("int8-mixed") == {"per-channel-128": Scan(128, True), "per-tensor-128": Scan(128, False)}
    assert {"fp32", "int8-static"} <= set(scans) and not any(scans.values())
    assert dataclasses.replace(MIXED, mixed=None).scan is None


def test_what_is_judged_by_accuracy_says_that_it_needs_classes(tmp_path):
    samples = Samples((), {}, {}, np.zeros((4, 1), np.float32), {"validation": range(4)}, kind="values")
    build, outputs = Build(mixed_variant(Mixed(sqnr_db=20, accuracy_drop_points=1.0)), tmp_path, tmp_path, samples), {"y": np.zeros((4, 1))}
    with pytest.raises(VariantFailed, match=r"mixed\.accuracy_drop_points: needs the accuracy of classes, but the targets are values"):
        mixed.accuracy_drop_points(build, outputs, outputs, np.arange(4))
    without = Build(mixed_variant(Mixed(sqnr_db=20)), tmp_path, tmp_path, samples)
    assert mixed.accuracy_drop_points(without, outputs, outputs, np.arange(4)) is None


class FakeBuild(Build):
    """Its model gives boxes in pixels, always right, and scores, which are only with layer `score` in float; "float" is the float model."""

    @property
    def layers(self):
        return {"box": ["box"], "score": ["score"]}

    def quantize(self, folder, calibration_indices, float_layers):
        (folder / "float").write_text(" ".join(float_layers))
        return ["stem"]  # which the format leaves float by a rule of its own

    def validation_indices(self):
        return np.arange(8)

    def run(self, folder, indices):
        random = np.random.default_rng(0)
        boxes, scores = random.uniform(0, 500, (8, 9, 4)), random.uniform(0, 1, (8, 9, 2))
        right = folder == self.parent or "score" in (folder / "float").read_text()
        return {"y": np.concatenate([boxes, scores if right else scores.mean(0) * np.ones((8, 1, 1))], axis=2)}


def test_scores_beside_boxes_decide_which_layers_stay_float(tmp_path, monkeypatch):
    monkeypatch.setattr(mixed, "rank_layers", lambda variant: ["score", "box"])
    found = tmp_path / "found"
    found.mkdir()
    build = FakeBuild(mixed_variant(Mixed(sqnr_db=20)), tmp_path, tmp_path, None)
    kept, record = mixed.search(build, np.arange(4), [], found)
    assert kept == ["score", "stem"] and record["trials"][0]["sqnr_db"] < 1
    assert (found / "float").read_text() == "score"


def mixed_variant(mixed: Mixed) -> Variant:
    return Variant("onnx-int8-mixed", "onnx", "int8-mixed", "edgewise.formats.onnx", mixed=mixed)
