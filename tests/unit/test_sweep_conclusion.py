"""What a user sees at the end of a sweep: the table, which choice matters, the picture; from outcomes that were made up."""

from dataclasses import replace

import pytest
from rich.console import Console

from edgewise.artifacts.records import Summary
from edgewise.config.schema import Budget, to_plain
from edgewise.sweep import app, conclusion
from edgewise.sweep.clone import Code
from edgewise.sweep.execution import SCHEMA, Outcome, read_outcome, read_outcomes, write_outcome
from edgewise.sweep.plan import Plan
from edgewise.sweep.summary import summarize
from edgewise.tasks.classification import PRIMARY_METRIC
from tests.support.records import made

KEYS = ("variants.v.per_channel", "variants.v.keep_float")
OBJECTIVES = {"accuracy_top1": "maximize", "latency_ratio_to_reference": "minimize", "size_bytes": "minimize"}
PLAN = Plan("made-up", "/nowhere", "/nowhere", Code("h", "t", "k", ()), "", (), KEYS, (), searched=True, objectives=OBJECTIVES)


def outcome(number: int, per_channel: str, keep_float: str, failed: bool = False, short: bool = False) -> Outcome:
    """short: measured by a profile that gives no intervals."""
    ratio = 0.4 + 0.001 * number
    row = made(
        *("onnx", "int8-static", "failed" if failed else "ok"),
        reason="no such layer" if failed else None,
        score=0.9 + 0.02 * (per_channel == "true"),
        latency_ratio_to_reference=ratio,
        latency_ratio_ci95=None if short else (ratio - 0.01, ratio + 0.01),
        size_bytes=11_300_000,
    )
    summary = to_plain(Summary("v", {"name": "local", "fingerprint": "f"}, {"v": row}, (), None, "", Budget("none"), PRIMARY_METRIC))
    given = (f"{KEYS[0]}={per_channel}", f"{KEYS[1]}={keep_float}")
    return Outcome(f"sweep-{number}", given, "ok", "h", "t", "m-d", subjects=("v",), summary=summary, inputs={"device": "f"})


@pytest.fixture
def outcomes() -> list[Outcome]:
    every = [outcome(i, ("true", "false")[i % 2], ("[]", "[classifier]")[i // 2 % 2]) for i in range(10)]
    return [*every, outcome(10, "true", "[classifier]", failed=True)]


def test_the_table_shows_every_value_as_it_was_given_and_what_failed(outcomes, capsys):
    summary = summarize(PLAN, outcomes, conclusion.compute_importances(PLAN, outcomes))
    Console(width=150).print(conclusion.make_table(summary))
    said = capsys.readouterr().out
    assert "11 points of v; *: Pareto front" in said and "latency / reference" in said and "size, MB" in said and "…" not in said
    rows = {line.split()[0]: line for line in said.splitlines() if line.strip().startswith("sweep-")}
    assert len(rows) == 11 and "sweep-0 *" in said and "[classifier]" in rows["sweep-2"]
    assert rows["sweep-10"].split()[1:] == ["true", "[classifier]", "failed"]
    assert rows["sweep-1"].split()[1:] == ["false", "[]", "90.00", "0.4010", "11.30"], "no exponent, and MB for bytes"


def test_which_choice_matters_is_told_with_intervals_and_optunas_importances(outcomes):
    accuracy, importance, *_ = conclusion.describe_effects(summarize(PLAN, outcomes, conclusion.compute_importances(PLAN, outcomes)))
    assert accuracy.startswith("accuracy, %: share of the variance by key: per_channel 100% (false -1.0 [-1.0, -1.0], true +1.0")
    assert importance.startswith("accuracy, %: importance in a forest of trees (Optuna): per_channel 100%")
    few = summarize(PLAN, [outcomes[0], outcomes[3]], {})
    assert conclusion.describe_effects(few) == ["which choice matters: 2 points are too few or too similar to tell"]


def test_latency_without_intervals_ranks_nothing_and_the_sweep_says_so(tmp_path, capsys):
    every = [outcome(i, ("true", "false")[i % 2], ("[]", "[classifier]")[i // 2 % 2], short=True) for i in range(10)]
    measured = [replace(one, summary=with_profile(one.summary, "smoke")) for one in every]
    summary = summarize(PLAN, measured, conclusion.compute_importances(PLAN, measured))
    best = [row.point for row in summary.rows if row.front]
    assert best == [f"sweep-{i}" for i in range(0, 10, 2)], "all that are equal in score and size, whatever their latency"
    assert {*summary.effects, *summary.importances} == {"accuracy_top1", "size_bytes"} and "latency_ratio_to_reference" in summary.unranked
    conclusion.print_summary(summary)
    said = capsys.readouterr().out
    assert "profile smoke is too short to say which point is faster" in said and "latency / reference: " not in said
    for name, shown in (("with.png", summary), ("without.png", replace(summary, unranked=()))):
        conclusion.draw_picture(shown, tmp_path / name)
    assert (tmp_path / "with.png").read_bytes() != (tmp_path / "without.png").read_bytes(), "the picture says it too"


def test_one_interval_is_enough_to_rank_by_latency(outcomes):
    summary = summarize(PLAN, [*outcomes[:2], outcome(2, "true", "[]", short=True)], {})
    assert summary.unranked == () and [row.point for row in summary.front] == ["sweep-0"] and not summary.warnings


def with_profile(summary, name):
    conditions = {"profile": name, "scope": "model", "threads": 1, "device_fingerprint": "f"}
    return {**summary, "variants": {key: {**row, "conditions": conditions} for key, row in summary["variants"].items()}}


def test_a_variant_that_failed_is_named_on_the_line_of_its_point(outcomes):
    assert app.describe_outcome(outcomes[-1], PLAN) == "sweep-10  0.0 s  per_channel=true keep_float=[classifier]; v failed: no such layer"
    assert outcomes[0].failed_subjects == {}


def test_the_same_results_give_the_same_picture(outcomes, tmp_path):
    summary = summarize(PLAN, outcomes, {})
    for name in ("a.png", "b.png"):
        conclusion.draw_picture(summary, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes() != b""


def test_a_point_of_the_release_with_flat_records_is_run_again(outcomes, tmp_path):
    write_outcome(tmp_path, outcomes[0])
    path = tmp_path / "sweep-0.json"
    assert read_outcome(path) == outcomes[0]
    path.write_text(path.read_text().replace(f'"schema": {SCHEMA}', '"schema": 1', 1))
    assert read_outcome(path) is None and read_outcomes(tmp_path) == []


def test_a_search_is_given_the_objectives_of_its_subject(outcomes):
    assert app.objective_values(outcomes[1], PLAN) == (0.9, 0.401, 11_300_000)
    assert app.objective_values(outcomes[1], replace(PLAN, subject="w")) is None
    assert app.objective_values(outcomes[-1], PLAN) is None


def test_a_variant_that_failed_has_no_scores_of_the_task_and_stops_no_conclusion(outcomes, capsys):
    other = replace(PLAN, objectives={"macro_f1": "maximize", "size_bytes": "minimize"})
    assert app.objective_values(outcomes[-1], other) is None
    summary = summarize(other, outcomes[-1:], conclusion.compute_importances(other, outcomes[-1:]))
    assert [row.values for row in summary.rows] == [None] and summary.front == []
    conclusion.print_summary(summary)
    assert "failed" in capsys.readouterr().out
