"""From one variant to another, figure by figure: the table before and after, and what each step on the way brought."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from stages.core.judging import Headline
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


def changes(before: VariantSummary, after: VariantSummary, headline: Headline | None) -> list[Change]:
    """From the reference, `before`, to the variant `after`."""
    found = [
        quantity("size, MB", before.size_bytes, after.size_bytes, 1e6),
        latency(before, after),
        quantity("latency p90, ms", before.latency_p90_ms, after.latency_p90_ms),
        quantity("peak memory, MB", before.peak_rss_bytes, after.peak_rss_bytes, 1e6),
        quantity("peak above the runtime, MB", before.peak_rss_above_baseline_bytes, after.peak_rss_above_baseline_bytes, 1e6),
        quantity("load, ms", before.load_ms, after.load_ms),
        quantity("first inference, ms", before.first_inference_ms, after.first_inference_ms),
        energy(before, after),
    ]
    if headline and after.score_delta is not None:
        change = f"{table.delta(after, headline)}{' points' if headline.share else ''}"
        found.append(Change(headline.label, table.score(before, headline), table.score(after, headline), change))
    return [change for change in found if change] + list(further_scores(before, after))


def quantity(what: str, before: float | None, after: float | None, unit: float = 1.0) -> Change | None:
    if not before or after is None:
        return None
    return Change(what, f"{before / unit:.3g}", f"{after / unit:.3g}", percent(after / before))


def percent(ratio: float) -> str:
    return f"{table.signed(100 * (ratio - 1), 1)} %"


def latency(before: VariantSummary, after: VariantSummary) -> Change | None:
    """The change is the paired ratio, which holds although the machine drifted between the two medians."""
    if before.latency_p50_ms is None or after.latency_p50_ms is None or after.latency_ratio_to_reference is None:
        return None
    interval = table.bracket(after.latency_ratio_ci95, lambda bound: table.signed(100 * (bound - 1), 1))
    change = f"{table.signed(100 * (after.latency_ratio_to_reference - 1), 1)}{interval} %"
    return Change("latency p50, ms", f"{before.latency_p50_ms:.3g}", f"{after.latency_p50_ms:.3g}", change)


def energy(before: VariantSummary, after: VariantSummary) -> Change | None:
    """Of one inference, net of the idle baseline; why there is no figure, where it was asked for."""
    if before.energy and after.energy:
        return quantity("energy, mJ", before.energy["net_mj"], after.energy["net_mj"])
    return Change("energy, mJ", "", after.energy_status, "") if after.energy_status else None


def further_scores(before: VariantSummary, after: VariantSummary) -> Iterator[Change]:
    """Scores of the task beside its headline that were compared sample by sample: NAME, with NAME_delta and its interval. Shares."""
    for key, delta in after.scores.items():
        name = key.removesuffix(DELTA)
        if not key.endswith(DELTA) or delta is None:
            continue
        interval = table.bracket(after.scores.get(f"{key}_ci95"), lambda bound: table.signed(100 * bound, 2))
        was, now = (f"{row.scores[name]:.2%}" for row in (before, after))
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
    found = [_step(way[after], after, rows[before], rows[after], summary.headline) for before, after in pairs]
    return found if len(found) > 1 else []


def _step(what: str, name: str, before: VariantSummary, after: VariantSummary, headline: Headline | None) -> Step:
    def against(field: str) -> str:
        start, end = getattr(before, field), getattr(after, field)
        return percent(end / start) if start and end is not None else ""

    score = ""
    if headline is not None and before.score is not None and after.score is not None:
        score = table.change(after.score - before.score, headline)
    return Step(what, name, against("size_bytes"), against("latency_ratio_to_reference"), against("peak_rss_bytes"), score)
