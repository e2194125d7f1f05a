"""A study runs beside the project and brings its results back; what it gained is told by intervals."""

import json

import pytest
import yaml

from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.config.compose import Options, compose_choices, read_choices
from edgewise.config.schema import Budget
from edgewise.report import changes
from edgewise.tasks.classification import PRIMARY_METRIC
from tests.conftest import ROOT
from tests.support import toy_pipeline
from tests.support.records import made

pytestmark = [pytest.mark.framework, pytest.mark.pipeline]

STUDY = {**toy_pipeline.CHOICES, "variants": {**toy_pipeline.CHOICES["variants"]}, "seed": 5}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    made = toy_pipeline.make(tmp_path_factory.mktemp("study"))
    (made.folder / "conf/studies/tiny.yaml").write_text(yaml.safe_dump(STUDY))
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("TOY_LOG", str(tmp_path_factory.mktemp("log") / "toy.log"))
        yield made


def study(project, *arguments: str):
    return project.run("python", "-m", "edgewise.cli.main", "study", *arguments)


def own_results(project) -> dict:
    """The user's choices and what his own runs have left."""
    files = [project.folder / "params.yaml", *(project.folder / "metrics").glob("*"), *(project.folder / "models").rglob("*")]
    return {path: path.read_bytes() for path in files if path.is_file()}


def test_results_come_back_and_the_project_stays_as_it_was(project):
    before = own_results(project)
    done = study(project, "tiny", f"variants.{toy_pipeline.VARIANT}.calibration.samples=40")
    assert done.returncode == 0, done.stderr[-2000:]
    found = project.folder / "metrics/studies/tiny"
    summary = json.loads((found / "summary.json").read_text())
    assert summary["variants"][toy_pipeline.VARIANT]["quality"]["score"] == pytest.approx(toy_pipeline.accuracy(40))
    chosen = yaml.safe_load((found / "params.yaml").read_text())
    assert chosen["seed"] == 5 and chosen["variants"][toy_pipeline.VARIANT]["calibration"]["samples"] == 40
    assert json.loads((found / "provenance.json").read_text())["uncommitted"] == ["conf/studies/tiny.yaml"]
    assert (found / "gains.md").read_text().splitlines()[0] in done.stdout
    assert own_results(project) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["tinny"], "did you mean 'tiny'?"), (["tiny", "seed=high"], "seed: 'high'"), (["tiny", "train.epoch=1"], "epoch")],
)
def test_a_wrong_study_says_what_is_allowed(project, arguments, said):
    done = study(project, *arguments)
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr, done.stderr


@pytest.mark.parametrize("path", sorted((ROOT / "conf/studies").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_study_composes(path):
    choices = read_choices(path)
    if choices["data"]["name"] == "image_folder":  # the user's own pictures, which the study asks for
        choices["data"]["path"] = "pictures"
    composed = compose_choices(choices, Options(ROOT / "conf"))
    assert composed.reference in composed.variants


def row(scheme: str = "fp32", **fields) -> VariantSummary:
    plain = {
        "size_bytes": 40_000_000,
        "latency_p50_ms": 10.0,
        "peak_rss_above_baseline_bytes": 90_000_000,
        "score": 0.9,
    }
    return made("onnx", scheme, **{**plain, **fields})


def test_gains_are_told_by_the_interleaved_ratio_with_its_interval():
    small = row(size_bytes=10_000_000, latency_ratio_to_reference=0.3, latency_ratio_ci95=(0.2, 0.5), score_delta=-0.01)
    quick = row(latency_ratio_to_reference=0.35, latency_ratio_ci95=(0.34, 0.36), peak_rss_above_baseline_bytes=45_000_000)
    rows = {"a": row(), "b": small, "c": quick, "d": VariantSummary(format="onnx", scheme="fp16", status="failed", reason="no")}
    summary = Summary(
        reference="a",
        device={},
        variants=rows,
        pareto=(),
        chosen="b",
        chosen_reason="fits",
        budget=Budget(name="none"),
        primary_metric=PRIMARY_METRIC,
    )
    text = changes.gains_table(summary)
    assert list(changes.pick_variants(summary)) == ["b", "c"]  # c is the fastest: its interval ends at 0.36, b's at 0.5
    assert "| size, MB | 40 | 10 (\N{MINUS SIGN}75.0 %) |" in text
    assert "(\N{MINUS SIGN}70.0 [\N{MINUS SIGN}80.0, \N{MINUS SIGN}50.0] %)" in text
    assert "45 (\N{MINUS SIGN}50.0 %)" in text and "\N{MINUS SIGN}1.00 points" in text
    assert "The way to" not in text  # nothing lies between


def test_each_step_on_the_way_is_told_against_the_one_before():
    torch = row(size_bytes=40, latency_ratio_to_reference=1.0, peak_rss_bytes=400)
    engine = row(size_bytes=40, latency_ratio_to_reference=0.5, peak_rss_bytes=200)
    small = row(size_bytes=10, latency_ratio_to_reference=0.1, peak_rss_bytes=100, score=0.89, scheme="int8-static")
    parts = row(size_bytes=11, latency_ratio_to_reference=0.11, peak_rss_bytes=80, score=0.89, scheme="int8-static")
    rows = {"torch-fp32": torch, "onnx-fp32": engine, "onnx-int8-static": small, "onnx-int8-static-parts": parts}
    summary = Summary("torch-fp32", {}, rows, (), "onnx-int8-static-parts", "fits", Budget(name="none"), PRIMARY_METRIC)
    found = changes.find_steps(summary, "onnx-int8-static-parts")
    assert [(step.what, step.name) for step in found] == [
        ("engine", "onnx-fp32"),
        ("compression", "onnx-int8-static"),
        ("loading and settings", "onnx-int8-static-parts"),
    ]
    minus = "\N{MINUS SIGN}"
    assert [step.latency for step in found] == [f"{minus}50.0 %", f"{minus}80.0 %", "+10.0 %"]
    assert [step.memory for step in found] == [f"{minus}50.0 %"] * 2 + [f"{minus}20.0 %"]
    assert [step.score for step in found] == ["0.00", f"{minus}1.00", "0.00"]
    assert [step.name for step in changes.find_steps(summary, "onnx-int8-static")] == ["onnx-fp32", "onnx-int8-static"]
    assert changes.find_steps(summary, "onnx-fp32") == [] and "| engine | onnx-fp32 |" in changes.gains_table(summary)


def test_a_step_to_fewer_operations_is_called_so():
    plain = row(size_bytes=10, latency_ratio_to_reference=0.1, peak_rss_bytes=100, scheme="int8-static", multiply_adds=10)
    slim = row(size_bytes=3, latency_ratio_to_reference=0.04, peak_rss_bytes=90, scheme="int8-static", multiply_adds=2)
    rows = {"torch-fp32": row(size_bytes=40, multiply_adds=10), "onnx-int8-static": plain, "onnx-int8-static-slim": slim}
    summary = Summary("torch-fp32", {}, rows, (), "onnx-int8-static-slim", "fits", Budget(name="none"), PRIMARY_METRIC)
    found = changes.find_steps(summary, "onnx-int8-static-slim")
    assert [step.what for step in found] == ["compression", "fewer operations"] and found[1].size == "\N{MINUS SIGN}70.0 %"
