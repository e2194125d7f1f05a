"""From one variant to another: each figure before and after, and what each step on the way changed.

`gains_table` sets the reference beside the chosen, the fastest and the smallest variant.
"""

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgewise.artifacts.flat_metrics import get_metric
from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.plugins import PrimaryMetric
from edgewise.report import table
from edgewise.report.verdicts import fastest_group

DELTA = "_delta"
NOT_MEASURED = "not measured"
AGREEMENT = "SQNR to the reference, dB"


@dataclass(frozen=True)
class Change:
    """One line of the table. change: relative to `before`, with its interval where there is one; negative where less."""

    what: str
    before: str
    after: str
    change: str


def list_changes(before: VariantSummary, after: VariantSummary, metric: PrimaryMetric | None) -> list[Change]:
    """Every figure that both variants have. before: the reference."""
    above = "peak_rss_above_baseline_bytes"
    found = [
        quantity_change("size, MB", before.file.size_bytes, after.file.size_bytes, 1e6),
        latency_change(before, after),
        quantity_change("latency p90, ms", before.latency.p90_ms, after.latency.p90_ms),
        quantity_change("peak memory, MB", get_metric(before, "peak_rss_bytes"), get_metric(after, "peak_rss_bytes"), 1e6),
        quantity_change("peak above the runtime, MB", get_metric(before, above), get_metric(after, above), 1e6),
        quantity_change("load, ms", before.latency.load_ms, after.latency.load_ms),
        quantity_change("first inference, ms", before.latency.first_inference_ms, after.latency.first_inference_ms),
        energy_change(before, after),
    ]
    if metric and after.quality.delta is not None:
        change = f"{table.format_delta(after, metric)}{' points' if metric.share else ''}"
        found.append(Change(metric.label, table.format_score(before, metric), table.format_score(after, metric), change))
    if metric is None and after.quality.sqnr_db is not None:
        found.append(Change(AGREEMENT, table.format_sqnr(before), table.format_sqnr(after), ""))
    return [change for change in found if change] + list(score_changes(before, after))


def quantity_change(what: str, before: float | None, after: float | None, unit: float = 1.0) -> Change | None:
    if not before or after is None:
        return None
    return Change(what, f"{before / unit:.3g}", f"{after / unit:.3g}", format_relative(after / before))


def latency_change(before: VariantSummary, after: VariantSummary) -> Change | None:
    """The change is the paired ratio, which is valid even if the machine drifted between the two medians."""
    if before.latency.p50_ms is None or after.latency.p50_ms is None or after.latency.ratio_to_reference is None:
        return None
    interval = table.format_interval(after.latency.ratio_ci95, lambda bound: table.format_signed(100 * (bound - 1), 1))
    change = f"{table.format_signed(100 * (after.latency.ratio_to_reference - 1), 1)}{interval} %"
    return Change("latency p50, ms", f"{before.latency.p50_ms:.3g}", f"{after.latency.p50_ms:.3g}", change)


def energy_change(before: VariantSummary, after: VariantSummary) -> Change | None:
    """Energy of one inference, net of the idle baseline; where it was requested but not measured, the reason."""
    if before.energy_figures and after.energy_figures:
        return quantity_change("energy, mJ", before.energy_figures.net_mj, after.energy_figures.net_mj)
    return Change("energy, mJ", "", after.energy.status, "") if after.energy else None


def score_changes(before: VariantSummary, after: VariantSummary) -> Iterator[Change]:
    """Other scores of the task, shares, that were compared sample by sample: NAME with NAME_delta and NAME_delta_ci95."""
    for key, delta in after.quality.scores.items():
        name = key.removesuffix(DELTA)
        if not key.endswith(DELTA) or delta is None:
            continue
        interval = table.format_interval(after.quality.scores.get(f"{key}_ci95"), lambda bound: table.format_signed(100 * bound, 2))
        was, now = (f"{row.quality.scores[name]:.2%}" for row in (before, after))
        yield Change(name.replace("_", " "), was, now, f"{table.format_signed(100 * delta, 2)}{interval} points")


def format_relative(ratio: float) -> str:
    return f"{table.format_signed(100 * (ratio - 1), 1)} %"


@dataclass(frozen=True)
class Step:
    """One variant on the way from the reference, with its changes against the step before; empty strings: not measured.

    score: where the task judges nothing, the agreement with the reference."""

    what: str
    name: str
    size: str
    latency: str
    memory: str
    score: str


def find_steps(summary: Summary, name: str) -> list[Step]:
    """The steps from the reference to the variant `name`: another engine, another scheme, fewer operations or other loading and settings.

    The steps between are the variants FORMAT-fp32 and FORMAT-SCHEME. One that does not exist or failed is left out, and its part counts
    to the next step. Empty where no step lies between.
    """
    target, rows = summary.variants[name], summary.variants
    plain = {f"{target.format}-fp32": "engine", f"{target.format}-{target.scheme}": "compression"}
    way = {step: what for step, what in {name: last_step(summary, name), **plain}.items() if step in rows and rows[step].ok}
    ordered = [step for step in (*plain, name) if step in way and step != summary.reference]
    pairs = itertools.pairwise(dict.fromkeys([summary.reference, *ordered]))
    found = [make_step(way[after], after, rows[before], rows[after], summary.primary_metric) for before, after in pairs]
    return found if len(found) > 1 else []


def last_step(summary: Summary, name: str) -> str:
    """What tells the variant `name` from the others of its format and scheme."""
    most = max((row.file.multiply_adds or 0 for row in summary.variants.values() if row.ok), default=0)
    return "fewer operations" if (summary.variants[name].file.multiply_adds or most) < most else "loading and settings"


def make_step(what: str, name: str, before: VariantSummary, after: VariantSummary, metric: PrimaryMetric | None) -> Step:
    def against(name: str) -> str:
        start, end = get_metric(before, name), get_metric(after, name)
        return format_relative(end / start) if start and end is not None else ""

    score = "" if metric else table.format_sqnr(after)
    if metric is not None and before.quality.score is not None and after.quality.score is not None:
        score = table.format_change(after.quality.score - before.quality.score, metric)
    return Step(what, name, against("size_bytes"), against("latency_ratio_to_reference"), against("peak_rss_bytes"), score)


def score_heading(metric: PrimaryMetric | None) -> str:
    """Over the scores of the steps."""
    return metric.title if metric else AGREEMENT


def gains_table(summary: Summary) -> str:
    """Markdown: a table of changes against the reference, a column for each of the variants of `pick_variants`, and the steps to each."""
    reference = summary.variants[summary.reference]
    others = pick_variants(summary)
    found = {name: {c.what: c for c in list_changes(reference, summary.variants[name], summary.primary_metric)} for name in others}
    lines = [markdown_row("", f"{summary.reference} (before)", *(f"{name} ({', '.join(roles)})" for name, roles in others.items()))]
    lines.append("|---" * (len(others) + 2) + "|")
    for what in dict.fromkeys(what for column in found.values() for what in column):
        cells = [column.get(what) for column in found.values()]
        lines.append(markdown_row(what, next(c.before for c in cells if c) or NOT_MEASURED, *map(format_cell, cells)))
    return "\n".join([*lines, "", *describe_steps(summary, others), f"chosen: {summary.chosen or 'none'}, {summary.chosen_reason}", ""])


def pick_variants(summary: Summary) -> Mapping[str, list[str]]:
    """{variant: roles} of the chosen, the fastest (by the upper end of its interval) and the smallest variant."""
    ready = {name: row for name, row in summary.variants.items() if row.ok and name != summary.reference}
    roles: dict[str, list[str]] = {}
    if summary.chosen in ready:
        roles.setdefault(str(summary.chosen), []).append("chosen")
    fastest = fastest_group(ready)
    if fastest:
        roles.setdefault(fastest[0], []).append("fastest" if len(fastest) == 1 else "among the fastest")
    if ready:
        roles.setdefault(min(ready, key=lambda name: ready[name].file.size_bytes or math.inf), []).append("smallest")
    return roles


def describe_steps(summary: Summary, names: Mapping[str, list[str]]) -> list[str]:
    """Markdown tables of the steps to each of these variants."""
    score = score_heading(summary.primary_metric)
    lines = []
    for name in names:
        way = find_steps(summary, name)
        if way:
            lines += [f"Steps to {name}, each compared with the one before:", ""]
            lines += [markdown_row("step", "variant", "size", "latency p50", "peak memory", score), "|---" * 6 + "|"]
            lines += [markdown_row(s.what, s.name, *(each or NOT_MEASURED for each in (s.size, s.latency, s.memory, s.score))) for s in way]
            lines.append("")
    return lines


def markdown_row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def format_cell(change: Change | None) -> str:
    if change is None:
        return NOT_MEASURED
    return f"{change.after} ({change.change})" if change.change else change.after
