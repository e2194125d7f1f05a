"""The worked examples of docs/ci.md: they are YAML of the kind that they say, and their commands are understood."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from edgewise.cli import checking
from edgewise.cli.main import tree
from tests.conftest import ROOT

PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
EXAMPLES = dict(zip(("github", "gitlab"), (yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.S)), strict=True))
MORE = re.compile(r"\s*(?:&&|\|\||;)\s*")


def scripts(example: dict[str, Any]) -> Iterator[str]:
    """Each shell line of all jobs."""
    if "jobs" in example:
        for job in example["jobs"].values():
            for step in job["steps"]:
                yield from step.get("run", "").splitlines()
    else:
        for job in example.values():
            if isinstance(job, dict):
                yield from job["script"]


def commands() -> list[list[str]]:
    """The words of each edgewise command in the examples and in the page's indented lines."""
    lines = [line for example in EXAMPLES.values() for line in scripts(example)] + re.findall(r"^ {4}(.*)$", PAGE, re.M)
    parts = [shlex.split(part) for line in lines for part in MORE.split(line) if part.startswith("edgewise ")]
    return [words[1:] for words in parts]


def test_github_runs_jobs_on_a_machine_of_ones_own():
    example = EXAMPLES["github"]
    assert example["name"] and example[True] == ["pull_request"]  # YAML 1.1 reads `on` as true
    (job,) = example["jobs"].values()
    assert "self-hosted" in job["runs-on"] and all("uses" in step or "run" in step for step in job["steps"])
    assert any("[ $? -eq 4 ]" in line for line in scripts(example))


@pytest.mark.parametrize(("name", "base"), [("github", "origin/${{ github.base_ref }}"), ("gitlab", "origin/$CI_DEFAULT_BRANCH")])
def test_a_recipe_brings_what_dvc_keeps_and_compares_with_the_branch_that_it_merges_into(name, base):
    lines = [line.partition(" #")[0].strip() for line in scripts(EXAMPLES[name])]
    runs = [place for place, line in enumerate(lines) if line == "dvc repro"]
    pulls = [place for place, line in enumerate(lines) if line == "dvc pull --allow-missing"]
    assert len(runs) == len(pulls) and all(pull < run for pull, run in zip(pulls, runs, strict=True))
    (report,) = [shlex.split(line) for line in lines if line.startswith("edgewise report")]
    assert report[report.index("--rev") + 1] == base and "--no-worse-than-last" in report


def test_gitlab_lets_a_gate_that_is_not_resolved_warn():
    example = EXAMPLES["gitlab"]
    jobs = {name: job for name, job in example.items() if isinstance(job, dict)}
    assert {job["stage"] for job in jobs.values()} == set(example["stages"])
    assert jobs["gates"]["allow_failure"] == {"exit_codes": [4]} and jobs["gates"]["artifacts"]["reports"]["junit"] == "gates.xml"
    assert "schedule" in jobs["trust"]["rules"][0]["if"]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_the_commands_are_understood(words):
    given = tree().commands[words[0]].parse(words[1:])
    if words[0] == "report":
        checking.refuse_without_check(given)


def test_the_page_has_every_gate_and_every_command_once_more():
    said = {word for words in commands() for word in words if word.startswith("--")}
    assert {
        "--faster-than",
        "--equivalent",
        "--no-slower-than-last",
        "--no-worse-than-last",
        "--rev",
        "--json",
        "--junit",
        "--with",
        "--visits",
    } <= said
