"""What was gained: the reference beside the chosen, the fastest and the smallest variant, each change with its interval."""

import math
from collections.abc import Callable, Mapping

from stages.core.judging import Headline
from stages.core.results import Interval, Summary, VariantSummary
from stages.reporting.table import delta, score, signed
from stages.reporting.verdicts import leaders

NOT_MEASURED = "not measured"
Before = Callable[[VariantSummary], str]
Change = Callable[[VariantSummary, VariantSummary], str]


def markdown(summary: Summary) -> str:
    """A table of changes against the reference, one column for each of the variants that stand out."""
    reference = summary.variants[summary.reference]
    others = standing_out(summary)
    lines = [
        f"| | {summary.reference} (before) | " + " | ".join(f"{name} ({', '.join(roles)})" for name, roles in others.items()) + " |",
        "|---" * (len(others) + 2) + "|",
    ]
    for label, before, change in (*ROWS, *score_rows(summary.headline)):
        cells = [change(summary.variants[name], reference) for name in others]
        lines.append(f"| {label} | {before(reference)} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + f"\n\nchosen: {summary.chosen or 'none'}, {summary.chosen_reason}\n"


def score_rows(headline: Headline | None) -> list[tuple[str, Before, Change]]:
    """The task's score with the paired difference; nothing where the task judges nothing."""
    if headline is None:
        return []
    unit = "points" if headline.share else headline.title
    return [
        (
            headline.title,
            lambda row: score(row, headline) or NOT_MEASURED,
            lambda row, before: f"{score(row, headline)} ({delta(row, headline)} {unit})" if row.score is not None else NOT_MEASURED,
        )
    ]


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
        roles.setdefault(min(ready, key=lambda name: ready[name].size_bytes or math.inf), []).append("smallest")
    return roles


def percent(after: float | None, before: float | None) -> str:
    return NOT_MEASURED if after is None or not before else f"{signed(100 * (after / before - 1), 1)} %"


def interval_percent(interval: Interval) -> str:
    return "" if interval is None else f" [{signed(100 * (interval[0] - 1), 1)}, {signed(100 * (interval[1] - 1), 1)}]"


def size(row: VariantSummary, before: VariantSummary) -> str:
    return f"{megabytes(row.size_bytes)} ({percent(row.size_bytes, before.size_bytes)})"


def latency(row: VariantSummary, before: VariantSummary) -> str:
    """By the interleaved ratio, not by the milliseconds of two runs."""
    change = percent(row.latency_ratio_to_reference, 1.0)
    return f"{milliseconds(row)} ({change}{interval_percent(row.latency_ratio_ci95)})"


def peak(row: VariantSummary, before: VariantSummary) -> str:
    after, start = row.peak_rss_above_baseline_bytes, before.peak_rss_above_baseline_bytes
    return f"{megabytes(after)} ({percent(after, start)})"


def energy(row: VariantSummary, before: VariantSummary) -> str:
    """Net of the idle baseline, of one inference; or why there is no figure."""
    if row.energy is None or before.energy is None:
        return row.energy_status or NOT_MEASURED
    return f"{row.energy['net_mj']:.3g} mJ ({percent(row.energy['net_mj'], before.energy['net_mj'])})"


def megabytes(size_bytes: int | None) -> str:
    return NOT_MEASURED if size_bytes is None else f"{size_bytes / 1e6:.1f} MB"


def milliseconds(row: VariantSummary) -> str:
    return NOT_MEASURED if row.latency_p50_ms is None else f"{row.latency_p50_ms:.3g} ms"


ROWS: tuple[tuple[str, Before, Change], ...] = (
    ("size", lambda row: megabytes(row.size_bytes), size),
    ("latency, p50", milliseconds, latency),
    ("peak memory above the runtime's import", lambda row: megabytes(row.peak_rss_above_baseline_bytes), peak),
    ("energy of one inference", lambda row: f"{row.energy['net_mj']:.3g} mJ" if row.energy else row.energy_status or NOT_MEASURED, energy),
)
