"""Measure one variant on the device: its outputs, its latency against the reference's, and the passes that the profile asks for."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, records
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.devices.access import connect, lock
from edgewise.errors import DeviceError, VariantFailed
from edgewise.measure import agreement, tuning
from edgewise.measure import passes as profile
from edgewise.measure.device_facts import missing_runtime
from edgewise.measure.outcomes import Passes, bench_result
from edgewise.measure.pairs import Rounds, pairing, rounds
from edgewise.measure.passes import by_minute
from edgewise.measure.subjects import Subject, store_inputs, subject
from edgewise.plugins import Connection

MODELS, METRICS = Path("models"), Path("metrics")


def subjects(settings: schema.Config, name: str, samples: Samples, connection: Connection, folder: Path) -> list[Subject]:
    """The variant and the reference, on the device, with the same inputs. `folder`: where these are put together."""
    store_inputs(samples, settings.bench.scope, folder)
    inputs = f"{connection.place(folder)}/inputs.npz"
    chosen = [settings.variant(n) for n in (name, settings.reference)]
    return [subject(v, MODELS, inputs, samples.preprocessing, settings.bench, settings.device, connection) for v in chosen]


def measure(settings: schema.Config, name: str, target: Path) -> records.BenchResult:
    """As `measure_there`. VariantFailed where the device lacks the runtime of the variant or of the reference."""
    try:
        return measure_there(settings, name, target)
    except DeviceError as error:
        lacking = missing_runtime(records.read_plain(METRICS / "runtimes.json"), name, settings.reference)
        if error.fault != "runtime_missing" or lacking is None:
            raise
        raise VariantFailed(f"{lacking} on the device: {error}") from error


def measure_there(settings: schema.Config, name: str, target: Path) -> records.BenchResult:
    """Compare the outputs of one variant, then time it, which an emulated device is not worth; the raw results go into `target`."""
    bench, device, samples = settings.bench, records.read_plain(METRICS / "device.json"), Samples.open(MODELS / "data")
    chosen, emulated = settings.variant(name), settings.device.load().EMULATED
    pair: dict[str, Any] = {"variant": name, "reference": settings.reference}
    with tempfile.TemporaryDirectory() as folder, lock(settings.device), connect(settings.device) as connection, connection.reserve():
        feeds = agreement.store(samples, bench.agreement_samples, Path(folder), needed=emulated)
        variant, reference = subjects(settings, name, samples, connection, Path(folder))
        there = agreement.there(variant, feeds)  # first: what makes the device fail may make this machine fail too
        here = agreement.here(chosen, variant, feeds, MODELS)
        agreed = agreement.compare(here, there, chosen) if feeds else None
        if emulated:
            threads = variant.fields["settings"]["threads"]
            unmeasured = records.Conditions(bench.name, bench.scope, threads, device["fingerprint"], emulated=True)
            return records.BenchResult(**pair, conditions=unmeasured, agreement=agreed)
        tuned = tuning.tune(chosen, variant, feeds, here, agreed, bench, device["facts"]["cores"])
        variant = tuned.subject
        found = rounds(pairing(variant, reference, bench), bench, name)
        passes = Passes.measure(variant, bench)
    write_raw(found, passes, tuned, chosen, target)
    known = {"threads": variant.fields["settings"]["threads"], "governor": device["facts"]["governor"]}
    measured = bench_result(found, passes, bench, tuned.agreement, device_fingerprint=device["fingerprint"], **pair, **known)
    return replace(measured, engine_auto=tuned.record)


def write_raw(found: Rounds, passes: Passes, tuned: tuning.Tuned, variant: schema.Variant, target: Path) -> None:
    """What the record rests on."""
    raw = {"variant": found.variant, "reference": found.reference, "passes": passes.runs, "engine_auto": tuned.runs}
    artifact.write_json(
        target / "samples.json", {"schema": records.SCHEMA, **{side: [run.events for run in runs] for side, runs in raw.items()}}
    )
    artifact.write_json(target / "minutes.json", {"schema": records.SCHEMA, "variant": [by_minute(run) for run in found.variant]})
    if passes.profile:
        profile.write(passes.profile, schema.part(variant.module, "profile").UNSUPPORTED, target)
