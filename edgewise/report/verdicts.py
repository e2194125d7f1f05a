"""What may be said of the numbers: better, worse, or nothing; and which variants nothing beats."""

import math
from collections.abc import Mapping
from dataclasses import replace

from edgewise.artifacts.records import Interval, Quality, VariantSummary
from edgewise.plugins import PrimaryMetric

Rows = Mapping[str, VariantSummary]
LOST_IN_KERNELS_DB = 6.0  # half of the signal to noise: more than another order of sums and rounding makes
LITTLE_COVERED = 0.9  # below this share of the weights a scheme's name promises more than the file holds
FASTER, SLOWER, UNCLAIMED, REFERENCE = "faster", "slower", "no difference claimed", "reference"
# what two measurements must have in common to be compared; the last two make the A/A difference that of another machine
CONDITIONS = ("profile", "interleave", "scope", "threads", "governor", "device_fingerprint", "emulated")
ANOTHER_DEVICE = ("device_fingerprint", "emulated")


def judge(rows: Rows, reference: str, metric: PrimaryMetric | None) -> dict[str, VariantSummary]:
    """The rows with their verdicts and warnings."""
    base = rows[reference]
    beside = next((name for name in (reference, *rows) if rows[name].conditions), reference)
    judged = {}
    for name, row in rows.items():
        is_reference = name == reference
        judged[name] = replace(
            row,
            quality=judged_quality(row, metric, base, is_reference),
            latency=replace(row.latency, verdict=REFERENCE if is_reference else latency_verdict(row, aa_of(row, base))),
            warnings=tuple(warnings(row, rows[beside], "the reference" if beside == reference else beside)),
        )
    return judged


def judged_quality(row: VariantSummary, metric: PrimaryMetric | None, base: VariantSummary, is_reference: bool) -> Quality:
    """With its verdict; the reference does not differ from itself."""
    if not is_reference:
        return replace(row.quality, verdict=score_verdict(row, metric, base.quality.score))
    return replace(row.quality, verdict=REFERENCE, delta_ci95=(0.0, 0.0) if row.quality.delta is not None else row.quality.delta_ci95)


def score_verdict(row: VariantSummary, metric: PrimaryMetric | None, base: float | None) -> str | None:
    """`lower` and `higher` only where the paired interval excludes 0; otherwise how many samples it would take. base: the reference's."""
    if metric is None or row.quality.delta_ci95 is None or row.quality.samples is None or row.quality.resolvable is None:
        return None
    low, high = row.quality.delta_ci95
    if high < 0 or low > 0:
        return "lower" if high < 0 else "higher"
    if row.quality.samples_needed is None:
        shown = f"{metric.percent(base) * row.quality.resolvable:.2g} {metric.unit}"
        return f"unresolved: none seen, {row.quality.samples:,} samples show {shown} or more"
    return f"unresolved, needs {row.quality.samples_needed:,} samples"


def aa_of(row: VariantSummary, base: VariantSummary) -> Interval:
    """The reference against itself, as measured on the device of `row`; None where that was another device."""
    return None if differing(row, base, ANOTHER_DEVICE) else base.latency.ratio_ci95


def differing(one: VariantSummary, other: VariantSummary, keys: tuple[str, ...] = CONDITIONS) -> list[str]:
    """The conditions in which two measurements differ; what is not known of one of them differs from nothing."""
    if one.conditions is None or other.conditions is None:
        return []
    pairs = {key: (getattr(one.conditions, key), getattr(other.conditions, key)) for key in keys}
    return [key for key, pair in pairs.items() if None not in pair and pair[0] != pair[1]]


def latency_verdict(row: VariantSummary, aa_ratio_ci95: Interval) -> str | None:
    """`faster` or `slower` only where the whole interval of the ratio lies beyond 1 and beyond the device's A/A difference.

    aa_ratio_ci95: the interval of the reference measured against itself, which is what this device makes of no difference.
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


def warnings(row: VariantSummary, beside: VariantSummary, name: str = "the reference") -> list[str]:
    """What a reader must know before believing the row. beside: the measurement that it is read against, called `name`."""
    found = []
    if row.proof.covered_share is not None and row.proof.covered_share < LITTLE_COVERED:
        found.append(f"{row.scheme} covers {100 * row.proof.covered_share:.2g} % of the weights; the rest is as it was")
    if row.file.runtime_release:
        found.append(str(row.file.form))
    run, written = row.proof.sqnr_to_source_db, row.proof.sqnr_as_written_db
    if run is not None and written is not None and run < written - LOST_IN_KERNELS_DB:
        found.append(
            f"the integer kernels of the machine it was made on keep SQNR {run:.0f} dB of the {written:.0f} that the file holds (products"
            " of 8 bits saturate on x86 without VNNI): set reduce_range: true where the scheme has it, or score it on the device"
        )
    if row.noise and row.noise.grade != "clean":
        found.append(f"{row.noise.grade} while this was measured{f': {row.noise.reason}' if row.noise.reason else ''}")
    pairs = {key: (getattr(row.conditions, key), getattr(beside.conditions, key)) for key in differing(row, beside)}
    return found + [f"measured with {key} {mine}, {name} with {its}: {advice(key)}" for key, (mine, its) in pairs.items()]


def elsewhere(rows: Rows, fingerprint: str | None) -> list[str]:
    """A line where a measurement is not of the device that metrics/device.json describes now."""
    names = [name for name, row in rows.items() if fingerprint and row.conditions and row.conditions.device_fingerprint != fingerprint]
    if not names:
        return []
    return [f"{', '.join(names)}: measured on another device than metrics/device.json describes (or before it changed): run `dvc repro`"]


def advice(key: str) -> str:
    return "its figures are of another machine, compare none of them" if key in ANOTHER_DEVICE else "compare the ratio only"


def slowest(row: VariantSummary) -> float:
    """The least favourable end of the ratio's interval, by which variants are ranked: a point estimate may stray under load, and the
    one that strays furthest would win. The ratio itself where the profile gives no interval; infinite where nothing was measured."""
    if row.latency.ratio_ci95:
        return row.latency.ratio_ci95[1]
    return math.inf if row.latency.ratio_to_reference is None else row.latency.ratio_to_reference


def leaders(rows: Rows) -> list[str]:
    """The fastest of `rows` and those that cannot be told from it, whose intervals overlap with its own; the best ranked first."""
    ranked = sorted((name for name in rows if slowest(rows[name]) < math.inf), key=lambda name: slowest(rows[name]))
    return [name for name in ranked if (rows[name].latency.ratio_ci95 or (slowest(rows[name]),))[0] <= slowest(rows[ranked[0]])]


def pareto(rows: Rows, metric: PrimaryMetric | None) -> tuple[str, ...]:
    """The ok variants that no other equals or beats in score, latency and size at once, in the order of the rows; in latency and size
    where nothing is judged.

    Latency is the paired ratio, which survives a drifting machine, at its least favourable end; infinite where it was not measured.
    """
    judged = {name: row for name, row in rows.items() if row.ok and (row.quality.score is not None or metric is None)}
    points = {name: objectives(row, metric) for name, row in judged.items()}
    return tuple(name for name, point in points.items() if not any(dominates(other, point) for other in points.values()))


def objectives(row: VariantSummary, metric: PrimaryMetric | None) -> tuple[float, float, float]:
    """(cost of the score, latency ratio, bytes): all to be small."""
    cost = metric.cost(row.quality.score or 0.0) if metric else 0.0
    return cost, slowest(row), float(row.file.size_bytes or math.inf)


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    return one != other and all(a <= b for a, b in zip(one, other, strict=True))
