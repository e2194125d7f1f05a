"""The task `none`, without a primary metric: everything that shows or uses a score takes the agreement with the reference instead."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.artifacts.flat_metrics import flatten_summary
from edgewise.bundle import contents
from edgewise.config import compose, schema
from edgewise.config.compose import Options
from edgewise.config.schema import Budget
from edgewise.errors import ConfigError
from edgewise.report import answer, changes, choice, page, terminal, verdicts
from edgewise.sweep import points, start
from edgewise.track import run_set
from tests.conftest import ROOT
from tests.support.fabricate import FIVE, THIRTEEN, fabricate, write_report
from tests.support.records import made, varied

REFERENCE, STATIC, INT4 = "onnx-fp32", "onnx-int8-static", "tflite-int4-weight"
AGREES = Budget("agrees", size_bytes=12_000_000, sqnr_db=15.0)


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def report(root, rows=FIVE, figure=False, **options):
    fabricate(root, rows, task="none", **options)
    return write_report(figure)


def measured_db(name: str) -> float:
    """The SQNR of the outputs on disk, from its formula."""
    expected, given = (np.load(f"models/evaluate/{each}/outputs.npz")["logits"].astype(float) for each in (REFERENCE, name))
    return 10 * math.log10(((expected - expected.mean(axis=0)) ** 2).sum() / ((expected - given) ** 2).sum())


def cells(markdown: str, name: str) -> dict[str, str]:
    """The row of a variant in report.md, by column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")]
    return dict(zip(lines[0], next(line for line in lines if line[0].split()[0] == name), strict=True))


def test_the_table_has_the_agreement_where_a_score_would_stand(project):
    report(project)
    text = (project / "metrics/report.md").read_text()
    row = cells(text, STATIC)
    assert list(row)[:3] == ["variant", "SQNR dB", "MB"] and row["SQNR dB"] == f"{measured_db(STATIC):.1f}"
    assert cells(text, REFERENCE)["SQNR dB"] == "identical" and cells(text, "openvino-int8-static")["SQNR dB"] == ""
    assert "Pareto set of SQNR, latency and size" in text and "None" not in text


def test_a_narrow_terminal_keeps_the_agreement(project, monkeypatch, capsys):
    summary = report(project)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    terminal.print_report(summary)
    head = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("variant"))
    assert head.split() == ["variant", "SQNR", "MB", "p50", "ms", "ratio", "peak"]


@pytest.mark.parametrize(("rows", "bench"), [(FIVE, True), (FIVE, False), (THIRTEEN, True)])
def test_the_page_shows_the_agreement(project, rows, bench):
    report(project, rows, bench=bench, budget=AGREES)
    text = (project / page.MODELS / "report" / page.NAME).read_text(encoding="utf-8")
    assert f"SQNR {measured_db(STATIC):.1f} dB to the reference" in text and "<dt>against the reference</dt>" not in text
    assert 'id="metric">null<' in text and "SQNR, latency and size at once" in text
    assert f"SQNR {measured_db(INT4):.1f} dB, limit 15 dB" in text


def test_the_page_compares_the_agreement_of_the_chosen_variant(project):
    summary = report(project, THIRTEEN, budget=AGREES)
    assert summary.chosen == "openvino-int8-static"
    found = {change.what: change for change in changes.list_changes(*(summary.variants[n] for n in (REFERENCE, STATIC)), None)}
    assert (found[changes.AGREEMENT].before, found[changes.AGREEMENT].after) == ("identical", f"{measured_db(STATIC):.1f}")
    assert [step.score for step in changes.find_steps(summary, summary.chosen)] == [
        "identical" if summary.variants[name].quality.sqnr_db == 200 else f"{measured_db(name):.1f}"
        for name in ("openvino-fp32", "openvino-int8-static")
    ]
    assert changes.AGREEMENT in changes.gains_table(summary)
    cards = {title: figure for title, _, figure in page.make_cards(summary)}
    assert f"SQNR {measured_db(INT4):.1f} dB" in cards["smallest"]
    assert page.score_caveat(summary.variants[REFERENCE], None) == "", "identical outputs need no caveat"


def test_the_answer_has_no_unit_for_identical_outputs(project):
    summary = report(project)
    same, other = (answer.Pick(name, {answer.SMALLEST: "why"}, Path("x")) for name in (REFERENCE, STATIC))
    assert answer.describe_pick(same, summary) == "why; outputs identical"
    assert answer.describe_pick(other, summary) == f"why; SQNR {measured_db(STATIC):.1f} dB"


def test_the_figure_is_of_the_agreement_against_latency(project):
    report(project, figure=True)
    drawn = (project / "models/report/accuracy-latency.svg").read_text()
    assert "SQNR to the reference, dB" in drawn and "Agreement against latency" in drawn and "paired difference" not in drawn
    assert all(f"<!-- {name}" in drawn for name in (REFERENCE, STATIC, INT4))


def test_the_plot_of_dvc_gets_the_agreement(project):
    report(project)
    points = {point["variant"]: point for point in json.loads((project / "metrics/points.json").read_text())}
    assert points[STATIC]["score"] == points[STATIC]["sqnr_db"] == pytest.approx(measured_db(STATIC))
    assert points[REFERENCE]["score"] == 100  # so that identical outputs do not flatten the others


def test_the_front_counts_the_agreement():
    def row(sqnr, ratio, size):
        interval = (0.99 * ratio, 1.01 * ratio)
        return made("onnx", "fp32", sqnr_db=sqnr, latency_ratio_to_reference=ratio, latency_ratio_ci95=interval, size_bytes=size)

    rows = {
        "reference": row(200.0, 1.0, 40),
        "rounding": row(120.0, 0.9, 40),  # beyond 100 dB only the rounding of float32 differs
        "int8": row(30.0, 0.5, 10),
        "worse": row(20.0, 0.6, 10),
        "smaller": row(10.0, 0.6, 5),
        "unknown": row(None, 0.1, 1),
    }
    assert verdicts.pareto_front(rows, None) == ("rounding", "int8", "smaller")


@pytest.mark.parametrize(
    ("sqnr", "limit", "met", "text"),
    [
        (31.94, 30.0, True, "SQNR 31.9 dB, limit 30 dB"),
        (29.0, 30.0, False, "SQNR 29.0 dB, limit 30 dB"),
        (29.98, 30.0, False, "SQNR 29.980 dB, limit 30 dB"),
        (30.0, 30.0, True, "limit 30 dB"),
        (200.0, 30.0, True, "SQNR 200.0 dB, limit 30 dB"),
        (None, 30.0, False, "cannot tell, the reference failed"),
    ],
)
def test_a_limit_on_the_agreement(sqnr, limit, met, text):
    (finding,) = choice.check_limits(made("onnx", "fp32", sqnr_db=sqnr), Budget("test", sqnr_db=limit), None, None)
    assert finding.met is met and text in finding.text


def test_the_choice_takes_what_agrees_and_else_names_the_nearest():
    known = {"size_bytes": 9_000_000, "peak_rss_bytes": 50_000_000, "latency_ratio_to_reference": 0.5, "latency_ratio_ci95": (0.4, 0.6)}
    good, quick = made("onnx", "fp32", sqnr_db=32.0, **known), {"latency_ratio_to_reference": 0.2, "latency_ratio_ci95": (0.1, 0.3)}
    rows = {"good": good, "faster": varied(good, sqnr_db=12.0, **quick), "off": varied(good, sqnr_db=5.0)}
    limits = {"size_bytes": 10_000_000, "peak_rss_bytes": 60_000_000}
    found = choice.choose(rows, Budget("test", sqnr_db=30.0, **limits), None, None)
    assert found.chosen == "good" and found.losers == {
        "faster": ("SQNR 12.0 dB, limit 30 dB",),
        "off": ("SQNR 5.0 dB, limit 30 dB",),
    }
    assert choice.choose(rows, Budget("test", **limits), None, None).chosen == "faster"
    assert choice.choose(rows, Budget("test", sqnr_db=40.0, **limits), None, None).nearest_miss == "good"


def test_a_limit_on_the_score_names_the_one_that_this_task_can_meet():
    (finding,) = choice.check_limits(made("onnx", "fp32"), Budget("test", accuracy_drop_points=1.0), None, None)
    assert not finding.met and "budget.sqnr_db" in finding.text and "accuracy_drop_points to none" in finding.text


@pytest.mark.parametrize(("given", "limit"), [(None, 25.0), (30, 30.0), ("none", None)])
def test_the_word_none_lifts_the_limit_on_the_agreement(tmp_path, given, limit):
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    (tmp_path / "conf/budget/near.yaml").write_text("defaults: [none, _self_]\nsqnr_db: 25\n")
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["budget"] = {"name": "near", "sqnr_db": given}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    assert compose.compose(tmp_path / "params.yaml", tmp_path / "conf").budget.sqnr_db == limit


def test_the_card_of_the_bundle_has_the_agreement(project):
    summary = report(project, FIVE[:4], budget=AGREES)
    assert summary.chosen == STATIC
    chosen = contents.Chosen.read(schema.read(), summary, STATIC, Path("models"))
    contents.write_card(chosen, project)
    text = (project / "card.md").read_text()
    assert f"| SQNR to {REFERENCE}, dB | {measured_db(STATIC):.1f} on 540 test samples |" in text
    assert "None" not in text and "Labels: ." not in text
    figures = json.loads((project / "card.json").read_text())["figures"]
    assert figures["sqnr_db"] == pytest.approx(measured_db(STATIC)) and "accuracy_top1" not in figures


def test_a_run_in_mlflow_has_the_agreement(project):
    summary = report(project, budget=AGREES)
    runs = run_set.make_pipeline_runs(schema.read(), summary)
    record = next(record for record in runs.records if record.variant == STATIC)
    assert record.metrics["sqnr_db"] == pytest.approx(measured_db(STATIC)) and record.marks == {"chosen": "true", "pareto": "true"}
    assert not any("accuracy" in name for name in record.metrics) and "latency_verdict" in record.tags
    (registration,) = runs.registrations
    assert registration.aliases["local-agrees"] == registration.aliases["local-fastest"] == record.key


def test_a_sweep_has_objectives_that_exist(project):
    summary = report(project)
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    (point,) = points.compose_all(yaml.safe_dump({**tree, "task": {"name": "none"}}), [()], Options(ROOT / "conf"))
    found = start.choose_objectives(None, [point])
    assert found == {"sqnr_db": "maximize", "latency_ratio_to_reference": "minimize", "size_bytes": "minimize"}
    result = flatten_summary(summary.variants[STATIC], summary.primary_metric)
    assert all(isinstance(result[name], (int, float)) for name in found)
    assert start.choose_objectives({"sqnr_db": "maximize"}, [point]) == {"sqnr_db": "maximize"}
    with pytest.raises(ConfigError, match=r"unknown figure 'accuracy_top1'; allowed: .*sqnr_db"):
        start.choose_objectives({"accuracy_top1": "maximize"}, [point])


def test_where_the_reference_failed_the_report_says_that_nothing_was_compared(project):
    summary = report(project, [replace(FIVE[0], fails_in="evaluate"), *FIVE[1:]], budget=AGREES, figure=True)
    assert summary.pareto == () and summary.chosen is None and "SQNR: cannot tell, the reference failed" in summary.losers[STATIC]
    assert "the reference onnx-fp32 failed" in (project / page.MODELS / "report" / page.NAME).read_text()
    assert "<!-- No variant could be compared with onnx-fp32. -->" in (project / "models/report/accuracy-latency.svg").read_text()
