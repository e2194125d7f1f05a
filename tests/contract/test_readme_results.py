"""The README's table: what the committed metrics say, whatever a run has left in metrics/ since."""

import re
import subprocess
from dataclasses import replace

import pytest

from benchmarks import readme
from edgewise.artifacts import records
from edgewise.config.schema import Budget
from edgewise.report import choice
from tests.conftest import ROOT
from tests.support import fabricate

FACTS = {"cores_allowed": 4, "cpu": "Cortex-A76", "machine": "aarch64", "isa": ["asimd", "asimddp"]}


def test_the_readme_shows_the_committed_metrics():
    if not (ROOT / ".git").exists():
        pytest.skip("these sources are no git checkout, so nothing says which metrics are committed")
    summary = readme.committed()
    assert summary, "metrics/summary.json is not committed: commit dvc.lock and metrics/ of a default run, then python -m benchmarks.readme"
    _, inside, _ = readme.between(readme.README.read_text(encoding="utf-8"))
    assert inside == readme.results(summary), "run: python -m benchmarks.readme"
    assert readme.PAGE.read_text(encoding="utf-8") == readme.full_page(summary), "run: python -m benchmarks.readme"


def test_the_budget_of_the_readme_chooses_a_variant():
    """Or there is no bundle, and the next line of the README fails."""
    limits = re.findall(r"-S \+\+budget\.(\w+)=(\S+)", readme.README.read_text(encoding="utf-8"))
    summary = readme.committed()
    if summary is None:
        pytest.skip("these sources are no git checkout, so nothing says which metrics are committed")
    budget = Budget("none", **{name: float(value) for name, value in limits})
    base = summary.variants[summary.reference].quality.score
    assert limits and choice.choose(summary.variants, budget, summary.primary_metric, base).chosen


def test_the_readme_has_a_place_for_them():
    before, inside, after = readme.between(readme.README.read_text(encoding="utf-8"))
    assert inside.startswith("| take this when") and "| take this when" not in before + after


def test_the_table_is_that_of_the_last_commit(tmp_path, monkeypatch):
    fabricate.fabricate(tmp_path)
    monkeypatch.chdir(tmp_path)
    summary = replace(fabricate.write_report(), device={"name": "local", "facts": FACTS})
    records.write_summary(summary)
    git("init", "-q")
    assert readme.committed(root=tmp_path) is None, "no commit yet"
    git("add", "metrics/summary.json")
    git("-c", "user.name=T", "-c", "user.email=t@example.invalid", "commit", "-q", "-m", "Measure")
    records.write_summary(replace(summary, pareto=(), chosen=None))
    found = readme.committed(root=tmp_path)
    assert found == records.summary_of(records.to_plain(summary), "made") != records.read_summary()
    lines = readme.results(found).splitlines()
    assert lines[0].startswith("| take this when") and all(line.startswith("| ") for line in lines[:-2])
    assert "speed matters most" in lines[2] and "`onnx-int8-static`" in lines[2] and "3.23 [" in lines[2]
    assert not any("openvino-int8-static" in line for line in lines), "a variant that failed is nothing to take"
    assert "4 cores of Cortex-A76 (aarch64, asimddp), batch 1, one thread, profile quick" in lines[-1]
    page = readme.full_page(found)
    assert all(row.name in page for row in fabricate.FIVE)


def git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], check=True)


@pytest.mark.parametrize("text", ["", readme.BEGIN, f"{readme.BEGIN}{readme.END}{readme.BEGIN}"])
def test_a_readme_without_the_markers_is_not_written(text):
    with pytest.raises(ValueError, match="once each"):
        readme.between(text)
