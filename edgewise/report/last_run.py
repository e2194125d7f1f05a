"""An earlier run, as git has it, and how far the scores of this one are from its own."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts import records
from edgewise.artifacts.records import METRICS, SUMMARY, Summary, VariantSummary
from edgewise.errors import UserError
from edgewise.plugins import PrimaryMetric
from edgewise.stats.independent import Interval, Scored, difference_interval

ORIGINS = {"data": (METRICS / "data.json", "digest"), "weights": (METRICS / "train.json", "weights_sha256")}


@dataclass(frozen=True)
class Origin:
    """What scores are made of; None: not known. data: digest of the data set; weights: sha256 of the source's."""

    data: str | None = None
    weights: str | None = None

    def is_that_of(self, other: "Origin") -> bool:
        return self == other and None not in (self.data, self.weights)


@dataclass(frozen=True)
class Run:
    """A run with what its scores are made of. name: how messages call it, a git revision."""

    name: str
    summary: Summary
    origin: Origin = Origin()


@dataclass(frozen=True)
class Change:
    """A score now less the score then, with its 95 % interval."""

    value: float
    interval: Interval


def read_last(revision: str, option: str, folder: Path = Path()) -> Run:
    """The run that a git revision has, since a run overwrites its own files. option: that asks for it. UserError where there is none."""
    where = f"{revision}:./{SUMMARY}"
    try:
        done = show(revision, SUMMARY, folder)
    except FileNotFoundError:
        raise UserError(f"edgewise report: {option}: git, which has the last run, is not installed") from None
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["git failed"]
        raise UserError(f"edgewise report: {option}: `git show {where}`: {said[0]}; commit metrics/ after a run, or name another --rev")

    def read(path: Path) -> Any:
        found = show(revision, path, folder)
        return {} if found.returncode else parse(found.stdout, f"{revision}:./{path}", option)

    return Run(revision, records.summary_of(parse(done.stdout, where, option), where), find_origin(read))


def read_this(summary: Summary) -> Run:
    """The run whose files stand here."""
    return Run("this run", summary, find_origin(lambda path: records.read_plain(path) if path.exists() else {}))


def show(revision: str, path: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["git", "show", f"{revision}:./{path}"], cwd=folder, capture_output=True, text=True, check=False)


def parse(text: str, where: str, option: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"edgewise report: {option}: {where} is not JSON ({error}); name another --rev") from None


def find_origin(read: Callable[[Path], Any]) -> Origin:
    """read: the content of a file in metrics/, {} where there is none."""
    return Origin(**{name: read(path).get(key) for name, (path, key) in ORIGINS.items()})


def find_obstacle(now: Summary, then: Run) -> str | None:
    """Why the scores of two runs cannot be compared, whatever the variant; None where they can."""
    metric, before = now.primary_metric, then.summary.primary_metric
    if metric is None:
        return "this task has no score; limit the outputs with budget.sqnr_db"
    if before is None or before.name != metric.name:
        return f"{then.name} was judged by {before.label if before else 'no score'}, this run by {metric.label}"
    if metric.relative:
        return f"{metric.label} says how far a variant agrees with the reference of its own run, not whether the reference became worse"
    return None


def is_same_score(variant: str, now: Run, then: Run) -> bool:
    """Whether the variant has the same figures to the last digit, made of the same weights and data."""
    one, other = (run.summary.variants[variant].quality for run in (now, then))
    figures = ("samples", "score", "sqnr_db", "scores")
    return now.origin.is_that_of(then.origin) and all(getattr(one, name) == getattr(other, name) for name in figures)


def score_change(variant: str, metric: PrimaryMetric, now: Run, then: Run) -> Change | None:
    """The change of a variant's score; None where a score or its interval is missing.

    Where the reference is the same in both runs, the variant's paired difference to it now, less that of then, as if independent: on one
    sample both can only lose where the reference is right, and only gain where it is wrong, so that they are next to never correlated
    negatively. Elsewhere, as after training anew, the two scores with intervals of their own, as if each had samples of its own. Where
    these are the same, the interval is wider than it needs to be (see stats.independent.difference_interval).
    """
    same = now.summary.reference == then.summary.reference and is_same_score(now.summary.reference, now, then)
    found = [(scored_beside_reference if same else scored_alone)(run.summary.variants[variant], metric) for run in (now, then)]
    values = [run.summary.variants[variant].quality.score for run in (now, then)]
    if found[0] is None or found[1] is None or values[0] is None or values[1] is None:
        return None
    return Change(values[0] - values[1], difference_interval(found[0], found[1]))


def scored_alone(row: VariantSummary, metric: PrimaryMetric) -> Scored | None:
    interval = row.quality.scores.get(f"{metric.name}_ci95")
    return Scored(row.quality.score, (interval[0], interval[1])) if interval and row.quality.score is not None else None


def scored_beside_reference(row: VariantSummary, metric: PrimaryMetric) -> Scored | None:
    interval = row.quality.delta_ci95
    return Scored(row.quality.delta, (interval[0], interval[1])) if interval and row.quality.delta is not None else None


def describe_samples(variant: str, now: Run, then: Run) -> str:
    """Where the two scores are of other samples: '; on another data set, 280 test samples, then 300'."""
    counts = [run.summary.variants[variant].quality.samples for run in (now, then)]
    told = ["on another data set"] if None not in (now.origin.data, then.origin.data) and now.origin.data != then.origin.data else []
    told += [f"{counts[0]:,} test samples, then {counts[1]:,}"] if None not in counts and counts[0] != counts[1] else []
    return f"; {', '.join(told)}" if told else ""
