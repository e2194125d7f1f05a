"""The page of the smart camera: which goals its study meets, and that the page is made of the results and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import smart_camera
from benchmarks.smart_camera import CHOSEN, GOALS, Goal, Span, find_variant, goals_table
from edgewise.artifacts.artifact import METRICS_SCHEMA
from edgewise.artifacts.records import Summary, VariantSummary, write_summary
from edgewise.config.schema import Budget
from edgewise.stats.claims import NOT_RESOLVED
from edgewise.tasks.defect_detection import PRIMARY_METRIC
from tests.support.records import made

FACTS = {"cpu": "A processor", "machine": "x86_64", "isa": ["avx2", "avx512_vnni"], "cores_allowed": 2}
SLIM = "onnx-int8-static-slim"
CUT = "- onnx-int8-static-slim: 15.0% of the multiply-adds are left"


def row(format: str, scheme: str, size: int, ratio: float, peak: int, delta: float, **more) -> VariantSummary:
    """delta: of the AUROC and of the top-1, in points, with half a point to both sides."""
    points = {"delta": delta / 100, "delta_ci95": ((delta - 0.5) / 100, (delta + 0.5) / 100)}
    scores = {"accuracy_top1": 0.9, "accuracy_top1_delta": points["delta"], "accuracy_top1_delta_ci95": list(points["delta_ci95"])}
    figures = {
        **{"size_bytes": size, "latency_p50_ms": 50 * ratio, "latency_ratio_to_reference": ratio},
        **{"latency_ratio_ci95": (0.9 * ratio, 1.1 * ratio), "peak_rss_bytes": peak, "samples": 4290, "score": 0.97, "profile": "quick"},
        **{"score_delta": points["delta"], "score_delta_ci95": points["delta_ci95"], **more},
    }
    found = made(format, scheme, **figures)
    return replace(found, quality=replace(found.quality, scores=scores))


@pytest.fixture
def summary() -> Summary:
    rows = {
        "torch-fp32": row("torch", "fp32", 44_800_000, 1.0, 320_000_000, 0.0, multiply_adds=1_800_000_000),
        "onnx-int8-static": row("onnx", "int8-static", 11_300_000, 0.2, 96_000_000, 0.0, multiply_adds=1_800_000_000),
        SLIM: row("onnx", "int8-static", 1_800_000, 0.047, 57_000_000, 0.1, multiply_adds=270_000_000),
    }
    device = {"name": "local", "facts": FACTS, "packages": {}, "fingerprint": "f"}
    return Summary("torch-fp32", device, rows, (), SLIM, "fits", Budget(name="none"), PRIMARY_METRIC)


@pytest.mark.parametrize(
    ("span", "said"),
    [(Span(-96, -97, -95), "met"), (Span(-96, -97, -94.9), NOT_RESOLVED), (Span(-94, -94.5, -93), "missed")],
)
def test_a_goal_is_met_by_the_whole_interval(span, said):
    assert Goal("latency", CHOSEN, -95.0, "%", smart_camera.latency_change).judge(span) == said


def test_the_goals_by_hand(summary):
    """1.8 of 44.8 MB are -96.0 %; a ratio of 0.047 [0.0423, 0.0517] is -95.3 [-95.8, -94.8] %; 57 of 320 MB are -82.2 %."""
    lines = [[cell.strip() for cell in line.split("|")[2:5]] for line in goals_table(summary).splitlines()[2:]]
    minus = "\N{MINUS SIGN}"
    assert lines[0] == [SLIM, f"{minus}96.0 %", "met"]
    assert lines[1] == [SLIM, f"{minus}95.3 [{minus}95.8, {minus}94.8] %", NOT_RESOLVED]
    assert lines[2] == [SLIM, f"{minus}82.2 %", "met"]
    assert lines[3] == lines[4] == [SLIM, f"{minus}0.10 [{minus}0.60, 0.40] points", NOT_RESOLVED]
    assert len(lines) == len(GOALS)


def test_where_nothing_fits_the_nearest_stands_for_the_chosen(summary):
    assert find_variant(replace(summary, chosen=None, nearest_miss="onnx-int8-static"), CHOSEN) == "onnx-int8-static"
    assert "| none | not measured |  |" in goals_table(replace(summary, chosen=None))


def test_the_page_keeps_what_stands_outside_of_the_markers(summary, tmp_path: Path, monkeypatch):
    write_summary(summary, tmp_path / "summary.json")
    (tmp_path / "train.json").write_text(json.dumps({"schema": METRICS_SCHEMA, "epochs": 3}))
    (tmp_path / "report.md").write_text(f"| a |\n\nWhat was cut out of the source:\n\n{CUT}\n\nOther:\n\n- no\n")
    (tmp_path / "params.yaml").write_text("data: {image_size: 160}\n")
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n{smart_camera.BEGIN}\n\nold\n\n{smart_camera.END}\n\n## More\n")
    for _ in range(2):  # a second time it is the same
        monkeypatch.setattr("sys.argv", ["smart_camera", "--results", str(tmp_path), "--out", str(page)])
        smart_camera.main()
        text = page.read_text()
        assert text.startswith("# Page\n\n") and text.endswith(f"{smart_camera.END}\n\n## More\n") and "old" not in text
        assert "A processor (x86_64, avx2 avx512_vnni; without AMX)" in text and "4,290 test pictures" in text
        assert "Pictures of 160x160; the source was trained for 3 epochs" in text
        assert CUT in text and "- no" not in text and "| fewer operations | onnx-int8-static-slim |" in text


def test_the_page_of_the_docs_has_the_markers_once():
    text = smart_camera.PAGE.read_text(encoding="utf-8")
    assert text.count(smart_camera.BEGIN) == text.count(smart_camera.END) == 1
