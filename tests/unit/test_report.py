"""The report as a whole, from files to files."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.records import SUMMARY, read_summary
from edgewise.config.schema import Budget, Margins
from edgewise.errors import EdgewiseError
from edgewise.report import gates, overview, table
from edgewise.report.figure import Box, LabelledCircle, place_labels
from stages import report
from tests.support.fabricate import FIVE, THIRTEEN, fabricate, write_report

KEYS_OF_A_ROW = {
    "file": {"size_bytes", "weights_bytes_by_dtype"},
    "proof": {"covered_share", "sqnr_to_source_db"},
    "quality": {"score", "delta", "delta_ci95", "verdict", "scores"},
    "latency": {"p50_ms", "ratio_to_reference", "ratio_ci95", "verdict", "load_ms", "first_inference_ms"},
    "noise": {"grade"},
    "memory": {"peak_rss_bytes", "peak_rss_above_baseline_bytes"},
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(figure: bool = False) -> dict:
    write_report(figure)
    return json.loads(SUMMARY.read_text())


def test_the_summary_has_the_promised_keys_and_values(project):
    fabricate(project)
    summary = run()
    assert {"schema", "reference", "device", "variants", "pareto", "chosen"} <= summary.keys()
    row = summary["variants"]["onnx-int8-static"]
    assert all(row[record].keys() >= keys for record, keys in KEYS_OF_A_ROW.items())
    assert all(other.keys() == row.keys() >= {"format", "scheme", "status"} for other in summary["variants"].values())
    assert summary["primary_metric"]["name"] == "accuracy_top1" and "accuracy_balanced" in row["quality"]["scores"]
    scores = row["quality"]["scores"]
    assert row["quality"]["delta"] == pytest.approx(-2 / 540) and (scores["flips_gained"], scores["flips_lost"]) == (1, 3)
    assert row["latency"]["verdict"] == "faster" and row["file"]["weights_bytes_by_dtype"] == {"int8": 11_360_000, "float32": 40_000}
    assert summary["variants"]["torch-int8-dynamic"]["latency"]["verdict"] == "not resolved"
    assert summary["variants"]["tflite-int4-weight"]["quality"]["verdict"] == "worse"
    assert summary["variants"]["onnx-fp32"]["quality"]["delta_ci95"] == [0, 0]
    failed = summary["variants"]["openvino-int8-static"]
    assert failed["status"] == "failed" and "covers 0 %" in failed["reason"] and failed["quality"]["score"] is None
    assert summary["chosen"] is None and summary["device"]["name"] == "local"


def test_margins_turn_what_lies_within_them_into_equivalence(project):
    settings = replace(fabricate(project, THIRTEEN), margins=Margins(latency=0.1, score=2.0))
    summary = overview.summarize(settings)
    assert summary.margins == settings.margins
    rows, before = summary.variants, overview.summarize(replace(settings, margins=Margins())).variants
    assert rows["onnx-int8-static"].quality.verdict == "equivalent" and before["onnx-int8-static"].quality.verdict == "not resolved"
    assert rows["onnx-fp16"].latency.verdict == "equivalent" and before["onnx-fp16"].latency.verdict != "equivalent"
    text = table.markdown_report(summary)
    assert "accuracy equivalent" in text
    assert "Equivalent: the whole interval lies within the margin (accuracy within 2 points, latency within 10 %)" in text


def test_what_was_written_is_read_back(project):
    fabricate(project, THIRTEEN, budget=Budget("small", size_bytes=12_000_000, accuracy_drop_points=2.5))
    summary = write_report(figure=True)
    assert read_summary().variants == summary.variants and read_summary().budget == summary.budget
    assert summary.chosen == "openvino-int8-static" and summary.runners_up[0] == "tflite-int8-static"
    assert "limit 12 MB" in summary.losers["onnx-fp32"][0]


def test_the_same_results_give_the_same_bytes(project):
    fabricate(project)
    run(figure=True)
    first = artifact.describe_files(project / "models/report"), (project / "metrics/report.md").read_bytes()
    run(figure=True)
    assert (artifact.describe_files(project / "models/report"), (project / "metrics/report.md").read_bytes()) == first
    assert {"accuracy-latency.png", "accuracy-latency.svg", "confusion/onnx-fp32.json"} <= first[0].keys()


def test_a_pipeline_without_bench_reports_all_but_latency(project):
    fabricate(project, bench=False)
    (project / "metrics/device.json").unlink()
    row = run(figure=True)["variants"]["onnx-int8-static"]
    assert row["status"] == "ok" and row["latency"]["p50_ms"] is None and "without bench-on-device" in row["latency"]["missing_reason"]
    assert row["quality"]["delta"] is not None
    assert "latency was not measured" in (project / "models/report/accuracy-latency.svg").read_text()


def test_a_failed_reference_leaves_the_others_their_own_numbers(project):
    fabricate(project, [replace(FIVE[0], fails_in="evaluate"), *FIVE[1:]])
    summary = run(figure=True)
    row = summary["variants"]["onnx-int8-static"]
    assert row["quality"]["score"] is not None and row["quality"]["delta"] is None and row["latency"]["verdict"] == "no claim"
    assert "the reference onnx-fp32 failed" in summary["warnings"][0]


def test_latency_against_another_reference_is_not_taken(project):
    fabricate(project)
    path = project / "metrics/bench/onnx-int8-static.json"
    path.write_text(path.read_text().replace('"reference": "onnx-fp32"', '"reference": "tflite-fp32"'))
    row = run()["variants"]["onnx-int8-static"]
    assert row["latency"]["p50_ms"] is None and "measured against tflite-fp32" in row["latency"]["missing_reason"]


def test_answers_for_other_samples_are_not_paired(project):
    import numpy as np

    fabricate(project)
    path = project / "models/evaluate/onnx-int8-static/targets.npy"
    np.save(path, np.load(path)[::-1])
    with pytest.raises(EdgewiseError, match="different samples"):
        run()


def test_variants_of_former_configurations_are_not_reported(project):
    fabricate(project, THIRTEEN)
    fabricate(project, FIVE)
    assert set(run()["variants"]) == {row.name for row in FIVE}


@pytest.mark.parametrize(
    ("rows", "budget", "code", "said"),
    [
        (FIVE, Budget("none"), 1, "openvino-int8-static failed: int8-static covers 0 %"),
        (FIVE[:4], Budget("none"), 0, "all 4 variants are ok"),
        (FIVE[:4], Budget("small", size_bytes=12_000_000), 0, "chosen: onnx-int8-static"),
        (FIVE[:4], Budget("tiny", size_bytes=1_000_000), 1, "fail          budget tiny: "),
        (FIVE[:4], Budget("strict", size_bytes=12_000_000, accuracy_drop_points=0.5), 4, "not resolved, needs"),
    ],
)
def test_check_is_a_gate_that_says_why(project, capsys, rows, budget, code, said):
    fabricate(project, rows, budget=budget)
    run()
    found = gates.run_gates(read_summary(), gates.Demands())
    gates.print_gates(found)
    assert gates.exit_code(found) == code
    assert said in capsys.readouterr().out


def test_show_prints_the_table_of_the_last_report(project):
    fabricate(project)
    run()
    command = [sys.executable, "-m", "edgewise.cli.main", "report"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(report.__file__).rsplit("/", 2)[0]})
    assert done.returncode == 0, done.stderr
    assert "onnx-int8-static" in done.stdout and "mlflow ui" in done.stdout
    assert "1 of 5 variants failed: openvino-int8-static: " in done.stdout


def test_names_in_the_figure_overlap_nothing():
    points = [LabelledCircle(200 + 9 * (i % 4), 200 + 7 * (i // 4), 12, 90, 11) for i in range(13)]
    boxes = place_labels(points, Box(0, 0, 900, 600))
    overlaps = [a.overlap(b) for i, a in enumerate(boxes) for b in [*boxes[:i], *(p.box for p in points)]]
    assert max(overlaps) == 0
    assert all(box.outside(Box(0, 0, 900, 600)) == 0 for box in boxes)


def test_the_template_of_dvc_plots_names_only_fields_that_the_points_have(project):
    fabricate(project)
    write_report()
    template = (Path(report.__file__).parents[1] / ".dvc/plots/accuracy-latency.json").read_text()
    fields = set(re.findall(r'"field": "([^"<]+)"', template)) - {"rev"}  # rev is DVC's own
    (point, *_) = json.loads((project / "metrics/points.json").read_text())
    assert fields <= point.keys() and {"latency_p50_ms", "accuracy_top1"} <= point.keys()
