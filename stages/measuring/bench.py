"""Measure one variant on the device: its outputs, its latency against the reference's, and the passes that the profile asks for."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from stages.core import artifact, config, results
from stages.core.plugins import Connection
from stages.core.samples import Samples
from stages.measuring import agreement, profile, tuning
from stages.measuring.access import connected
from stages.measuring.jobs import Subject, store_inputs, subject
from stages.measuring.lock import exclusive
from stages.measuring.pairing import pairing
from stages.measuring.records import Passes, bench_result
from stages.measuring.session import Rounds, rounds
from stages.measuring.sustained import by_minute

MODELS, METRICS = Path("models"), Path("metrics")


def subjects(settings: config.Config, name: str, samples: Samples, connection: Connection, folder: Path) -> list[Subject]:
    """The variant and the reference, on the device, with the same inputs. `folder`: where these are put together."""
    store_inputs(samples, settings.bench.scope, folder)
    inputs = f"{connection.place(folder)}/inputs.npz"
    chosen = [settings.variant(n) for n in (name, settings.reference)]
    return [subject(v, MODELS, inputs, samples.preprocessing, settings.bench, settings.device, connection) for v in chosen]


def measure(settings: config.Config, name: str, target: Path) -> results.BenchResult:
    """Compare the outputs of one variant, then time it, which an emulated device is not worth; the raw results go into `target`."""
    bench, device, samples = settings.bench, results.read_plain(METRICS / "device.json"), Samples.open(MODELS / "data")
    chosen, emulated = settings.variant(name), settings.device.load().EMULATED
    pair: dict[str, Any] = {"variant": name, "reference": settings.reference}
    with tempfile.TemporaryDirectory() as folder, exclusive(settings.device), connected(settings.device) as connection, connection.alone():
        feeds = agreement.store(samples, bench.agreement_samples, Path(folder), needed=emulated)
        variant, reference = subjects(settings, name, samples, connection, Path(folder))
        there = agreement.there(variant, feeds)  # first: what makes the device fail may make this machine fail too
        here = agreement.here(chosen, variant, feeds, MODELS)
        agreed = agreement.compare(here, there, chosen) if feeds else None
        if emulated:
            threads = variant.fields["settings"]["threads"]
            unmeasured = results.Conditions(bench.name, bench.scope, threads, device["fingerprint"], emulated=True)
            return results.BenchResult(**pair, conditions=unmeasured, agreement=agreed)
        tuned = tuning.tune(chosen, variant, feeds, here, agreed, bench, device["facts"]["cores"])
        variant = tuned.subject
        found = rounds(pairing(variant, reference, bench), bench, name)
        passes = Passes.measure(variant, bench)
    write_raw(found, passes, tuned, chosen, target)
    known = {"threads": variant.fields["settings"]["threads"], "governor": device["facts"]["governor"]}
    measured = bench_result(found, passes, bench, tuned.agreement, device_fingerprint=device["fingerprint"], **pair, **known)
    return replace(measured, engine_auto=tuned.record)


def write_raw(found: Rounds, passes: Passes, tuned: tuning.Tuned, variant: config.Variant, target: Path) -> None:
    """What the record rests on."""
    raw = {"variant": found.variant, "reference": found.reference, "passes": passes.runs, "engine_auto": tuned.runs}
    artifact.write_json(
        target / "samples.json", {"schema": results.SCHEMA, **{side: [run.events for run in runs] for side, runs in raw.items()}}
    )
    artifact.write_json(target / "minutes.json", {"schema": results.SCHEMA, "variant": [by_minute(run) for run in found.variant]})
    if passes.profile:
        profile.write(passes.profile, config.part(variant.module, "profile").UNSUPPORTED, target)
