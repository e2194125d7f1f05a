"""The end of a run in a terminal: the answer, a table that loses nothing silently, at most five remarks, what to commit."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.artifacts.records import JudgedLatency, Summary, read_summary
from edgewise.config.schema import Budget
from edgewise.report import answer, overview, table, terminal
from tests.support.fabricate import FIVE, THIRTEEN, fabricate, write_report

NAMES = [row.name for row in THIRTEEN]


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shown(project, monkeypatch, capsys):
    """What a terminal of that width shows."""

    def run(summary: Summary, width: int, verbose: bool = False) -> str:
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("COLUMNS", str(width))
        capsys.readouterr()
        terminal.print_report(summary, verbose)
        return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)

    return run


def summarize(rows=THIRTEEN, **settings) -> Summary:
    return overview.summarize(fabricate(Path(), rows, **settings))


def without_intervals(summary: Summary) -> Summary:
    """As a profile that is too short for intervals leaves it."""
    rows = {n: replace(row, latency=replace(row.latency, ratio_ci95=None, verdict="no claim")) for n, row in summary.variants.items()}
    return replace(summary, variants=rows, aa_ratio_ci95=None)


def test_the_answer_names_the_best_variants_with_their_files(project, shown):
    found = answer.find_answer(summarize())
    roles = {role: (pick.name, why, str(pick.path)) for pick in found.picks for role, why in pick.roles.items()}
    name, why, path = roles[answer.FASTEST]
    assert name == "openvino-int8-static" and why == "5.0 [4.9, 5.1] times as fast as onnx-fp32 within this visit"
    assert path == "models/variants/openvino-int8-static/model.openvino" and (project / path).is_file()
    name, why, _ = roles[answer.LEAST_MEMORY]
    assert name == "tflite-int8-static" and "instead of" in why and "26 of them above its runtime" in why
    assert "sets no limit" in found.open[answer.CHOSEN]


def test_the_interval_of_how_many_times_as_fast_is_rounded_outwards():
    latency = JudgedLatency(ratio_to_reference=0.805, ratio_ci95=(0.8001, 0.8099))  # 1.2422 [1.2347, 1.2498]
    assert answer.format_times_interval(latency) == "1.24 [1.23, 1.25]"
    assert answer.format_times_interval(replace(latency, ratio_to_reference=0.31, ratio_ci95=(0.306, 0.314))) == "3.2 [3.1, 3.3]"


def test_a_score_that_keeps_the_limit_is_not_asked_for_more_samples(project):
    (line,) = [text for text in table.describe_unresolved(summarize(FIVE)) if "samples)" in text]
    assert line.startswith("Accuracy shown neither better nor worse than onnx-fp32's: ") and "onnx-int8-static (needs" in line
    for points, asked in ((1.0, True), (3.0, False)):  # the interval is [-1.46, +0.54]
        said = table.describe_unresolved(summarize(FIVE, budget=Budget("none", accuracy_drop_points=points)))
        assert any("onnx-int8-static (needs" in text for text in said) is asked


def test_a_variant_with_a_worse_score_is_no_answer_and_is_named(project):
    worst = replace(THIRTEEN[-1], lost=90, ratio=0.1, mb=2.0)
    found = answer.find_answer(summarize([*THIRTEEN[:-1], worst]))
    roles = {role: (pick.name, why) for pick in found.picks for role, why in pick.roles.items()}
    assert roles[answer.FASTEST][0] == "tflite-int8-static" and roles[answer.SMALLEST][0] == "tflite-int8-dynamic"
    assert f"(faster, but with a score that is shown to be worse: {worst.name})" in roles[answer.FASTEST][1]
    assert f"(less, but with a score that is shown to be worse: tflite-int4-weight, {worst.name})" in roles[answer.SMALLEST][1]


def test_one_variant_that_is_best_in_several_things_stands_once(project):
    found = answer.find_answer(summarize(FIVE[:2], budget=Budget("small", size_bytes=12_000_000)))
    assert [(pick.name, list(pick.roles)) for pick in found.picks] == [
        ("onnx-int8-static", [answer.FASTEST, answer.SMALLEST, answer.LEAST_MEMORY, answer.CHOSEN])
    ]


def test_variants_that_cannot_be_told_apart_are_named(project):
    found = answer.find_answer(summarize([*FIVE[:2], replace(FIVE[1], name="tflite-int8-static", ratio=0.3101)]))
    assert "not told apart from " in next(pick.roles[answer.FASTEST] for pick in found.picks if answer.FASTEST in pick.roles)


def test_a_short_profile_names_none_fastest(project, shown):
    said = shown(without_intervals(summarize()), 100)
    assert "Fastest: profile quick is too short to say; measure with `dvc exp run -S bench.name=quick`" in said
    joined = " ".join(said.split())
    assert "if quick came from EDGEWISE_PROFILE, a plain `dvc repro` is enough" in joined and "In the order of names" in joined
    assert re.findall("^(Fastest|Smallest|Chosen)", said, re.MULTILINE) == ["Fastest", "Smallest", "Chosen"]


def test_every_variant_failed(project, shown):
    said = shown(summarize([replace(row, fails_in="evaluate") for row in FIVE]), 80)
    assert said.startswith("Chosen: none, every variant failed") and "5 of 5 variants failed" in said


def test_nothing_was_measured(project, shown):
    said = shown(summarize(bench=False), 80)
    assert "Fastest: not measured: the pipeline ran without bench-on-device" in said and "Least memory: not measured" in said
    assert "p50 ms" not in said, "a column without a value is not shown"


def test_the_file_is_the_one_that_a_program_opens(project):
    from edgewise.artifacts import artifact

    for name, files in {"a": ["model.xml", "model.bin"], "b": ["model.onnx", "model.onnx.data"], "c": ["part0/model.onnx"]}.items():
        for file in files:
            (project / "models/variants" / name / file).parent.mkdir(parents=True, exist_ok=True)
            (project / "models/variants" / name / file).write_bytes(b"x")
        artifact.write(project / "models/variants" / name, artifact.Manifest("variant"))
    found = [str(answer.find_file(name)) for name in ("a", "b", "c", "gone")]
    assert found == [f"models/variants/{rest}" for rest in ("a/model.xml", "b/model.onnx", "c", "gone")]


@pytest.mark.parametrize("width", [80, 100, 120, 200])
def test_the_table_cuts_nothing_and_leaves_nothing_out(shown, width):
    said = shown(summarize(budget=Budget("small", size_bytes=12_000_000)), width)
    assert max(map(len, said.splitlines())) <= width and "Left out" not in said and "\N{HORIZONTAL ELLIPSIS}" not in said
    body = said[said.index("variant ") : said.index("Fastest first")]
    assert all(name in body for name in NAMES) and "[−1.46, +0.54]" in body and "[0.306, 0.314]" in body
    assert "within this visit" not in body and said.split(" only")[0].endswith("hold within this visit"), "said once, for all"
    values = ("chosen", "reference", "faster", "slower", "degraded", "0.310", "11.4", "71")
    assert all(value in body for value in values), [value for value in values if value not in body]


@pytest.mark.parametrize(("width", "left_out"), [(70, "grade, peak +MB"), (52, "grade, peak +MB, p50 ms, accuracy, MB")])
def test_what_a_narrower_terminal_leaves_out_is_said(shown, width, left_out):
    said = shown(summarize(), width)
    assert f"Left out at {width} columns: {left_out}" in " ".join(said.split()) and max(map(len, said.splitlines())) <= max(width, 54)
    assert all(name in said for name in NAMES) and "metrics/report.md" in said


def test_a_column_that_only_some_runs_have_is_left_out_first(shown, monkeypatch):
    usual = table.table_columns
    monkeypatch.setattr(table, "table_columns", lambda summary: {**usual(summary), "multiply-adds": lambda row: "1,814,073,344"})
    said = shown(summarize(), 80)
    assert "Left out at 80 columns: multiply-adds;" in said and max(map(len, said.splitlines())) <= 80


def test_there_are_at_most_five_remarks_and_the_first_are_failures(project, shown):
    summary = replace(summarize([*FIVE, *THIRTEEN[4:10]]), warnings=tuple(f"note {number}" for number in range(9)))
    found = terminal.pick_remarks(summary)
    assert len(found) == terminal.MOST_REMARKS and found[0].startswith(
        "1 of 10 variants failed: openvino-int8-static: int8-static covers 0 %"
    )
    assert found[1] == "note 0" and found[-1].endswith(" remarks: edgewise report --verbose")
    short, long = shown(summary, 120), shown(summary, 120, verbose=True)
    assert "note 8" in long and "note 8" not in short


def test_what_a_detector_loses_comes_before_what_is_noted_about_the_data(project):
    summary, lost = summarize(), {"lost_detections_share": 0.1, "lost_detections_share_ci95": (0.05, 0.2), "score_shift_median": None}
    rows = {n: replace(r, quality=replace(r.quality, scores={"detections": 615, **lost})) for n, r in summary.variants.items()}
    first, second, *_ = terminal.find_remarks(replace(summary, variants=rows, warnings=("test has no sample of: cow",)))
    assert first.startswith("Of the 615 detections of onnx-fp32 above its threshold are lost: ") and "cow" in second


def test_a_long_remark_ends_with_a_clause_and_says_where_the_rest_is(shown):
    clause = "the reason of a failure that a runtime gives, in about eighty characters of text; "
    said = shown(replace(summarize(), warnings=(clause * 9 + "next step: do this",)), 80)
    assert " ..." not in said and "next step" not in said
    remark, told, _ = " ".join(said[said.index("the reason") :].split()).partition(terminal.REST_OF_REMARK)
    assert told and remark == "; ".join([clause.strip("; ")] * 3)


def test_a_long_clause_is_printed_as_it_is():
    text = "outputs differ from the source " * 20
    assert terminal.shorten_remark(text) == text


def test_disturbed_measurements_are_one_remark(project):
    (found,) = [text for text in terminal.find_remarks(summarize()) if "measure again" in text]
    assert found.startswith("2 of 13 noisy or degraded (tflite-int4-weight, openvino-int8-static): ") and "measure again with" in found


def test_a_clone_in_which_nothing_ran_says_whose_figures_it_shows(project):
    fabricate(project)
    write_report()
    shutil.rmtree("models/report")
    assert "were measured on " in terminal.next_steps(read_summary())


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "sqlite:///$PWD/mlflow.db"),
        ("http://tracking:5000", "  $MLFLOW_TRACKING_URI  "),
        ("postgresql://db/m", 'uri "$MLFLOW_TRACKING_URI"'),
    ],
)
def test_where_to_look_follows_the_store_of_the_runs(project, monkeypatch, uri, said):
    fabricate(project)
    write_report()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = terminal.next_steps(read_summary())
    assert said in found and found.count("all runs") == 1 and max(map(len, found.splitlines())) <= 80


@pytest.mark.parametrize(
    ("uri", "said"),
    [("http://tracking:5000", "  http://tracking:5000   "), ("sqlite:////my db", "  mlflow ui --backend-store-uri 'sqlite:////my db' ")],
)
def test_where_to_look_follows_the_store_of_params_yaml(project, monkeypatch, uri, said):
    fabricate(project)
    write_report()
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    path = project / "models/config.yaml"
    path.write_text(path.read_text().replace("tracking_uri: null", f"tracking_uri: {uri}"))
    found = terminal.next_steps(read_summary())
    assert said in found and found.count("all runs") == 1


def test_a_command_is_not_broken_over_lines():
    said = terminal.wrap("measured too briefly to say which of them is faster; use `dvc exp run -S bench.name=quick`", 80)
    assert said.splitlines()[1] == "  `dvc exp run -S bench.name=quick`"
    assert max(map(len, terminal.wrap(f"`{'word ' * 40}`", 80).splitlines())) <= 80


def test_the_first_run_says_what_to_commit(project):
    fabricate(project)
    (project / "conf/device").mkdir(parents=True)
    (project / "conf/device/pi.yaml").write_text("module: edgewise.devices.ssh\n")
    write_report()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "Start"], check=True)
    said = terminal.next_steps(read_summary())
    assert max(map(len, said.splitlines())) <= 80
    command = re.search("git add [^&]+", said).group()
    (project / "params.yaml").write_text("seed: 0\n")
    subprocess.run(command.split(), check=True)
    subprocess.run([*git, "commit", "-q", "-m", "First run"], check=True)
    assert "git add" not in terminal.next_steps(read_summary())
    (project / "metrics/summary.json").write_text((project / "metrics/summary.json").read_text() + "\n")
    assert terminal.next_steps(read_summary()).splitlines()[-1] == terminal.KEEP_AGAIN, "another run, not committed yet"


@pytest.mark.parametrize(("committed", "lines"), [(False, 3), (True, 1)])
def test_a_run_with_another_profile_than_params_yaml_is_not_for_a_commit(project, monkeypatch, committed, lines):
    fabricate(project)  # with the profile quick
    write_report()
    monkeypatch.setattr(terminal, "is_committed", lambda name: committed)
    plain = terminal.next_steps(read_summary())
    monkeypatch.setenv("EDGEWISE_PROFILE", "quick")
    (project / "params.yaml").write_text("bench: {name: smoke}\n")
    told = terminal.next_steps(read_summary())
    said = told.removeprefix(plain.removesuffix(terminal.KEEP)).strip()
    assert "git add" not in told and len(said.splitlines()) == lines and max(map(len, told.splitlines())) <= 80
    assert all(words in said for words in ("profile quick", "params.yaml says smoke", "`dvc repro`"))
    assert committed or "colleagues would measure again" in said and "`bench: {name: quick}`" in said
    (project / "params.yaml").write_text("bench: {name: quick, runs: 20}\n")
    assert terminal.next_steps(read_summary()) == plain


@pytest.mark.parametrize(
    ("value", "text"),
    [(1, "1.00"), (0.4721, "0.472"), (2.4, "2.40"), (11.83, "11.8"), (0.9999, "1.00"), (1130.4, "1130"), (0, "0"), (99.96, "100")],
)
def test_three_digits_are_three(value, text):
    assert table.format_digits(value) == text


@pytest.mark.parametrize(
    ("size", "text"), [(44_712_345, "44.7"), (1_000_000, "1.0"), (234_567, "0.23"), (4_012, "0.0040"), (996_000, "1.0")]
)
def test_less_than_a_megabyte_has_two_digits(size, text):
    assert table.format_mb(size) == text
