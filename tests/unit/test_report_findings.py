"""What the report tells of energy, memory limits, minutes of load, operators and the A/A difference, and what it says without them."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgewise.artifacts.records import SCHEMA, LimitedRun, Sustained
from edgewise.report import findings, page, table
from tests.support.fabricate import fabricate, write_report
from tests.support.records import merged
from tests.unit.test_report_page import PAGE, Structure

FIGURES = {
    **{"source": "rapl_package_uj", "scope": "package", "rate_hz": 19.8},
    **{"idle_w": 2.1, "mean_w": 7.4, "gross_mj": 8.25, "net_mj": 5.9},
}
ENERGY = {"energy": {"status": "measured", "figures": FIGURES}}
LIMITS = {
    "fits_mb": {
        "64": {"verdict": "oom", "evidence": "cgroup v1: exit -9; the kernel counts oom_kill 1 in cgroup v1"},
        "128": {"verdict": "ok", "evidence": "cgroup v1: ran to its end", "p50_ms": 4.321, "major_faults": 7},
        "256": {"verdict": "not tested", "evidence": "none"},
    }
}


def sustained(start: float, end: float, throttled: int | None = None, degrees: float | None = 71.0) -> dict:
    known = {"minutes": 4, "start_p50_ms": start, "end_p50_ms": end, "drift": end / start - 1, "throttled_from_minute": throttled}
    known |= {"ratio_start": start / 3.2, "ratio_end": end / 3.2, "temperature_max_degc": degrees}
    return {"sustained": known}


def profile(share: float, status: str = "measured") -> dict:
    def entry(name: str, part: float, calls: int) -> dict:
        known = {"type": name, "dtype": "float32", "converts": False, "fallback": False, "calls": calls, "share": part}
        return {**known, "ms": 5 * part, "ms_quartiles": [4.9 * part, 5.1 * part]}

    types = [entry("Conv", share, 20), entry("Relu", 1 - share, 17)]
    reason = None if status == "measured" else "this runtime has no clock"
    return {"schema": SCHEMA, "status": status, "reason": reason, "runs": 20, "types": types, "operators": []}


def add(name: str, found: dict | None = None, minutes: list | None = None, **more) -> None:
    """Let a fabricated variant have been measured in more ways."""
    path = Path(f"metrics/bench/{name}.json")
    path.write_text(json.dumps(merged(json.loads(path.read_text()), more)))
    for file, content in (("profile", found), ("minutes", minutes and {"schema": SCHEMA, "variant": [minutes]})):
        if content:
            Path(f"models/bench/{name}/{file}.json").write_text(json.dumps(content))


def series(*medians: float, degrees: float | None = 60.0) -> list[dict]:
    return [
        {"minute": i, "median_ms": m, "temperature_degc": degrees, "frequency_mhz": None, "throttled": False} for i, m in enumerate(medians)
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path)
    return tmp_path


@pytest.fixture
def full(project):
    """Everything measured somewhere, with every kind of answer."""
    reason = "rapl_package_uj: only root may read it"
    add(
        "onnx-fp32",
        profile(0.9),
        series(3.2, 3.3, 3.4, 3.5),
        **ENERGY,
        **LIMITS,
        **sustained(3.2, 3.5),
        latency={"smallest_claim_share": 0.0121},
        conditions={"cpus": [0, 1]},
    )
    add(
        "onnx-int8-static",
        profile(0.7),
        series(1.0, 1.0, 4.0, 4.1),
        **ENERGY,
        **sustained(1.0, 4.1, 2),
        conditions={"governor": "performance"},
    )
    add(
        "torch-int8-dynamic",
        profile(0.5, "unsupported"),
        series(3.3, 3.3, degrees=None),
        energy={"status": reason},
        **sustained(3.3, 3.3, None, None),
    )
    return project


def test_the_lines_of_the_report_tell_every_figure(full):
    write_report()
    text = Path("metrics/report.md").read_text()
    for said in (
        "onnx-fp32 against itself on this device gives [0.988, 1.012]: no difference below 1.2 % is claimed",
        "Energy: onnx-int8-static, onnx-fp32: 5.9 mJ net, 8.25 mJ gross an inference, 7.4 W on average, 2.1 W idle "
        "(rapl_package_uj, which covers the package, at 19.8 Hz)",
        "Energy: torch-int8-dynamic: rapl_package_uj: only root may read it",
        "64 MB oom (cgroup v1: exit -9; the kernel counts oom_kill 1 in cgroup v1); 128 MB ok, 4.32 ms, 7 major faults; 256 MB not tested",
        "onnx-int8-static: 1 ms in the first of 4 minutes, 4.1 ms in the last (+310.0 %), at most 71 °C, throttled from minute 3 on",
        "torch-int8-dynamic: 3.3 ms in the first of 4 minutes, 3.3 ms in the last (+0.0 %), no temperature sensor, no throttling seen",
        "in the first minute of load: onnx-int8-static, onnx-fp32, torch-int8-dynamic; "
        "in the last: torch-int8-dynamic, onnx-fp32, onnx-int8-static",
        "Time by operator: onnx-int8-static: Conv 70 %, Relu 30 %",
        "Time by operator: torch-int8-dynamic: this runtime has no clock",
    ):
        assert said in text, said
    assert "Not measured" not in text


def test_memory_of_its_own_is_told_from_what_is_mapped(full):
    told = next(line for line in table.explain_table(write_report()) if line.startswith("Memory while running"))
    assert "onnx-int8-static 23 + 53" in told  # 0.6 and 45 + 0.2 of the 39 MB that it was fabricated with
    assert "onnx-int8-static <em>23 + 53</em>" in (full / PAGE).read_text()


def test_the_page_shows_them_too_and_stays_whole(full):
    write_report()
    text = (full / PAGE).read_text()
    assert Structure(text).open == []
    for title in ("Energy", "Memory limits", "Under load for minutes", "Where the time goes"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("<polyline") == 2 + 2 + 1, "medians and temperatures, as far as each was read; no frequency"
    assert text.count('<line x1="') == 2, "where throttling set in, in both charts of the one variant"
    assert "oom_kill 1" in text and "only root may read it" in text and "this runtime has no clock" in text
    assert "cores 0, 1" in text and "governor performance" in text


def test_what_was_not_measured_is_one_line(project):
    write_report()
    text, page = Path("metrics/report.md").read_text(), (project / PAGE).read_text()
    said = "Not measured: energy (bench.energy_s), memory limits (bench.fits_mb), minutes of load (bench.name=sustained), time by operator"
    assert said in text and said in page
    assert not re.search("<h2>(Energy|Memory limits|Under load|Where the time)", page)
    assert "onnx-fp32 was not measured against itself with an interval: no claim about latency is made" in text


def test_without_latency_there_is_nothing_to_tell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path, bench=False)
    summary = write_report()
    assert findings.finding_lines(summary) == [] and "Not measured" not in (tmp_path / PAGE).read_text()


def test_the_summary_keeps_them_and_comes_out_the_same_again(full):
    first = write_report()
    files = {path: path.read_bytes() for path in [Path(PAGE), *Path("metrics").glob("*.*")]}
    assert write_report() == first and all(path.read_bytes() == content for path, content in files.items())
    row = first.variants["onnx-int8-static"]
    assert row.energy_figures.net_mj == 5.9 and row.sustained.drift == pytest.approx(3.1) and row.operators.top[0]["type"] == "Conv"
    assert first.variants["onnx-fp32"].fits_mb["128"] == LimitedRun("ok", "cgroup v1: ran to its end", 4.321, 7)


def test_the_tiles_name_the_fastest_only_where_it_can_be_told(project):
    summary = write_report()
    (fastest,) = [card for card in page.make_cards(summary) if card[0].startswith("fastest")]
    assert fastest == ("fastest", "onnx-int8-static", "at least 3.1 times as fast as onnx-fp32 within this visit")  # 1 / (0.31 * 1.012)
    record = json.loads(Path("metrics/bench/onnx-int8-static.json").read_text())
    stray = merged(record, {"variant": "tflite-int4-weight", "latency": {"ratio_to_reference": 0.06, "ratio_ci95": [0.05, 0.8]}})
    Path("metrics/bench/tflite-int4-weight.json").write_text(json.dumps(stray))
    summary = write_report()
    names = [name for name, _ in table.sort_variants(summary)]
    assert names.index("onnx-int8-static") < names.index("tflite-int4-weight"), "the point of a wide interval does not win"
    title, who, figure = next(iter(page.make_cards(summary)))
    assert (title, who) == ("fastest: cannot tell", "onnx-int8-static or tflite-int4-weight")
    assert figure == "their intervals overlap; onnx-int8-static is at least 3.1 times as fast as onnx-fp32 within this visit"


def test_a_measurement_of_another_device_than_the_one_described_is_warned_of(project):
    assert not write_report().warnings
    path = Path("metrics/device.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "fingerprint": "a-new-board"}))
    (warning,) = write_report().warnings
    assert warning.startswith("onnx-fp32, onnx-int8-static, torch-int8-dynamic, tflite-int4-weight: measured on another device")
    assert warning in Path("metrics/report.md").read_text()


def test_notes_on_the_data_are_in_the_table_and_on_the_page(project):
    note, path = "random inputs: for a first look at speed and size only", Path("models/data/manifest.json")
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "details": {**manifest["details"], "notes": [note]}}))
    assert write_report().warnings == (note,)
    assert note in Path("metrics/report.md").read_text() and note in Path(PAGE).read_text()


def test_a_chart_spans_its_values_and_marks_the_minute():
    (drawn,) = findings.make_charts(series(2.0, 3.0, 4.0, degrees=None), Sustained(3, 2.0, 4.0, 1.0, 0.6, 1.2, throttled_from_minute=1))
    points = [tuple(map(float, pair.split(","))) for pair in drawn.points.split()]
    assert points == [(3.0, 43.0), (110.0, 23.0), (217.0, 3.0)] and drawn.mark == 110.0
    (flat,) = findings.make_charts(series(2.0, 2.002, degrees=None), None)
    assert all(abs(float(pair.split(",")[1]) - 23.0) < 0.5 for pair in flat.points.split()), "0.1 % is no cliff"
    assert flat.mark is None and findings.make_charts([], None) == []


@pytest.mark.system
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed: apt-get install chromium")
def test_the_sections_are_laid_out_in_a_real_browser(full):
    """Nothing wider than the page, every bar and line visible."""
    write_report()
    measure = """<script>document.title = JSON.stringify({
      wide: [...document.querySelectorAll("section, figure")].filter((e) => e.scrollWidth > e.clientWidth + 1).length,
      bars: [...document.querySelectorAll(".shares i")].map((e) => Math.round(e.getBoundingClientRect().width)),
      lines: [...document.querySelectorAll("polyline")].filter((e) => e.getBoundingClientRect().width > 100).length })</script></body>"""
    page = full / PAGE
    page.write_text(page.read_text().replace("</body>", measure))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--proxy-server=127.0.0.1:9", "--dump-dom", f"file://{page}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = json.loads(re.search(r"<title>(.*?)</title>", done.stdout)[1])
    assert found["wide"] == 0 and found["lines"] == 5
    assert len(found["bars"]) == 4 and found["bars"][0] > 2 * found["bars"][1] > 0
