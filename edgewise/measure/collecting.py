"""What the store of visits says of the current variants and device: metrics/visits.json and metrics/trust.json, on which report depends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.artifacts import records, visits
from edgewise.artifacts.artifact import METRICS_SCHEMA, write_json
from edgewise.artifacts.visits import Movement, Trust, Visit
from edgewise.config import schema
from edgewise.config.schema import to_plain
from edgewise.config.settings import build
from edgewise.stats.random_effects import Measured, between_visits

ENOUGH = 6  # visits of a variant from which its own movement is taken: 5 degrees of freedom
VISITS, TRUST = Path("metrics/visits.json"), Path("metrics/trust.json")


def write_collected(settings: schema.Config) -> None:
    """Write both files: of each variant the visits with the key of its last one, and how far visits lie apart on this device. Empty where
    nothing was measured, or `edgewise trust` never ran here."""
    device = records.read_plain(records.METRICS / "device.json")["fingerprint"]
    last = {name: visit for name in settings.variants if (visit := read_last(name, device))}
    stored = keep_last(visits.read_store(device), last.values(), device)
    own = {name: [each for each in stored[visit.key] if each.source == visits.BENCH] for name, visit in last.items()}
    trust = estimate_trust(stored.values(), device, settings.bench.interleave)
    if trust:
        groups = {name: stored[visit.key] for name, visit in last.items() if name != settings.reference}
        trust = replace(trust, own=estimate_own(groups, settings.bench.interleave))
    write_json(VISITS, {"schema": METRICS_SCHEMA, "variants": to_plain(own)})
    write_json(TRUST, {"schema": METRICS_SCHEMA, "trust": to_plain(trust)})


def read_last(name: str, fingerprint: str) -> Visit | None:
    """The visit that metrics/bench holds. None where the variant failed, claims nothing, or was measured on another device."""
    path = records.METRICS / "bench" / f"{name}.json"
    record = records.read(records.BenchResult, path) if path.exists() else None
    known = isinstance(record, records.BenchResult) and record.conditions.device_fingerprint == fingerprint
    return record.visit if isinstance(record, records.BenchResult) and known else None


def keep_last(stored: Mapping[str, Sequence[Visit]], last: Iterable[Visit], fingerprint: str) -> dict[str, list[Visit]]:
    """The store with the visits of metrics/bench, which it may lack where they came by git or from DVC's cache."""
    found = {key: list(each) for key, each in stored.items()}
    for visit in last:
        if visit not in found.setdefault(visit.key, []):
            visits.append(visit, fingerprint)
            found[visit.key].append(visit)
    return found


def estimate_trust(groups: Iterable[Sequence[Visit]], fingerprint: str, interleave: str) -> Trust | None:
    """How far visits lie apart, from all that were repeated on the device, the reference against itself left out: what both sides do alike
    cancels. None before `edgewise trust` has run."""
    used = [[visit for visit in group if visit.interleave == interleave and visit.variant != visit.reference] for group in groups]
    repeated = [group for group in used if len(group) > 1]
    spread = between_visits([[to_measured(visit) for visit in group] for group in repeated])
    every = [visit for group in repeated for visit in group]
    if spread is None or not any(visit.source == visits.STUDY for visit in every):
        return None
    times, names = sorted(visit.at for visit in every), sorted({visit.variant for visit in every})
    return Trust(fingerprint, spread.variance, round(spread.degrees, 2), len(every), tuple(names), times[0], times[-1], spread.resolved)


def estimate_own(groups: Mapping[str, Sequence[Visit]], interleave: str) -> dict[str, Movement]:
    """The movement of each variant that was visited ENOUGH times, in studies and by the bench stage together."""
    used = {name: [to_measured(visit) for visit in group if visit.interleave == interleave] for name, group in groups.items()}
    found = {name: between_visits([group]) for name, group in used.items() if len(group) >= ENOUGH}
    return {
        name: Movement(spread.variance, round(spread.degrees, 2), len(used[name]), spread.resolved)
        for name, spread in found.items()
        if spread
    }


def to_measured(visit: Visit) -> Measured:
    return Measured.of(visit.ratio, visit.log_standard_error, visit.degrees)


def read_trust(path: Path = TRUST) -> Trust | None:
    """None where the device's trust is not known, or the pipeline ran without the stage `visits`."""
    raw: Mapping[str, Any] = records.read_plain(path) if path.exists() else {"trust": None}
    return build(Trust, raw["trust"], str(path)) if raw["trust"] else None


def read_visits(path: Path = VISITS) -> dict[str, list[Visit]]:
    """{variant: its visits}, the oldest first; empty where the pipeline ran without the stage `visits`."""
    raw: Mapping[str, Any] = records.read_plain(path) if path.exists() else {"variants": {}}
    return {name: [build(Visit, each, str(path)) for each in entries] for name, entries in raw["variants"].items()}
