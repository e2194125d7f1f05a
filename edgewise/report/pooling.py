"""The ratio of each variant over all of its visits, with an interval that holds between visits where the device's trust is known."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgewise.artifacts.records import JudgedLatency, Trust, VariantSummary, Visit
from edgewise.measure.collecting import to_measured
from edgewise.report.verdicts import Rows
from edgewise.stats.random_effects import Measured, Spread, between_visits, measured_from_interval, pool


def pool_rows(rows: Rows, visits: Mapping[str, Sequence[Visit]], trust: Trust | None, reference: str) -> dict[str, VariantSummary]:
    """The rows with the ratio and interval of all visits. visits: of each variant, of metrics/visits.json."""
    return {name: pool_row(row, visits.get(name, ()), trust, name, itself=name == reference) for name, row in rows.items()}


def pool_row(row: VariantSummary, visits: Sequence[Visit], trust: Trust | None, name: str = "", itself: bool = False) -> VariantSummary:
    """One row; as it was where it has no interval. itself: the reference against itself, which no movement of the device changes."""
    latency = row.latency
    if latency.ratio_to_reference is None or latency.ratio_ci95 is None or not latency.processes or latency.processes < 2:
        return row
    measured = [to_measured(visit) for visit in visits] or [read_visit(latency)]
    known = trust is not None and row.conditions is not None and row.conditions.device_fingerprint == trust.fingerprint
    told = replace(latency, visits=len(measured), visit_ratio_ci95=latency.ratio_ci95, between_visits=known)
    if len(measured) == 1 and (itself or not known):
        return replace(row, latency=told)
    estimate = pool(measured, find_spread(measured, None if itself or not known else trust, name))
    return replace(row, latency=replace(told, ratio_to_reference=estimate.ratio, ratio_ci95=estimate.interval()))


def read_visit(latency: JudgedLatency) -> Measured:
    """The visit of a record that came without one."""
    assert latency.ratio_to_reference is not None and latency.ratio_ci95 is not None and latency.processes is not None
    low, high = latency.ratio_ci95
    return measured_from_interval(latency.ratio_to_reference, (low, high), latency.processes)


def find_spread(measured: Sequence[Measured], trust: Trust | None, name: str) -> Spread | None:
    """The variant's own where it was visited often enough, else that of the device's study; without trust that of these visits, which then
    says nothing of others."""
    if trust is None:
        return between_visits([measured])
    known = trust.own.get(name, trust)
    return Spread(known.log_variance, known.degrees)
