"""The budget: which variant fits and is best, which limits each other variant misses, and what cannot be told yet.

A limit is met only if the whole 95 % interval lies within it, and missed only if the whole interval lies beyond it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edgewise.artifacts.flat_metrics import get_metric
from edgewise.artifacts.records import Interval, VariantSummary
from edgewise.config.schema import Budget
from edgewise.plugins import PrimaryMetric
from edgewise.report import verdicts
from edgewise.report.verdicts import Rows
from edgewise.stats import claims

ON_THE_LIMIT = "it lies on the limit"
NOTHING_GAINED = "the reference itself, so nothing is gained"
NO_OTHER = "no other variant is shown to keep every limit"
PREFER = {
    "latency": "latency_ratio_to_reference",
    "size": "size_bytes",
    "memory": "peak_rss_bytes",
}  # what a budget prefers -> figure of edgewise.artifacts.flat_metrics


@dataclass(frozen=True)
class Finding:
    """One limit for one variant. excess: how far the worse end of the interval lies over the limit, as a share of the limit. unsure: the
    limit is neither met nor missed: not measured, or not resolved."""

    met: bool
    text: str
    excess: float = 0.0
    unsure: bool = False


@dataclass(frozen=True)
class Score:
    """The task's primary metric, None where it judges nothing, and the reference's score."""

    metric: PrimaryMetric | None
    base: float | None


@dataclass(frozen=True)
class Choice:
    """The chosen variant, with the reason. losers: which limits each other variant misses. nearest_miss: set where nothing fits, or the
    reference alone."""

    chosen: str | None
    reason: str
    runners_up: tuple[str, ...] = ()
    losers: Mapping[str, tuple[str, ...]] | None = None
    nearest_miss: str | None = None


def choose(rows: Rows, budget: Budget, metric: PrimaryMetric | None, base: float | None) -> Choice:
    """Choose the variant that fits every limit and is best in what the budget prefers. rows: with verdicts. base: the reference's score."""
    if not active_limits(budget):
        limit = "accuracy_drop_points=1" if metric else "sqnr_db=25"
        return Choice(None, f"the budget '{budget.name}' sets no limit; give one, for example: `dvc exp run -S ++budget.{limit}`")
    findings = {name: check_limits(row, budget, metric, base) for name, row in rows.items() if row.ok}
    broken = {name: [f for f in found if not f.met] for name, found in findings.items()}
    fitting = sorted((name for name in broken if not broken[name]), key=lambda name: preference_key(rows[name], budget))
    misses = {name: found for name, found in broken.items() if found}
    losers = {name: tuple(f.text for f in found) for name, found in misses.items()}
    losers |= {name: (f"failed: {row.reason}",) for name, row in rows.items() if not row.ok}
    if not findings:
        return Choice(None, "every variant failed", losers=losers)
    nearest = min(misses, key=lambda name: (len(misses[name]), max(f.excess for f in misses[name])), default=None)
    near = f"{nearest} ({'; '.join(losers[nearest])})" if nearest else ""
    if not fitting:
        return Choice(None, f"nothing fits; nearest: {near}", losers=losers, nearest_miss=nearest)
    standing = f"shown to keep every limit; {describe_standing(fitting, rows, budget)}"
    if verdicts.is_reference(rows[fitting[0]]):
        return Choice(fitting[0], describe_no_gain(standing, len(fitting) == 1, near), tuple(fitting[1:]), losers, nearest)
    return Choice(fitting[0], standing, tuple(fitting[1:]), losers)


def describe_no_gain(standing: str, alone: bool, near: str) -> str:
    """Why the reference is chosen. alone: no other variant fits. near: the nearest of those that do not, with what each limit says."""
    texts = [f"{NOTHING_GAINED}: {NO_OTHER if alone else standing}"]
    return "; ".join([*texts, *([f"{'nearest' if alone else 'nearest of the rest'}: {near}"] if near else [])])


def describe_standing(fitting: list[str], rows: Rows, budget: Budget) -> str:
    """How the first of `fitting` compares with the others in what the budget prefers."""
    if get_metric(rows[fitting[0]], PREFER[budget.prefer]) is None:
        return f"{budget.prefer} was not measured"
    if budget.prefer == "latency" and not verdicts.makes_claims(rows):
        return f"the smallest of {len(fitting)}, since this profile claims nothing about latency (bench.name=quick does)"
    tied = verdicts.fastest_group({name: rows[name] for name in fitting})[1:] if budget.prefer == "latency" else []
    if tied:
        return f"among the fastest of {len(fitting)}, not shown to be faster than {', '.join(tied)}: their intervals overlap"
    return f"the best of {len(fitting)} in {budget.prefer}"


def preference_key(row: VariantSummary, budget: Budget) -> tuple[float, float]:
    """Sort key, less is better: what the budget prefers (latency at the upper end of its interval), then the size."""
    value = verdicts.worst_ratio(row) if budget.prefer == "latency" else get_metric(row, PREFER[budget.prefer])
    return math.inf if value is None else value, row.file.size_bytes or math.inf


def active_limits(budget: Budget) -> dict[str, float]:
    """The limits that the budget sets."""
    return {name: getattr(budget, name) for name in CHECKS if getattr(budget, name) is not None}


def check_limits(row: VariantSummary, budget: Budget, metric: PrimaryMetric | None, base: float | None) -> list[Finding]:
    """A finding for each limit that the budget sets."""
    score = Score(metric, base)
    return [CHECKS[name](row, limit, score) for name, limit in active_limits(budget).items()]


def check_size(row: VariantSummary, limit: float, score: Score) -> Finding:
    return check_bytes("size", row.file.size_bytes, limit)


def check_memory(row: VariantSummary, limit: float, score: Score) -> Finding:
    return check_bytes("peak memory", row.memory.peak_rss_bytes if row.memory else None, limit)


def check_bytes(what: str, value: int | None, limit: float) -> Finding:
    """Bytes are counted, so there is no interval. Shown with enough digits to tell the value from the limit."""
    if value is None:
        return cannot_tell(what, "not measured")
    digits = telling_digits(value / 1e6, limit / 1e6)
    return Finding(value <= limit, f"{what} {value / 1e6:.{digits}f} MB, limit {limit / 1e6:g} MB", value / limit - 1)


def telling_digits(value: float, limit: float) -> int:
    """How many decimal places tell the value from the limit."""
    return next((d for d in (1, 3) if round(value, d) != round(limit, d)), 6)


def check_ratio(row: VariantSummary, limit: float, score: Score) -> Finding:
    """The latency as a share of the reference's, which holds where milliseconds do not: beside other load, and on other days."""
    value, interval = row.latency.ratio_to_reference, row.latency.ratio_ci95
    if value is None or interval is None:
        return check_latency("ratio", row, value, interval, limit)
    text = f"latency ratio {value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}], limit {limit:g}"
    return judge_interval(text, interval, limit, visits_missing(interval, limit), share_over(interval[1], limit))


def check_p50(row: VariantSummary, limit: float, score: Score) -> Finding:
    return check_latency("p50", row, row.latency.p50_ms, row.latency.p50_ci95_ms, limit)


def check_p90(row: VariantSummary, limit: float, score: Score) -> Finding:
    if row.latency.p50_ms is not None and row.latency.p90_ms is None:
        return cannot_tell("latency p90", f"{row.latency.samples} samples are too few for it: use bench.name=quick or standard")
    return check_latency("p90", row, row.latency.p90_ms, row.latency.p90_ci95_ms, limit)


def check_latency(what: str, row: VariantSummary, value: float | None, interval: Interval, limit: float) -> Finding:
    """Check a quantile of the latency, in milliseconds, by its interval."""
    if value is None:
        return cannot_tell("latency", str(row.latency.missing_reason))
    if interval is None:
        profile = f"the profile '{row.conditions.profile}'" if row.conditions else "the profile"
        return cannot_tell("latency", f"{profile} gives no interval: use bench.name=quick or standard", share_over(value, limit))
    return check_interval(f"latency {what}", value, interval, limit, "ms", visits_missing(interval, limit))


def check_interval(what: str, value: float, interval: tuple[float, ...], limit: float, unit: str, evidence: str) -> Finding:
    """evidence: what would decide it where the limit lies inside the interval."""
    text = f"{what} {value:.2f} {unit} [{interval[0]:.2f}, {interval[1]:.2f}], limit {limit:g} {unit}"
    return judge_interval(text, interval, limit, evidence, share_over(interval[1], limit))


def share_over(value: float, limit: float) -> float:
    """How far a value lies over a limit, as a share of the limit; a limit of 0 counts as 1."""
    return (value - limit) / (limit or 1.0)


def judge_interval(text: str, interval: tuple[float, ...], limit: float, evidence: str, excess: float) -> Finding:
    """Met where the whole interval lies within the limit, not resolved where the limit lies inside it."""
    low, high = interval
    unsure = low <= limit < high
    return Finding(high <= limit, f"{text}: {claims.NOT_RESOLVED}, {evidence}" if unsure else text, excess, unsure)


def cannot_tell(what: str, reason: str, excess: float = math.inf) -> Finding:
    """A limit on what was not measured."""
    return Finding(False, f"{what}: cannot tell, {reason}", excess, unsure=True)


def visits_missing(interval: tuple[float, ...], limit: float) -> str:
    """How many visits like this one would show on which side of the limit a latency lies. More runs within a visit would not."""
    times = claims.times_needed((interval[0] - limit, interval[1] - limit))
    return ON_THE_LIMIT if times is None else f"needs about {max(times, 2):,} visits like this one"


def samples_missing(samples: int, value: float, interval: tuple[float, ...], limit: float) -> str:
    """How many more samples are needed: the half-width of an interval shrinks with the square root of their number."""
    low, high = interval
    margin = abs(limit - value) or (high - low) * 1e-2 or 1.0
    return ask_for_samples(samples, (high - low) / 2 / margin)


def check_fit(row: VariantSummary, limit: float, score: Score) -> Finding:
    """By the runs under a memory limit: what fits into less fits; what does not fit into more does not."""
    verdicts_by_mb = {int(mb): entry.verdict for mb, entry in (row.fits_mb or {}).items()}
    below = [mb for mb, verdict in verdicts_by_mb.items() if verdict == "ok" and mb <= limit]
    above = {mb: verdict for mb, verdict in verdicts_by_mb.items() if verdict in ("oom", "failed") and mb >= limit}
    if below:
        return Finding(True, f"runs in {max(below)} MB, limit {limit:g} MB")
    if above:
        return Finding(False, f"does not run in {min(above)} MB ({above[min(above)]}), limit {limit:g} MB", min(above) / limit)
    tried = ", ".join(f"{mb} MB {verdict}" for mb, verdict in verdicts_by_mb.items()) or "no limit was tried"
    return cannot_tell(f"fits in {limit:g} MB", f"{tried}: set bench.fits_mb=[{limit:g}]")


def check_energy(row: VariantSummary, limit: float, score: Score) -> Finding:
    figures = row.energy_figures
    if figures is None:
        reason = row.energy.status if row.energy else "not measured: set bench.energy_s"
        return cannot_tell("energy", reason)
    value, interval = figures.net_mj, figures.net_ci95_mj
    if interval is None:
        reason = "the sensor is too slow for an interval: raise bench.energy_s"
        return cannot_tell(f"energy {value:.3g} mJ, limit {limit:g} mJ", reason, share_over(value, limit))
    return check_interval("energy", value, interval, limit, "mJ", "needs a longer bench.energy_s")


def check_drop(row: VariantSummary, limit: float, score: Score) -> Finding:
    """Loss against the reference, by the paired interval: percentage points of a share, else per cent of the reference's score."""
    metric, base = score.metric, score.base
    if metric is None:
        return cannot_tell("accuracy drop", "this task has no score: set accuracy_drop_points to none, and budget.sqnr_db in its place")
    if row.quality.delta is None or row.quality.delta_ci95 is None:
        return cannot_tell(f"{metric.title} drop", "the reference failed")
    factor = metric.percent(base)
    loss = factor * metric.cost(row.quality.delta)
    low, high = sorted(factor * metric.cost(bound) for bound in row.quality.delta_ci95)
    unit = metric.unit
    text = f"{metric.title} drop {loss + 0.0:.2f} {unit} [{low + 0.0:.2f}, {high + 0.0:.2f}], limit {limit:g} {unit}"
    return judge_interval(text, (low, high), limit, evidence_missing(row, (limit - loss) / factor), (high - limit) / max(limit, 1.0))


def check_agreement(row: VariantSummary, limit: float, score: Score) -> Finding:
    """The SQNR of the outputs against the reference's, as computed on the test samples: there is no interval."""
    value = row.quality.sqnr_db
    if value is None:
        return cannot_tell("SQNR", "the reference failed")
    text = f"SQNR {value:.{1 if value == limit else telling_digits(value, limit)}f} dB, limit {limit:g} dB"
    return Finding(value >= limit, text, (limit - value) / max(limit, 1.0))


def check_lost(row: VariantSummary, limit: float, score: Score) -> Finding:
    """The reference's detections that the variant does not find at the reference's threshold, by the interval of their share."""
    scores, what = row.quality.scores, "lost detections"
    share, interval = scores.get("lost_detections_share"), scores.get("lost_detections_share_ci95")
    if share is None or interval is None:
        reason = "nothing to find at the reference's threshold" if scores.get("detections") == 0 else "the reference failed"
        text = reason if "detections" in scores else "this task detects nothing: set lost_detections_share to none"
        return cannot_tell(what, text)
    value, percent, bound = 100 * share, tuple(100 * end for end in interval), 100 * limit
    return check_interval(what, value, percent, bound, "%", samples_missing(row.quality.samples or 1, value, percent, bound))


def evidence_missing(row: VariantSummary, margin: float) -> str:
    """How many more samples would show, with the usual power, on which side of the limit the drop lies.

    margin: the estimated distance to the limit. What can be resolved shrinks with the square root of the number of samples.
    """
    if margin == 0 or row.quality.samples is None or row.quality.resolvable is None:
        return ON_THE_LIMIT
    return ask_for_samples(row.quality.samples, row.quality.resolvable / abs(margin))


def ask_for_samples(samples: int, narrower: float) -> str:
    """How many more samples make an interval narrower by this factor. More than claims.MOST_TIMES as many are no advice."""
    if narrower > math.sqrt(claims.MOST_TIMES):
        return ON_THE_LIMIT
    return f"needs {max(1, math.ceil(samples * narrower**2) - samples):,} more samples"


CHECKS: Mapping[str, Callable[[VariantSummary, float, Score], Finding]] = {  # limit of the budget -> how a variant is checked against it
    "size_bytes": check_size,
    "latency_ratio": check_ratio,
    "latency_p50_ms": check_p50,
    "latency_p90_ms": check_p90,
    "peak_rss_bytes": check_memory,
    "fits_mb": check_fit,
    "energy_net_mj": check_energy,
    "accuracy_drop_points": check_drop,
    "sqnr_db": check_agreement,
    "lost_detections_share": check_lost,
}
