"""What the figures support (see stats.claims), what would resolve the rest, and which variants are on the Pareto front."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgewise.artifacts.records import Interval, JudgedLatency, Quality, VariantSummary
from edgewise.config.schema import Margins
from edgewise.plugins import PrimaryMetric
from edgewise.report import bounds
from edgewise.stats import claims
from edgewise.stats.claims import BETTER, EQUIVALENT, FASTER, NOT_RESOLVED, SLOWER

Rows = Mapping[str, VariantSummary]
LOST_IN_KERNELS_DB = 6.0  # a factor of two in noise amplitude: more than rounding and the order of sums explain
MOST_DB = 100.0  # of an SQNR that is drawn or ranked; higher values are differences of float32 rounding
MANY_LOST = 0.05  # of the reference's detections
LITTLE_COVERED = 0.9  # a smaller share of the weights is less than a scheme's name promises
REFERENCE = "reference"
NOISE = " while this was measured"  # in the warnings of find_warnings
NO_MARGINS = Margins()
# what two measurements must share to be compared; where one of the last two differs, the A/A interval is that of another machine
CONDITIONS = ("profile", "interleave", "scope", "threads", "governor", "device_fingerprint", "emulated")
ANOTHER_DEVICE = ("device_fingerprint", "emulated")


def add_verdicts(rows: Rows, reference: str, metric: PrimaryMetric | None, margins: Margins = NO_MARGINS) -> dict[str, VariantSummary]:
    """The rows with their verdicts and warnings. metric: None where the task judges nothing."""
    base = rows[reference]
    beside = next((name for name in (reference, *rows) if rows[name].conditions), reference)
    judged = {}
    for name, row in rows.items():
        is_reference = name == reference
        verdict = REFERENCE if is_reference else latency_verdict(row, aa_interval(row, base), margins.latency)
        judged[name] = replace(
            row,
            quality=quality_with_verdict(row, metric, score_margin(metric, margins), is_reference),
            latency=replace(row.latency, verdict=verdict),
            warnings=tuple(find_warnings(row, rows[beside], "the reference" if beside == reference else beside)),
        )
    return judged


def score_margin(metric: PrimaryMetric | None, margins: Margins) -> float | None:
    """task.margin in the unit of the score: percentage points become a share."""
    return margins.score / 100 if metric and metric.share and margins.score is not None else margins.score


def quality_with_verdict(row: VariantSummary, metric: PrimaryMetric | None, margin: float | None, is_reference: bool) -> Quality:
    """The quality with its verdict; the difference of the reference to itself is exactly 0. No verdict where the task judges nothing."""
    if metric is None:
        return row.quality
    if not is_reference:
        return replace(row.quality, verdict=score_verdict(row, metric, margin))
    return replace(row.quality, verdict=REFERENCE, delta_ci95=(0.0, 0.0) if row.quality.delta is not None else row.quality.delta_ci95)


def score_verdict(row: VariantSummary, metric: PrimaryMetric, margin: float | None = None) -> str | None:
    """claims.score_claim of the paired interval; None where there is none, since the variant or the reference failed."""
    if row.quality.delta_ci95 is None:
        return None
    return claims.score_claim(row.quality.delta_ci95, margin, metric.higher_is_better)


def what_resolves_score(row: VariantSummary, metric: PrimaryMetric, base: float | None, margin: float | None = None) -> str:
    """How many test samples would resolve a difference in the score: the fewer of those that would show it, and those that would show
    equivalence. base: the reference's score."""
    quality, factor = row.quality, metric.percent(base)
    if quality.samples is None or quality.resolvable is None or quality.delta is None:
        return "the number of samples is not known"
    needed = [] if quality.samples_needed is None else [quality.samples_needed]
    if margin is not None and abs(quality.delta) < margin:
        needed.append(math.ceil(quality.samples * (quality.resolvable / (margin - abs(quality.delta))) ** 2))
    if needed:
        return f"needs {max(min(needed), quality.samples + 1):,} samples"
    least = factor * quality.resolvable
    shown = bounds.round_up(least, bounds.count_places(least))
    return f"no difference seen; {quality.samples:,} samples can show one of {shown} {metric.unit} or more"


def what_resolves_latency(row: VariantSummary, aa_ratio_ci95: Interval, margin: float | None = None) -> str:
    """How many visits like this one would resolve a difference in latency. Runs within a visit share its minute: more of them do not."""
    noise = claims.device_noise(aa_ratio_ci95)
    if row.latency.ratio_ci95 is None or noise is None:
        return "measured without an interval"
    found = claims.subtract(claims.logs(row.latency.ratio_ci95), claims.logs(noise))
    times = claims.times_needed(found, None if margin is None else math.log1p(margin))
    return "no difference seen" if times is None else f"about {max(times, 2):,} visits like this one"


def aa_interval(row: VariantSummary, base: VariantSummary) -> Interval:
    """The interval of the reference measured against itself on the device of `row`; None where that was another device."""
    return None if differing_conditions(row, base, ANOTHER_DEVICE) else base.latency.ratio_ci95


def differing_conditions(one: VariantSummary, other: VariantSummary, keys: tuple[str, ...] = CONDITIONS) -> list[str]:
    """The conditions in which two measurements differ. A condition that is unknown for one of them does not count."""
    if one.conditions is None or other.conditions is None:
        return []
    pairs = {key: (getattr(one.conditions, key), getattr(other.conditions, key)) for key in keys}
    return [key for key, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


def latency_verdict(row: VariantSummary, aa_ratio_ci95: Interval, margin: float | None = None) -> str | None:
    """claims.ratio_claim of the ratio, beyond the device's A/A difference; None without a measurement.

    aa_ratio_ci95: the interval of the reference measured against itself, which bounds this device's noise.
    """
    if row.latency.ratio_to_reference is None:
        return None
    return claims.ratio_claim(row.latency.ratio_ci95, margin, claims.device_noise(aa_ratio_ci95))


def is_about_noise(warning: str) -> bool:
    """Whether the report says it in the lines of findings.describe_disturbances instead."""
    return NOISE in warning


def say_latency(latency: JudgedLatency) -> str | None:
    """The verdict, no stronger than what was measured: of a visit alone, where it is not known how far visits lie apart."""
    return f"{latency.verdict}{say_within(latency)}" if latency.verdict in (FASTER, SLOWER, EQUIVALENT) else latency.verdict


def say_within(latency: JudgedLatency) -> str:
    """What stands behind a figure that is not known to hold for other visits."""
    return "" if latency.between_visits else " within this visit" if (latency.visits or 1) == 1 else " within these visits"


def find_warnings(row: VariantSummary, beside: VariantSummary, name: str = "the reference") -> list[str]:
    """What a reader must know before trusting the row. beside: the row that it is compared with; name: how messages call it."""
    found = []
    if row.proof.covered_share is not None and row.proof.covered_share < LITTLE_COVERED:
        found.append(f"{row.scheme} covers {100 * row.proof.covered_share:.2g} % of the weights; the rest is unchanged")
    found += warn_of_lost_detections(row.quality.scores)
    if row.file.runtime_release:
        found.append(str(row.file.form))
    run, written = row.proof.sqnr_to_source_db, row.proof.sqnr_as_written_db
    if run is not None and written is not None and run < written - LOST_IN_KERNELS_DB:
        found.append(
            f"the integer kernels of the machine it was made on reach SQNR {run:.0f} dB of the file's {written:.0f} (on x86 without VNNI"
            " int8 dot products overflow their 16-bit accumulators): set reduce_range: true where the"
            " scheme has it, or score it on the device"
        )
    if row.noise and row.noise.grade != "clean":
        found.append(f"{row.noise.grade}{NOISE}{f': {row.noise.reason}' if row.noise.reason else ''}")
    pairs = {key: (getattr(row.conditions, key), getattr(beside.conditions, key)) for key in differing_conditions(row, beside)}
    return found + [f"measured with {key} {mine}, {name} with {its}: {comparison_advice(key)}" for key, (mine, its) in pairs.items()]


def warn_of_lost_detections(scores: Mapping[str, Any]) -> list[str]:
    """A warning where clearly more than a few of the reference's detections are lost, which the mean average precision may not show."""
    interval = scores.get("lost_detections_share_ci95")
    if not interval or interval[0] <= MANY_LOST:
        return []
    share, own, shift = (scores[name] for name in ("lost_detections_share", "lost_at_own_threshold_share", "score_shift_median"))
    moved = "" if shift is None else f"; scores moved by {shift:+.2f} (median)"
    return [
        f"{100 * share:.2g} % of the reference's {scores['detections']:,} detections are lost at its threshold, {100 * own:.2g} % at this"
        f" variant's own ({scores['threshold']:.2f}){moved}"
    ]


def warn_of_other_devices(rows: Rows, fingerprint: str | None) -> list[str]:
    """A warning where a measurement was made on another device than metrics/device.json describes."""
    names = [name for name, row in rows.items() if fingerprint and row.conditions and row.conditions.device_fingerprint != fingerprint]
    if not names:
        return []
    return [f"{', '.join(names)}: measured on another device than metrics/device.json describes (or before it changed): run `dvc repro`"]


def comparison_advice(key: str) -> str:
    return "this is another machine, compare none of its figures" if key in ANOTHER_DEVICE else "compare the ratio only"


def worst_ratio(row: VariantSummary) -> float:
    """The upper end of the ratio's interval, by which variants are ranked: ranked by point estimates, the luckiest would win.

    Infinite without an interval: a profile that is too short for one claims nothing, and ranks nothing.
    """
    return row.latency.ratio_ci95[1] if row.latency.ratio_ci95 else math.inf


def fastest_group(rows: Rows) -> list[str]:
    """The fastest of `rows` and those that it is not shown to be faster than, the best ranked first."""
    ranked = sorted((name for name in rows if worst_ratio(rows[name]) < math.inf), key=lambda name: worst_ratio(rows[name]))
    return [name for name in ranked if not is_faster(rows[ranked[0]], rows[name])]


def is_faster(row: VariantSummary, other: VariantSummary) -> bool:
    """Whether `row` is shown to be faster than `other`: both have intervals, and these do not overlap."""
    return compare_latencies(row, other) == FASTER


def makes_claims(rows: Rows) -> bool:
    """Whether the measurement was long enough for an interval of some variant; True too where nothing was measured."""
    measured = [row for row in rows.values() if row.latency.ratio_to_reference is not None]
    return not measured or any(row.latency.ratio_ci95 for row in measured)


def pareto_front(rows: Rows, metric: PrimaryMetric | None, margins: Margins = NO_MARGINS) -> tuple[str, ...]:
    """The ok variants that no other beats in score, latency and size, in the order of the rows. Where the task judges nothing, the
    agreement with the reference stands for the score; where no latency has an interval, score and size alone decide."""
    known = {name: row for name, row in rows.items() if row.ok and score_or_agreement(row, metric) is not None}
    return tuple(name for name, row in known.items() if not any(beats(other, row, metric, margins) for other in known.values()))


def beats(one: VariantSummary, other: VariantSummary, metric: PrimaryMetric | None, margins: Margins = NO_MARGINS) -> bool:
    """Whether `one` is shown to be better than `other` in score, latency or size, and in the rest is at least as good: by what was
    measured, or within the margins. A latency that is known is better than one that is not."""
    score, latency = compare_scores(one, other, metric, margins), compare_latencies(one, other, margins)
    costs = [cost_vector(row, score_or_agreement(row, metric) or 0.0, metric) for row in (one, other)]
    as_good = [mine <= its or said == EQUIVALENT for mine, its, said in zip(*costs, (score, latency, None), strict=True)]
    alone_known = costs[0][1] < costs[1][1] == math.inf
    return all(as_good) and (score == BETTER or latency == FASTER or alone_known or costs[0][2] < costs[1][2])


def compare_scores(one: VariantSummary, other: VariantSummary, metric: PrimaryMetric | None, margins: Margins) -> str:
    """The claim about two variants from what each has beside the reference. An agreement is computed and not estimated."""
    if metric is None:
        mine, its = (score_or_agreement(row, None) or 0.0 for row in (one, other))
        return BETTER if mine > its else NOT_RESOLVED
    return claims.score_claim(
        one.quality.delta_ci95, score_margin(metric, margins), metric.higher_is_better, beside=other.quality.delta_ci95
    )


def is_reference(row: VariantSummary) -> bool:
    """Whether a row with verdicts is the one that the others are compared with."""
    return row.latency.verdict == REFERENCE


def compare_latencies(one: VariantSummary, other: VariantSummary, margins: Margins = NO_MARGINS) -> str:
    """The claim about two variants from the ratio of each to the reference, which itself has what the device differs by."""
    mine, its = (claims.device_noise(row.latency.ratio_ci95) if is_reference(row) else row.latency.ratio_ci95 for row in (one, other))
    return claims.ratio_claim(mine, margins.latency, beside=its)


def score_or_agreement(row: VariantSummary, metric: PrimaryMetric | None) -> float | None:
    """The score; where the task judges nothing, the SQNR of the outputs against the reference's, at most MOST_DB. None: not known."""
    if metric:
        return row.quality.score
    return None if row.quality.sqnr_db is None else min(row.quality.sqnr_db, MOST_DB)


def cost_vector(row: VariantSummary, value: float, metric: PrimaryMetric | None) -> tuple[float, float, float]:
    """(cost of the score or agreement, latency ratio, bytes); less is better in each. value: of `score_or_agreement`.

    The ratio is infinite without an interval.
    """
    ratio = row.latency.ratio_to_reference if row.latency.ratio_ci95 else None
    return metric.cost(value) if metric else -value, math.inf if ratio is None else ratio, float(row.file.size_bytes or math.inf)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether `one` is at least as good everywhere and better somewhere; less is better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
