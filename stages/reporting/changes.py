"""From one variant to another, figure by figure: the table before and after, and what each step on the way brought."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from stages.core.figures import figure
from stages.core.judging import PrimaryMetric
from stages.core.results import Summary, VariantSummary
from stages.reporting import table

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
