"""What the report makes of visits and of trust: pooled ratios, verdicts no stronger than they may be, one line on disturbances."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.records import Noise, NoiseEvidence, Trust
from edgewise.artifacts.visits import Movement, Visit
from edgewise.config.schema import Budget
from edgewise.report import findings, table, verdicts
from edgewise.report.rows import pool_row
from tests.support.fabricate import FINGERPRINT, fabricate, write_report
from tests.support.records import made, varied

TRUST = Trust(FINGERPRINT, 0.02**2, 14.0, 16, ("fp16", "int8"), "2026-01-01T00:00:00+00:00", "2026-01-01T00:08:00+00:00")
FIGURES = {"latency_ratio_to_reference": 0.5, "latency_ratio_ci95": (0.495, 0.50505), "processes": 6, "device_fingerprint": FINGERPRINT}
ROW = made("onnx", "int8-static", **FIGURES)


def visit(number: int, ratio: float = 0.5, error: float = 0.004) -> Visit:
    return Visit("k", f"2026-01-{number:02}T00:00:00.000+00:00", "int8", "fp32", "blocks", ratio, error, 5, 40.0)


def half(row) -> float:
    """Half of the interval on the scale of logarithms."""
    low, high = row.latency.ratio_ci95
    return math.log(high / low) / 2


def test_a_visit_alone_stays_as_it_was_measured():
    row = pool_row(ROW, [visit(1)], None)
    assert row.latency.ratio_ci95 == (0.495, 0.50505) and row.latency.visits == 1 and not row.latency.between_visits


def test_trust_widens_the_interval_by_what_visits_lie_apart():
    row = pool_row(ROW, [visit(1)], TRUST)
    assert half(row) == pytest.approx(2.12 * math.hypot(0.02, 0.004), rel=0.02)  # Student's t of 16 degrees: 2.12
    assert row.latency.between_visits and row.latency.visit_ratio_ci95 == (0.495, 0.50505)


def test_a_variant_that_was_studied_moves_as_it_does_itself():
    """Others are taken to move as the study's variants do together."""
    trust = replace(TRUST, own={"int8": Movement(0.05**2, 7.0, 8)})
    assert half(pool_row(ROW, [visit(1)], trust, "int8")) == pytest.approx(2.365 * math.hypot(0.05, 0.004), rel=0.01)
    assert half(pool_row(ROW, [visit(1)], trust, "another")) == half(pool_row(ROW, [visit(1)], TRUST))


def test_a_record_from_before_there_were_visits_is_one():
    assert half(pool_row(ROW, [], TRUST)) == pytest.approx(2.13 * math.hypot(0.02, 0.01 / 2.571), rel=0.02)


def test_repeats_narrow_it_and_move_the_ratio():
    one, four = pool_row(ROW, [visit(1)], TRUST), pool_row(ROW, [visit(1), visit(2, 0.52), visit(3), visit(4, 0.52)], TRUST)
    assert half(four) == pytest.approx(half(one) / 2, rel=0.02) and four.latency.visits == 4
    assert four.latency.ratio_to_reference == pytest.approx(math.sqrt(0.5 * 0.52))


def test_repeats_that_disagree_are_wide_even_without_trust():
    agree, apart = pool_row(ROW, [visit(1), visit(2)], None), pool_row(ROW, [visit(1), visit(2, 0.6)], None)
    assert half(agree) < 0.01 and half(apart) > 0.5 and not apart.latency.between_visits


def test_another_device_s_trust_is_not_used():
    row = pool_row(ROW, [visit(1)], replace(TRUST, fingerprint="another"))
    assert row.latency.ratio_ci95 == (0.495, 0.50505) and not row.latency.between_visits


def test_the_reference_against_itself_does_not_move():
    row = pool_row(ROW, [visit(1)], TRUST, itself=True)
    assert row.latency.ratio_ci95 == (0.495, 0.50505) and row.latency.between_visits


def test_a_profile_without_intervals_stays_without():
    short = varied(ROW, latency_ratio_ci95=None)
    assert pool_row(short, [visit(1)], TRUST) is short


@pytest.mark.parametrize(
    ("verdict", "between", "visits", "said"),
    [
        ("faster", True, 1, "faster"),
        ("faster", False, 1, "faster within this visit"),
        ("equivalent", False, 3, "equivalent within these visits"),
        ("not resolved", False, 1, "not resolved"),
        ("reference", False, 1, "reference"),
        (None, False, None, None),
    ],
)
def test_no_verdict_is_stronger_than_the_visits(verdict, between, visits, said):
    latency = replace(ROW.latency, verdict=verdict, between_visits=between, visits=visits)
    assert verdicts.say_latency(latency) == said


def test_the_first_line_says_for_which_visits_the_report_holds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path, budget=Budget("none"))
    write_report()
    first = Path("metrics/report.md").read_text().splitlines()[0]
    assert (
        "within this visit only" in first
        and "edgewise trust" in first
        and "faster within this visit" in Path("metrics/report.md").read_text()
    )
    before = json.loads(Path("metrics/summary.json").read_text())["variants"]["onnx-int8-static"]["latency"]
    artifact.write_json(Path("metrics/trust.json"), {"schema": 2, "trust": vars(TRUST)})
    summary = write_report()
    text = Path("metrics/report.md").read_text()
    assert "at other times too" in text.splitlines()[0] and "2 %" in text.splitlines()[0] and "within this visit" not in text
    after = summary.variants["onnx-int8-static"].latency
    assert after.ratio_ci95 and after.ratio_ci95[1] - after.ratio_ci95[0] > before["ratio_ci95"][1] - before["ratio_ci95"][0]
    assert summary.trust == TRUST and json.loads(Path("metrics/summary.json").read_text())["trust"]["visits"] == 16


def noisy(name: str, share: float, grade: str = "noisy") -> Noise:
    return Noise(grade, "words", NoiseEvidence(**{name: share}), name)


def test_grades_are_one_line_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path)
    summary = write_report()
    shares = dict(zip(summary.variants, (0.35, 0.73, 0.5), strict=False))
    rows = {n: replace(row, noise=noisy("disturbed_share", shares[n]) if n in shares else None) for n, row in summary.variants.items()}
    (line,) = findings.describe_disturbances(replace(summary, variants=rows))
    assert line == (
        "3 of 3 noisy: other processes took the processor in 35 to 73 % of the runs; stop them or measure again with"
        " `dvc repro --single-item --force bench-on-device@onnx-fp32 bench-on-device@onnx-int8-static bench-on-device@torch-int8-dynamic"
        " && dvc repro`"
    )
    Path("Makefile").write_text("x: y\n\nremeasure: setup\n")
    rows["onnx-fp32"] = replace(rows["onnx-fp32"], noise=noisy("throttled_share", 0.5, "degraded"))
    both = findings.describe_disturbances(replace(summary, variants=rows))
    assert (
        len(both) == 2 and both[1].startswith("onnx-fp32 degraded: the firmware throttled 50 %") and "make remeasure V=onnx-fp32" in both[1]
    )
    lines = table.explain_table(replace(summary, variants=rows))
    assert [line for line in lines if "noisy" in line] == [both[0]], "the evidence of each variant stands in the page alone"
    assert findings.format_range([1.0, 0.034]) == "3.4 to 100 %"
    clean = {name: replace(row, noise=Noise("clean") if row.noise else None) for name, row in rows.items()}
    assert findings.describe_disturbances(replace(summary, variants=clean)) == []
