"""What the figures support: better, worse or no claim, and which variants are on the Pareto front."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgewise.artifacts.records import Interval, Quality, VariantSummary
from edgewise.plugins import PrimaryMetric

Rows = Mapping[str, VariantSummary]
LOST_IN_KERNELS_DB = 6.0  # a factor of two in noise amplitude: more than rounding and the order of sums explain
MOST_DB = 100.0  # of an SQNR that is drawn or ranked; higher values are differences of float32 rounding
MANY_LOST = 0.05  # of the reference's detections
LITTLE_COVERED = 0.9  # a smaller share of the weights is less than a scheme's name promises
FASTER, SLOWER, UNCLAIMED, REFERENCE = "faster", "slower", "no difference claimed", "reference"
# what two measurements must share to be compared; where one of the last two differs, the A/A interval is that of another machine
CONDITIONS = ("profile", "interleave", "scope", "threads", "governor", "device_fingerprint", "emulated")
ANOTHER_DEVICE = ("device_fingerprint", "emulated")


def add_verdicts(rows: Rows, reference: str, metric: PrimaryMetric | None) -> dict[str, VariantSummary]:
    """The rows with their verdicts and warnings. metric: None where the task judges nothing."""
    base = rows[reference]
    beside = next((name for name in (reference, *rows) if rows[name].conditions), reference)
    judged = {}
    for name, row in rows.items():
        is_reference = name == reference
        judged[name] = replace(
            row,
            quality=quality_with_verdict(row, metric, base, is_reference),
            latency=replace(row.latency, verdict=REFERENCE if is_reference else latency_verdict(row, aa_interval(row, base))),
            warnings=tuple(find_warnings(row, rows[beside], "the reference" if beside == reference else beside)),
        )
    return judged


def quality_with_verdict(row: VariantSummary, metric: PrimaryMetric | None, base: VariantSummary, is_reference: bool) -> Quality:
    """The quality with its verdict; the difference of the reference to itself is exactly 0. No verdict where the task judges nothing."""
    if metric is None:
        return row.quality
    if not is_reference:
        return replace(row.quality, verdict=score_verdict(row, metric, base.quality.score))
    return replace(row.quality, verdict=REFERENCE, delta_ci95=(0.0, 0.0) if row.quality.delta is not None else row.quality.delta_ci95)


def score_verdict(row: VariantSummary, metric: PrimaryMetric, base: float | None) -> str | None:
    """`lower` or `higher` only where the paired interval excludes 0; else how many samples resolve it. base: the reference's score."""
    if row.quality.delta_ci95 is None or row.quality.samples is None or row.quality.resolvable is None:
        return None
    low, high = row.quality.delta_ci95
    if high < 0 or low > 0:
        return "lower" if high < 0 else "higher"
    if row.quality.samples_needed is None:
        shown = f"{metric.percent(base) * row.quality.resolvable:.2g} {metric.unit}"
        return f"unresolved: no difference seen, {row.quality.samples:,} samples resolve {shown} or more"
    return f"unresolved, needs {row.quality.samples_needed:,} samples"


def aa_interval(row: VariantSummary, base: VariantSummary) -> Interval:
    """The interval of the reference measured against itself on the device of `row`; None where that was another device."""
    return None if differing_conditions(row, base, ANOTHER_DEVICE) else base.latency.ratio_ci95


def differing_conditions(one: VariantSummary, other: VariantSummary, keys: tuple[str, ...] = CONDITIONS) -> list[str]:
    """The conditions in which two measurements differ. A condition that is unknown for one of them does not count."""
    if one.conditions is None or other.conditions is None:
        return []
    pairs = {key: (getattr(one.conditions, key), getattr(other.conditions, key)) for key in keys}
    return [key for key, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


def latency_verdict(row: VariantSummary, aa_ratio_ci95: Interval) -> str | None:
    """`faster` or `slower` only where the whole interval of the ratio lies beyond 1 and beyond the device's A/A difference.

    aa_ratio_ci95: the interval of the reference measured against itself, which bounds this device's noise. None without a measurement.
    """
    if row.latency.ratio_to_reference is None:
        return None
    if row.latency.ratio_ci95 is None or aa_ratio_ci95 is None:
        return UNCLAIMED
    low, high = row.latency.ratio_ci95
    noise = max(abs(math.log(bound)) for bound in aa_ratio_ci95)
    if math.log(high) < -noise:
        return FASTER
    return SLOWER if math.log(low) > noise else UNCLAIMED


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
        found.append(f"{row.noise.grade} while this was measured{f': {row.noise.reason}' if row.noise.reason else ''}")
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
        f" variant's own ({scores['threshold']:.2g}){moved}"
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

    The ratio itself where the profile gives no interval; infinite where nothing was measured.
    """
    if row.latency.ratio_ci95:
        return row.latency.ratio_ci95[1]
    return math.inf if row.latency.ratio_to_reference is None else row.latency.ratio_to_reference


def fastest_group(rows: Rows) -> list[str]:
    """The fastest of `rows` and those whose intervals overlap with its own, the best ranked first."""
    ranked = sorted((name for name in rows if worst_ratio(rows[name]) < math.inf), key=lambda name: worst_ratio(rows[name]))
    return [name for name in ranked if (rows[name].latency.ratio_ci95 or (worst_ratio(rows[name]),))[0] <= worst_ratio(rows[ranked[0]])]


def pareto_front(rows: Rows, metric: PrimaryMetric | None) -> tuple[str, ...]:
    """The ok variants that no other dominates in score, latency and size, in the order of the rows. Where the task judges nothing, the
    agreement with the reference stands for the score.

    Latency is the upper end of the paired ratio's interval, infinite where it was not measured.
    """
    values = {name: score_or_agreement(row, metric) for name, row in rows.items() if row.ok}
    points = {name: cost_vector(rows[name], value, metric) for name, value in values.items() if value is not None}
    return tuple(name for name, point in points.items() if not any(dominates(other, point) for other in points.values()))


def score_or_agreement(row: VariantSummary, metric: PrimaryMetric | None) -> float | None:
    """The score; where the task judges nothing, the SQNR of the outputs against the reference's, at most MOST_DB. None: not known."""
    if metric:
        return row.quality.score
    return None if row.quality.sqnr_db is None else min(row.quality.sqnr_db, MOST_DB)


def cost_vector(row: VariantSummary, value: float, metric: PrimaryMetric | None) -> tuple[float, float, float]:
    """(cost of the score or agreement, latency ratio, bytes); less is better in each. value: of `score_or_agreement`."""
    return metric.cost(value) if metric else -value, worst_ratio(row), float(row.file.size_bytes or math.inf)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Whether `one` is at least as good everywhere and better somewhere; less is better."""
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
