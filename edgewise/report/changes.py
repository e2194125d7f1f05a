"""From one variant to another, figure by figure: the table before and after, and what each step on the way brought."""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgewise.artifacts.figures import figure
from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.plugins import PrimaryMetric
from edgewise.report import table
from edgewise.report.verdicts import leaders

DELTA = "_delta"


@dataclass(frozen=True)
class Change:
    """One line of the table before and after; `change` is a share of `before`, negative where less."""

    what: str
    before: str
    after: str
    change: str


def changes(before: VariantSummary, after: VariantSummary, metric: PrimaryMetric | None) -> list[Change]:
    """From the reference, `before`, to the variant `after`."""
    above = "peak_rss_above_baseline_bytes"
    found = [
        quantity("size, MB", before.file.size_bytes, after.file.size_bytes, 1e6),
        latency(before, after),
        quantity("latency p90, ms", before.latency.p90_ms, after.latency.p90_ms),
        quantity("peak memory, MB", figure(before, "peak_rss_bytes"), figure(after, "peak_rss_bytes"), 1e6),
        quantity("peak above the runtime, MB", figure(before, above), figure(after, above), 1e6),
        quantity("load, ms", before.latency.load_ms, after.latency.load_ms),
        quantity("first inference, ms", before.latency.first_inference_ms, after.latency.first_inference_ms),
        energy(before, after),
    ]
    if metric and after.quality.delta is not None:
        change = f"{table.delta(after, metric)}{' points' if metric.share else ''}"
        found.append(Change(metric.label, table.score(before, metric), table.score(after, metric), change))
    return [change for change in found if change] + list(further_scores(before, after))


def quantity(what: str, before: float | None, after: float | None, unit: float = 1.0) -> Change | None:
    if not before or after is None:
        return None
    return Change(what, f"{before / unit:.3g}", f"{after / unit:.3g}", percent(after / before))


def percent(ratio: float) -> str:
    return f"{table.signed(100 * (ratio - 1), 1)} %"


def latency(before: VariantSummary, after: VariantSummary) -> Change | None:
    """The change is the paired ratio, which holds although the machine drifted between the two medians."""
    if before.latency.p50_ms is None or after.latency.p50_ms is None or after.latency.ratio_to_reference is None:
        return None
    interval = table.bracket(after.latency.ratio_ci95, lambda bound: table.signed(100 * (bound - 1), 1))
    change = f"{table.signed(100 * (after.latency.ratio_to_reference - 1), 1)}{interval} %"
    return Change("latency p50, ms", f"{before.latency.p50_ms:.3g}", f"{after.latency.p50_ms:.3g}", change)


def energy(before: VariantSummary, after: VariantSummary) -> Change | None:
    """Of one inference, net of the idle baseline; why there is no figure, where it was asked for."""
    if before.energy_figures and after.energy_figures:
        return quantity("energy, mJ", before.energy_figures.net_mj, after.energy_figures.net_mj)
    return Change("energy, mJ", "", after.energy.status, "") if after.energy else None


def further_scores(before: VariantSummary, after: VariantSummary) -> Iterator[Change]:
    """Scores of the task beside its primary metric that were compared sample by sample: NAME, with NAME_delta and its interval. Shares."""
    for key, delta in after.quality.scores.items():
        name = key.removesuffix(DELTA)
        if not key.endswith(DELTA) or delta is None:
            continue
        interval = table.bracket(after.quality.scores.get(f"{key}_ci95"), lambda bound: table.signed(100 * bound, 2))
        was, now = (f"{row.quality.scores[name]:.2%}" for row in (before, after))
        yield Change(name.replace("_", " "), was, now, f"{table.signed(100 * delta, 2)}{interval} points")


@dataclass(frozen=True)
class Step:
    """One variant on the way from the reference, with what it changed against the step before. "": not measured."""

    what: str
    name: str
    size: str
    latency: str
    memory: str
    score: str


def steps(summary: Summary, name: str) -> list[Step]:
    """The way from the reference to the variant `name`: another engine, then another scheme, then how it is loaded and run.

    The variants between are those with the plain names, FORMAT-fp32 and FORMAT-SCHEME; what is not among the variants, or failed, is no
    step of its own, and its part is in the next one. Empty where there is no step between.
    """
    target, rows = summary.variants[name], summary.variants
    plain = {f"{target.format}-fp32": "engine", f"{target.format}-{target.scheme}": "compression"}
    way = {step: what for step, what in {name: "loading and settings", **plain}.items() if step in rows and rows[step].ok}
    ordered = [step for step in (*plain, name) if step in way and step != summary.reference]
    pairs = itertools.pairwise(dict.fromkeys([summary.reference, *ordered]))
    found = [_step(way[after], after, rows[before], rows[after], summary.primary_metric) for before, after in pairs]
    return found if len(found) > 1 else []


def _step(what: str, name: str, before: VariantSummary, after: VariantSummary, metric: PrimaryMetric | None) -> Step:
    def against(name: str) -> str:
        start, end = figure(before, name), figure(after, name)
        return percent(end / start) if start and end is not None else ""

    score = ""
    if metric is not None and before.quality.score is not None and after.quality.score is not None:
        score = table.change(after.quality.score - before.quality.score, metric)
    return Step(what, name, against("size_bytes"), against("latency_ratio_to_reference"), against("peak_rss_bytes"), score)


# What was gained: the reference beside the chosen, the fastest and the smallest variant, each change with its interval.

NOT_MEASURED = "not measured"


def markdown(summary: Summary) -> str:
    """A table of changes against the reference, one column for each of the variants that stand out, and the way to each of them."""
    reference = summary.variants[summary.reference]
    others = standing_out(summary)
    found = {name: {c.what: c for c in changes(reference, summary.variants[name], summary.primary_metric)} for name in others}
    lines = [row("", f"{summary.reference} (before)", *(f"{name} ({', '.join(roles)})" for name, roles in others.items()))]
    lines.append("|---" * (len(others) + 2) + "|")
    for what in dict.fromkeys(what for column in found.values() for what in column):
        cells = [column.get(what) for column in found.values()]
        lines.append(row(what, next(c.before for c in cells if c) or NOT_MEASURED, *map(cell, cells)))
    return "\n".join([*lines, "", *ways(summary, others), f"chosen: {summary.chosen or 'none'}, {summary.chosen_reason}", ""])


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def cell(change: Change | None) -> str:
    if change is None:
        return NOT_MEASURED
    return f"{change.after} ({change.change})" if change.change else change.after


def ways(summary: Summary, names: Mapping[str, list[str]]) -> list[str]:
    """Which step moved what, for each of these variants: every step against the one before."""
    score = summary.primary_metric.title if summary.primary_metric else "score"
    lines = []
    for name in names:
        way = steps(summary, name)
        if way:
            lines += [f"The way to {name}, each step against the one before:", ""]
            lines += [row("step", "variant", "size", "latency p50", "peak memory", score), "|---" * 6 + "|"]
            lines += [row(s.what, s.name, *(each or NOT_MEASURED for each in (s.size, s.latency, s.memory, s.score))) for s in way]
            lines.append("")
    return lines


def standing_out(summary: Summary) -> Mapping[str, list[str]]:
    """The chosen, the fastest (by the least favourable end of its interval) and the smallest variant, with what each is."""
    ready = {name: row for name, row in summary.variants.items() if row.ok and name != summary.reference}
    roles: dict[str, list[str]] = {}
    if summary.chosen in ready:
        roles.setdefault(str(summary.chosen), []).append("chosen")
    fastest = leaders(ready)
    if fastest:
        roles.setdefault(fastest[0], []).append("fastest" if len(fastest) == 1 else "among the fastest")
    if ready:
        roles.setdefault(min(ready, key=lambda name: ready[name].file.size_bytes or math.inf), []).append("smallest")
    return roles
