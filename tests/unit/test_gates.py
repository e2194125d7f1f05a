"""The gates of `edgewise report --check`: each with a case that passes, one that fails and one that is not resolved."""

import json
import math
import subprocess
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

from edgewise.artifacts import records
from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.cli import checking
from edgewise.config.schema import Budget, Margins
from edgewise.errors import UserError
from edgewise.report import choice, gates, last_run
from edgewise.report.gates import Demand, Demands
from edgewise.report.last_run import Origin, Run
from edgewise.stats.independent import wilson_interval
from edgewise.tasks import classification, embedding, none, regression, segmentation
from tests.support.records import made

BOARD = {"name": "board", "fingerprint": "board", "facts": {}, "packages": {}}
REFERENCE = made("onnx", "fp32", score=0.95, samples=1000, profile="quick", latency_ratio_to_reference=1.0, latency_ratio_ci95=(0.99, 1.01))


def int8(**figures) -> VariantSummary:
    usual = {"latency_ratio_to_reference": 0.5, "latency_ratio_ci95": (0.48, 0.52), "between_visits": True, "profile": "quick"}
    score = {"score": 0.948, "samples": 1000, "score_delta": -0.002, "score_delta_ci95": (-0.004, 0.0), "score_resolvable": 0.004}
    between = {**usual, **score, **figures}
    row = made("onnx", "int8", **{name: value for name, value in between.items() if name != "between_visits"})
    return replace(row, latency=replace(row.latency, between_visits=between["between_visits"]))


def summary(row: VariantSummary | None = None, budget: Budget | None = None, **fields) -> Summary:
    rows = {"onnx-fp32": REFERENCE, "onnx-int8": row or int8()}
    chosen = choice.choose(rows, budget or Budget("none"), classification.PRIMARY_METRIC, 0.95)
    picked = {"chosen": chosen.chosen, "chosen_reason": chosen.reason, "losers": dict(chosen.losers or {})}
    known = {"reference": "onnx-fp32", "device": BOARD, "variants": rows, "pareto": (), "budget": budget or Budget("none")}
    return Summary(**{**known, **picked, "primary_metric": classification.PRIMARY_METRIC, **fields})


def verdicts_of(given: Summary, **demands) -> list[str]:
    return [gate.verdict for gate in gates.run_gates(given, Demands(**demands))]


@pytest.mark.parametrize(("factor", "verdict"), [(1.5, "pass"), (2.0, "not resolved"), (2.5, "fail")])
def test_faster_than(factor, verdict):
    gate = gates.check_faster(summary(), Demand("onnx-int8", factor))
    assert gate.verdict == verdict and "2.00 [1.92, 2.08] times as fast as onnx-fp32" in gate.text
    assert ("visits" in gate.text or "limit" in gate.text) == (verdict == "not resolved")


def test_a_budget_that_the_reference_alone_keeps_passes_and_says_so():
    same = replace(REFERENCE.quality, delta=0.0, delta_ci95=(0.0, 0.0))
    base = replace(REFERENCE, quality=same, latency=replace(REFERENCE.latency, verdict="reference"))
    rows = {"onnx-fp32": base, "onnx-int8": int8()}
    budget = Budget("none", accuracy_drop_points=0.1)
    chosen = choice.choose(rows, budget, classification.PRIMARY_METRIC, 0.95)
    (gate,) = gates.check_budget(summary(budget=budget, variants=rows, chosen=chosen.chosen, chosen_reason=chosen.reason))
    assert gate.verdict == "pass" and gate.text.startswith("chosen: onnx-fp32, the reference itself, so nothing is gained")
    assert "nearest: onnx-int8 (accuracy drop" in gate.text


def test_faster_than_says_where_it_holds_for_one_visit_alone():
    assert "within this visit" in gates.check_faster(summary(int8(between_visits=False)), Demand("onnx-int8", 1.5)).text


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (int8(latency_ratio_ci95=None), "not resolved"),
        (made("onnx", "int8", "failed", reason="covers nothing"), "fail"),
    ],
)
def test_without_an_interval_nothing_is_shown(row, verdict):
    assert gates.check_faster(summary(row), Demand("onnx-int8", 1.5)).verdict == verdict


@pytest.mark.parametrize(
    ("interval", "margin", "verdict"),
    [
        ((-0.004, 0.001), 0.5, "pass"),
        ((0.0, 0.0), 0.5, "pass"),
        ((-0.004, 0.001), 0.3, "not resolved"),
        ((-0.03, -0.01), 0.5, "fail"),
        ((0.01, 0.03), 0.5, "fail"),  # better, and not equivalent
        ((-0.03, -0.004), 0.5, "not resolved"),  # worse, by an amount that may be within the margin
    ],
)
def test_equivalent(interval, margin, verdict):
    row = int8(score_delta=sum(interval) / 2, score_delta_ci95=interval)
    gate = gates.check_equivalent(summary(row), Demand("onnx-int8", margin))
    assert gate.verdict == verdict and "points" in gate.text


def test_equivalent_needs_a_score():
    with pytest.raises(UserError, match=r"budget\.sqnr_db"):
        gates.check_equivalent(summary(primary_metric=None), Demand("onnx-int8", 0.5))
    assert segmentation.PRIMARY_METRIC.share  # in points as well


@pytest.mark.parametrize(
    ("now", "verdict"),
    [
        ((0.46, 0.48), "pass"),
        ((0.495, 0.505), "pass"),  # as fast, and known well enough
        ((0.48, 0.53), "not resolved"),
        ((0.55, 0.58), "fail"),
    ],
)
def test_no_slower_than_last(now, verdict):
    then = summary(int8(latency_ratio_ci95=(0.49, 0.51)))
    row = int8(latency_ratio_to_reference=math.sqrt(now[0] * now[1]), latency_ratio_ci95=now)
    (gate,) = gates.check_last(summary(row), then, "HEAD")
    assert gate.verdict == verdict and gate.name == "--no-slower-than-last onnx-int8" and "HEAD" in gate.text


def test_the_margin_of_the_settings_says_what_slower_is():
    then, now = summary(int8(latency_ratio_ci95=(0.49, 0.51))), int8(latency_ratio_ci95=(0.48, 0.53))
    assert next(gates.check_last(summary(now, margins=Margins(latency=0.2)), then, "HEAD")).verdict == "pass"


@pytest.mark.parametrize(
    ("then", "said"),
    [
        ({"device_fingerprint": "another"}, "another device"),
        ({"threads": 4}, "another threads"),
        ({"latency_ratio_ci95": None}, "no interval"),
    ],
)
def test_what_cannot_be_compared_is_not_resolved(then, said):
    before = summary(int8(**then))
    (gate,) = gates.check_last(summary(), before, "v1")
    assert gate.verdict == "not resolved" and said in gate.text


def test_a_measurement_that_was_not_repeated_is_no_slower_than_itself():
    same = int8(latency_ratio_ci95=(0.4, 0.6), latency_p50_ms=3.21, bench_samples=400, visits=1)
    (gate,) = gates.check_last(summary(same), summary(same), "HEAD")
    assert gate.verdict == "pass" and "the measurement is that of HEAD" in gate.text
    again = int8(latency_ratio_ci95=(0.4, 0.6), latency_p50_ms=3.22, bench_samples=400, visits=2)
    assert next(gates.check_last(summary(again), summary(same), "HEAD")).verdict == "not resolved"


@pytest.mark.parametrize(("ms", "then_on", "warned"), [(0.121, "board", True), (0.055, "board", False), (0.121, "another", False)])
def test_a_reference_that_became_slower_is_told_since_ratios_do_not_see_it(ms, then_on, warned):
    def with_reference(p50_ms: float, device: str = "board") -> Summary:
        row = made("onnx", "fp32", latency_p50_ms=p50_ms, device_fingerprint=device, **{"profile": "quick", "score": 0.95, "samples": 1000})
        return summary(variants={"onnx-fp32": row, "onnx-int8": int8()})

    gates_found = list(gates.check_last(with_reference(ms), with_reference(0.048, then_on), "main"))[1:]
    assert bool(gates_found) is warned
    for gate in gates_found:
        assert gate.verdict == "not resolved" and "takes 0.121 ms, in main 0.048:" in gate.text and "latency_p50_ms" in gate.text


def test_a_variant_that_was_ok_and_fails_now_fails():
    failed = made("onnx", "int8", "failed", reason="covers nothing")
    assert [gate.verdict for gate in gates.check_last(summary(failed), summary(), "HEAD")] == ["fail"]
    assert [gate.verdict for gate in gates.check_last(summary(), summary(failed), "HEAD")] == ["not resolved"], "no variant is in both"


def test_the_interval_of_a_change_is_that_of_two_independent_ratios():
    low, high = gates.quotient((0.9, 1 / 0.9), (0.9, 1 / 0.9))
    assert math.log(high) == pytest.approx(math.sqrt(2) * -math.log(0.9)) and low == pytest.approx(1 / high)
    assert gates.quotient(None, (1.0, 1.0)) is None


def judged(right: int, samples: int, of: VariantSummary = REFERENCE, **scores) -> VariantSummary:
    """A row with an accuracy and its own interval."""
    found = {"accuracy_top1_ci95": list(wilson_interval(right, samples)), **scores}
    return replace(of, quality=replace(of.quality, score=right / samples, samples=samples, scores=found))


ONCE, ANEW = Origin("data", "weights"), Origin("data", "other weights")


def run_of(*rows: VariantSummary, origin=ONCE, name="main", **fields) -> Run:
    return Run(name, summary(**fields, variants=dict(zip(("onnx-fp32", "onnx-int8"), rows, strict=False))), origin)


@pytest.mark.parametrize(
    ("right", "samples", "verdict"),
    [
        (110, 280, "fail"),  # noise in the weights
        (265, 280, "not resolved"),  # no loss seen, but so few samples cannot show that there is none of a point
        (280, 280, "pass"),
        (257, 280, "not resolved"),  # 2.9 points are lost, and as few samples show neither
        (26_500, 28_000, "pass"),
        (25_700, 28_000, "fail"),
        (26_400, 28_000, "pass"),  # a loss that is shown to be below a point
    ],
)
def test_no_worse_than_last_sees_a_worse_model(right, samples, verdict):
    then = run_of(judged(265 * samples // 280, samples))
    (gate,) = gates.check_scores(run_of(judged(right, samples), origin=ANEW), then)
    assert gate.verdict == verdict and gate.name == "--no-worse-than-last onnx-fp32" and "in main 94.64%" in gate.text
    assert ("samples in both runs" in gate.text) == (verdict == "not resolved")


def test_a_worse_model_is_seen_in_the_reference_and_in_each_variant():
    now, then = (
        run_of(judged(right, 1000), judged(right, 1000, int8()), origin=of) for right, of in ((400, ANEW), (950, Origin("data", "w")))
    )
    found = list(gates.check_scores(now, then))
    assert [(gate.name.split()[1], gate.verdict) for gate in found] == [("onnx-fp32", "fail"), ("onnx-int8", "fail")]
    assert "accuracy top-1 40.00%, in main 95.00%: -55.00 [-58.22, -51.57] points" in found[0].text


def test_the_margin_of_the_task_says_what_a_loss_is():
    now, then = judged(9_480, 10_000), run_of(judged(9_500, 10_000))
    assert [next(gates.check_scores(run_of(now, origin=ANEW, margins=m), then)).verdict for m in (Margins(score=0.5), Margins())] == [
        "not resolved",
        "pass",
    ]


def test_the_same_evaluation_is_no_worse_however_few_its_samples():
    same = run_of(judged(19, 20), judged(18, 20, int8()))
    found = list(gates.check_scores(same, same))
    assert [gate.verdict for gate in found] == ["pass", "pass"] and all("the same as in main" in gate.text for gate in found)
    runs = (replace(same, origin=ANEW), same), (replace(same, origin=Origin()),) * 2
    anew = [next(gates.check_scores(now, then)).verdict for now, then in runs]
    assert anew == ["not resolved"] * 2, "another model, or one that is not known, may be right by chance"


def test_a_variant_of_the_same_reference_is_compared_by_pairs():
    then = run_of(judged(265, 280), judged(262, 280, int8(score_delta=-3 / 280, score_delta_ci95=(-0.015, -0.008))))
    rows = judged(265, 280), judged(261, 280, int8(score_delta=-4 / 280, score_delta_ci95=(-0.018, -0.011)))
    _, gate = gates.check_scores(run_of(*rows), then)
    assert gate.verdict == "pass" and "-0.36 [-0.8" in gate.text
    _, gate = gates.check_scores(run_of(*rows, origin=ANEW), then)
    assert gate.verdict == "not resolved", "the references differ"


def test_scores_of_other_samples_are_compared_and_that_is_said():
    then = run_of(judged(950, 1000))
    (gate,) = gates.check_scores(run_of(judged(400, 800), origin=Origin("new data", "weights")), then)
    assert gate.verdict == "fail" and gate.text.endswith("; on another data set, 800 test samples, then 1,000")


@pytest.mark.parametrize(("now", "verdict"), [(0.5, "pass"), (0.42, "pass"), (0.7, "fail"), (0.51, "not resolved")])
def test_of_an_error_less_is_better(now, verdict):
    def erring(value: float) -> VariantSummary:
        row = judged(1, 1)
        return replace(row, quality=replace(row.quality, score=value, samples=100, scores={"mae_ci95": [value - 0.03, value + 0.03]}))

    metric = {"primary_metric": regression.PRIMARY_METRIC, "margins": Margins(score=0.05)}
    (gate,) = gates.check_scores(run_of(erring(now), origin=ANEW, **metric), run_of(erring(0.5), **metric))
    assert (gate.verdict, "MAE" in gate.text) == (verdict, True)


def test_an_error_without_a_margin_may_grow_by_a_percent():
    def erring(value: float) -> VariantSummary:
        row = judged(1, 1)
        return replace(row, quality=replace(row.quality, score=value, scores={"mae_ci95": [value - 0.01, value + 0.01]}))

    metric = {"primary_metric": regression.PRIMARY_METRIC}
    found = [next(gates.check_scores(run_of(erring(now), origin=ANEW, **metric), run_of(erring(2.0), **metric))) for now in (2.0, 2.01)]
    assert [gate.verdict for gate in found] == ["pass", "not resolved"] and "a loss below 0.02 passes" in found[1].text


@pytest.mark.parametrize(
    ("now", "then", "said"),
    [
        (none, none, "budget.sqnr_db"),
        (classification, segmentation, "judged by mean IoU, this run by accuracy top-1"),
        (classification, none, "judged by no score"),
        (embedding, embedding, "not whether the reference became worse"),
    ],
)
def test_scores_that_cannot_be_compared_are_not_resolved(now, then, said):
    (gate,) = gates.check_scores(*(run_of(REFERENCE, primary_metric=task.PRIMARY_METRIC) for task in (now, then)))
    assert gate.verdict == "not resolved" and said in gate.text


def test_a_score_without_an_interval_is_not_resolved():
    (gate,) = gates.check_scores(run_of(judged(1, 2), origin=ANEW), run_of(REFERENCE))
    assert gate.verdict == "not resolved" and "without an interval" in gate.text
    assert next(gates.check_scores(run_of(judged(1, 2)), run_of())).text.startswith("no variant is in both runs")


def test_a_variant_that_had_a_score_and_fails_now_is_worse():
    failed = made("onnx", "fp32", "failed", reason="covers nothing")
    assert [gate.verdict for gate in gates.check_scores(run_of(failed), run_of(REFERENCE))] == ["fail"]


@pytest.mark.parametrize(
    ("limits", "verdict"),
    [
        ({"latency_ratio": 0.6}, "pass"),
        ({"latency_ratio": 0.3}, "fail"),
        ({"latency_ratio": 0.5}, "not resolved"),
        ({"size_bytes": 10}, "not resolved"),  # it was not measured
    ],
)
def test_the_budget_is_missed_only_where_that_is_shown(limits, verdict):
    found = gates.run_gates(summary(budget=Budget("mine", **limits)), Demands())
    assert [gate.name for gate in found] == ["variants", "budget mine"] and found[1].verdict == verdict and "onnx-int8" in found[1].text


def test_a_budget_by_ratio_says_the_figures():
    (found,) = choice.check_limits(int8(), Budget("mine", latency_ratio=0.5), classification.PRIMARY_METRIC, 0.95)
    assert found.unsure and found.text.startswith("latency ratio 0.500 [0.480, 0.520], limit 0.5: not resolved")
    (none,) = choice.check_limits(int8(latency_ratio_ci95=None), Budget("mine", latency_ratio=0.5), classification.PRIMARY_METRIC, 0.95)
    assert none.unsure and not none.met


def test_the_worst_gate_decides_the_exit_code():
    codes = {("pass",): 0, ("pass", "fail", "not resolved"): 1, ("pass", "not resolved"): 4}
    for found, code in codes.items():
        assert gates.exit_code([gates.Gate("a", verdict, "") for verdict in found]) == code


@pytest.mark.parametrize(
    "text", ["onnx-int8", "onnx-int8:", "onnx-int8:fast", "onnx-int8:0", "onnx-int8:-1", "onnx-int8:nan", "onnx-int9:1.5"]
)
def test_a_demand_that_is_none_is_a_mistake_of_the_user(text):
    with pytest.raises(UserError, match="--faster-than"):
        gates.parse_demand("--faster-than", text, summary())
    assert gates.parse_demand("--faster-than", "onnx-int8:1.5", summary()) == Demand("onnx-int8", 1.5)


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """A repository whose last commit has metrics/summary.json, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("project/metrics").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    records.write_summary(summary(int8(latency_ratio_ci95=(0.49, 0.51))))
    for command in (["init", "-q"], ["add", "."], ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "One"]):
        subprocess.run(["git", *command], check=True, cwd=tmp_path)
    return Namespace(
        check=True,
        faster_than=[],
        equivalent=[],
        no_slower_than_last=True,
        no_worse_than_last=False,
        rev=None,
        json="out/gates.json",
        junit="out/g.xml",
    )


def test_the_last_run_is_that_of_git(committed, capsys):
    row = int8(latency_ratio_to_reference=0.6, latency_ratio_ci95=(0.59, 0.61))
    records.write_summary(summary(row))
    committed.faster_than, committed.equivalent = ["onnx-int8:1.5"], ["onnx-int8:0.3"]
    assert checking.check(committed, records.read_summary()) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].strip() for line in lines] == ["pass", "pass", "not resolved", "fail"]
    known = json.loads(Path("out/gates.json").read_text())
    assert (
        known["exit_code"] == 1
        and known["device_fingerprint"] == "board"
        and known["gates"][3]["name"] == "--no-slower-than-last onnx-int8"
    )
    suite = ElementTree.parse("out/g.xml").getroot()
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("4", "1", "1")
    assert [case.find("failure") is not None for case in suite] == [False, False, False, True] and suite[2].find("skipped") is not None


def test_the_scores_of_the_last_run_are_those_of_git(committed, capsys):
    folder = Path("metrics")
    (folder / "data.json").write_text('{"schema": 2, "digest": "a"}')
    (folder / "train.json").write_text('{"schema": 2, "weights_sha256": "b"}')
    records.write_summary(summary(variants={"onnx-fp32": judged(19, 20)}))
    subprocess.run(["git", "add", "."], check=True)
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "Two"], check=True)
    committed.no_slower_than_last, committed.no_worse_than_last = False, True
    assert checking.check(committed, records.read_summary()) == 0
    assert "--no-worse-than-last onnx-fp32: accuracy top-1 95.00%, the same as in HEAD" in capsys.readouterr().out
    (folder / "train.json").write_text('{"schema": 2, "weights_sha256": "c"}')
    assert checking.check(committed, summary(variants={"onnx-fp32": judged(5, 20)})) == 1
    assert last_run.read_last("HEAD~1", "--no-worse-than-last").origin == Origin()


def test_a_revision_without_a_summary_is_a_mistake_of_the_user(committed):
    with pytest.raises(UserError, match="no-such"):
        last_run.read_last("no-such-revision", "--no-worse-than-last")


@pytest.mark.parametrize(
    "given",
    [
        {"check": False, "faster_than": ["a:1"]},
        {"check": False, "no_slower_than_last": True},
        {"check": False, "junit": "a.xml"},
        {"check": False, "no_worse_than_last": True},
        {"check": True, "rev": "main"},
    ],
)
def test_an_option_that_would_be_ignored_is_refused(given):
    usual = {"check": False, **checking.NEED_CHECK}
    checking.refuse_without_check(Namespace(**usual))
    with pytest.raises(UserError, match=r"give (that|one of them) too"):
        checking.refuse_without_check(Namespace(**{**usual, **given}))


def test_what_a_framework_printed_in_colour_leaves_xml_that_a_parser_reads(tmp_path):
    said = "\x1b[31mFailed\x1b[0m:\x00 <a & b>\x08 \udce9 öß\n\tat line 3"
    gates.write_junit([gates.Gate("variants", verdict, said) for verdict in ("fail", "not resolved", "pass")], tmp_path / "g.xml")
    suite = ElementTree.parse(tmp_path / "g.xml").getroot()
    assert suite[0][0].get("message") == suite[1][0].get("message") == suite[2][0].text == "Failed: <a & b>  öß\n\tat line 3"


def test_without_git_the_last_run_is_a_mistake_of_the_user(committed, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="git, which has the last run, is not installed"):
        last_run.read_last("HEAD", "--no-slower-than-last")


@pytest.mark.parametrize("name", [".", "out", ""])
@pytest.mark.parametrize("option", ["json", "junit"])
def test_a_folder_is_no_file_for_the_verdicts(committed, option, name):
    Path("out").mkdir(exist_ok=True)
    setattr(committed, option, name)
    with pytest.raises(UserError, match=f"--{option} '{name}' must be the name of a file"):
        checking.check(committed, records.read_summary())
