"""The answer of a run before its table: which variant is fastest, smallest, needs least memory and was chosen, why, and where its file is.

A variant whose score is shown to be worse than the reference's answers nothing; where it would be best, that is said.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.artifacts.records import JudgedLatency, Summary, VariantSummary
from edgewise.report import bounds, table, verdicts
from edgewise.report.explain import name_some
from edgewise.report.verdicts import Rows
from edgewise.stats.claims import IDENTICAL, WORSE

VARIANTS = Path("models/variants")
ROLES = FASTEST, SMALLEST, LEAST_MEMORY, CHOSEN = "fastest", "smallest", "least memory", "chosen"
MODEL_FILE = re.compile(r"model\.(?!.*(bin|data)$)[^/]+")  # weights beside a model are not what a program opens
Cost = Callable[[VariantSummary], float]
Show = Callable[[VariantSummary], str]
Describe = Callable[[VariantSummary, VariantSummary | None], str]


@dataclass(frozen=True)
class Pick:
    """One variant with all that it is best in. roles: role -> why. path: the file that a program opens, or a folder."""

    name: str
    roles: Mapping[str, str]
    path: Path


@dataclass(frozen=True)
class Answer:
    """picks: the best variants. open: role -> why no variant has it."""

    picks: tuple[Pick, ...]
    open: Mapping[str, str]


def find_answer(summary: Summary) -> Answer:
    """Each role goes to one variant; a variant that has several stands once."""
    given: dict[str, dict[str, str]] = {}
    missing: dict[str, str] = {}
    for role, (name, why) in find_roles(summary).items():
        if name is None:
            missing[role] = why
        else:
            given.setdefault(name, {})[role] = why
    return Answer(tuple(Pick(name, roles, find_file(name)) for name, roles in given.items()), missing)


def find_roles(summary: Summary) -> dict[str, tuple[str | None, str]]:
    """{role: (variant, why)}; (None, why not) where there is none."""
    rows = {name: row for name, row in summary.variants.items() if row.ok}
    if not rows:
        return {CHOSEN: (None, "every variant failed")}
    fit = {name: row for name, row in rows.items() if row.quality.verdict != WORSE}
    return {
        FASTEST: find_fastest(fit, rows, summary.reference),
        SMALLEST: find_least(fit, rows, size_mb, describe_size, summary.reference),
        LEAST_MEMORY: find_least(fit, rows, peak_mb, describe_peak, summary.reference),
        CHOSEN: (summary.chosen, summary.chosen_reason),
    }


def find_fastest(fit: Rows, every: Rows, reference: str) -> tuple[str | None, str]:
    """By the upper end of the ratio's interval; those that it is not shown to be faster than are named."""
    if all(row.latency.ratio_to_reference is None for row in fit.values()):
        return None, next(
            (row.latency.missing_reason for row in fit.values() if row.latency.missing_reason), None
        ) or "nothing was measured"
    if not verdicts.makes_claims(fit):
        profile = next((row.conditions.profile for row in fit.values() if row.conditions), "of this run")
        return None, f"profile {profile} is too short to say; measure with `dvc exp run -S bench.name=quick`"
    first, *tied = verdicts.fastest_group(fit)
    latency = fit[first].latency
    why = (
        "nothing is shown to be faster"
        if first == reference
        else f"{format_times_interval(latency)} times as fast as {reference}{verdicts.say_within(latency)}"
    )
    why += f", not told apart from {name_some(tied)}" if tied else ""
    return first, why + name_lost(first, fit, every, verdicts.worst_ratio, "faster")


def find_least(fit: Rows, every: Rows, cost: Cost, describe: Describe, reference: str) -> tuple[str | None, str]:
    """The variant with the least size or memory; of several the fastest."""
    known = {name: row for name, row in fit.items() if cost(row) < math.inf}
    if not known:
        return None, "not measured"
    first = min(known, key=lambda name: (cost(known[name]), verdicts.worst_ratio(known[name])))
    return first, describe(known[first], every.get(reference)) + name_lost(first, fit, every, cost, "less")


def name_lost(first: str, fit: Rows, every: Rows, cost: Cost, is_better: str) -> str:
    """Which variants would be better, were their score not shown to be worse."""
    better = [name for name, row in every.items() if name not in fit and cost(row) < cost(every[first])]
    return f" ({is_better}, but with a score that is shown to be worse: {name_some(better)})" if better else ""


def size_mb(row: VariantSummary) -> float:
    return math.inf if row.file.size_bytes is None else row.file.size_bytes / 1e6


def peak_mb(row: VariantSummary) -> float:
    """Resident memory at its peak, with the runtime: what a device must have."""
    return row.memory.peak_rss_bytes / 1e6 if row.memory else math.inf


def describe_size(row: VariantSummary, reference: VariantSummary | None) -> str:
    return f"{table.format_size(row)} MB{instead(table.format_size, row, reference)}"


def describe_peak(row: VariantSummary, reference: VariantSummary | None) -> str:
    above = f", {table.format_peak(row)} of them above its runtime"
    return f"{format_total(row)} MB at the peak{instead(format_total, row, reference)}{above}"


def format_total(row: VariantSummary) -> str:
    return f"{peak_mb(row):.0f}" if row.memory else ""


def instead(show: Show, row: VariantSummary, reference: VariantSummary | None) -> str:
    before = show(reference) if reference is not None and reference is not row else ""
    return "" if not before else " like the reference" if before == show(row) else f" instead of {before}"


def format_times_interval(latency: JudgedLatency) -> str:
    """The inverse of the ratio with its interval, whose ends are rounded outwards."""
    factor = 1 / (latency.ratio_to_reference or math.nan)
    low, high = latency.ratio_ci95 or (math.nan, math.nan)
    places = times_places(factor)
    return f"{factor:.{places}f} [{bounds.round_down(1 / high, places)}, {bounds.round_up(1 / low, places)}]"


def format_least_times(factor: float) -> str:
    """Rounded down, for "at least"."""
    return bounds.round_down(factor, times_places(factor))


def times_places(factor: float) -> int:
    return 1 if factor >= 1.95 else 2


def find_file(name: str) -> Path:
    """The file of a variant that a program opens; its folder where it is made of several such files, or is not here."""
    folder = VARIANTS / name
    if not (folder / artifact.MANIFEST).is_file():
        return folder
    opened = [file for file in artifact.read(folder).files if MODEL_FILE.fullmatch(file)]
    return folder / opened[0] if len(opened) == 1 else folder


def describe_answer(summary: Summary) -> list[tuple[str, str, str]]:
    """(roles, variant, why) of each line, in the order of ROLES: those of one variant together; without a variant why there is none."""
    found = find_answer(summary)
    lines = [(", ".join(pick.roles), pick.name, describe_pick(pick, summary)) for pick in found.picks]
    lines += [(role, "none" if role == CHOSEN else "", why) for role, why in found.open.items()]
    return sorted(lines, key=lambda line: ROLES.index(line[0].partition(",")[0]))


def describe_pick(pick: Pick, summary: Summary) -> str:
    """Why it is the best, and its score, or where there is none its agreement."""
    row, metric = summary.variants[pick.name], summary.primary_metric
    score = f"{metric.title} {table.format_score(row, metric)}" if metric and row.quality.score is not None else ""
    agreement = describe_agreement(row) if metric is None and row.quality.sqnr_db is not None else ""
    return "; ".join(text for text in (*pick.roles.values(), score, agreement) if text)


def describe_agreement(row: VariantSummary) -> str:
    found = table.format_sqnr(row)
    return f"outputs {found}" if found == IDENTICAL else f"SQNR {found} dB"
