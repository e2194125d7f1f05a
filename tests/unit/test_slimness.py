"""What the report says of pruned variants."""

import dataclasses
from pathlib import Path

import pytest

from edgewise.artifacts import artifact
from edgewise.report.slimness import describe
from tests.support.fabricate import FIVE, fabricate, write_report

CUT = {
    "settings": {"criterion": "taylor"},
    "multiply_adds": 14_000_000,
    "multiply_adds_before": 35_000_000,
    "parameters": 4_400_000,
    "parameters_before": 11_000_000,
    "layers": {"stem": {"before": [64, 1], "after": [40, 1]}, "head": {"before": [10, 512], "after": [10, 200]}},
    "steps": [{"epochs": 3}, {"epochs": 4}],
}


def change(name: str, **details) -> None:
    folder = Path("models/variants") / name
    manifest = artifact.read(folder)
    artifact.write(folder, dataclasses.replace(manifest, details={**manifest.details, **details}))


@pytest.fixture
def names(tmp_path, monkeypatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    fabricate(tmp_path, FIVE)
    return [made.name for made in FIVE if artifact.read(Path("models/variants") / made.name).ok]


def test_pruned_variants_are_listed_with_what_is_left_and_drawn_layer_by_layer(names):
    for name in names:
        change(name, multiply_adds=35_000_000)
    for name in names[-2:]:
        change(name, multiply_adds=14_000_000, pruned=CUT)
    write_report()
    report = Path("metrics/report.md").read_text(encoding="utf-8")
    head = next(line for line in report.splitlines() if line.startswith("| variant"))
    cells = {name: next(line for line in report.splitlines() if line.startswith(f"| {name} ")) for name in names}
    column = [title.strip() for title in head.split("|")].index("M mult-adds")
    assert [cells[name].split("|")[column].strip() for name in (names[0], names[-1])] == ["35", "14"]
    sentence = (
        f"- {names[-2]}, {names[-1]}: 40.0% of the multiply-adds (14 of 35 M) and 40.0% of the parameters are left; criterion taylor,"
        " 2 steps, 7 epochs"
    )
    assert sentence in report
    page = Path("models/report/report.html").read_text(encoding="utf-8")
    assert "What was cut out of the source" in page and "<th>stem</th><td>64</td><td>40</td>" in page and "<th>head</th>" not in page


def test_nothing_is_said_where_all_variants_do_the_same_arithmetic(names):
    for name in names:
        change(name, multiply_adds=35_000_000)
    write_report()
    assert "mult-adds" not in Path("metrics/report.md").read_text(encoding="utf-8")
    assert "What was cut" not in Path("models/report/report.html").read_text(encoding="utf-8")


def test_one_step_is_said_as_one():
    assert "criterion taylor, one step, 3 epochs" in describe({**CUT, "steps": [{"epochs": 3}]})
