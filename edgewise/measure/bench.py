"""Measure one variant on the device: its outputs, its latency against the reference's, and the passes that the profile asks for."""

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, records, visits
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.devices.access import connect, lock
from edgewise.errors import DeviceError, VariantFailed
from edgewise.measure import device_outputs, tuning
from edgewise.measure.device_facts import find_missing_runtime
from edgewise.measure.pairs import PairedRuns, make_key, make_pair_runner, make_visit, measure_pairs
from edgewise.measure.passes import Passes, write_profile
from edgewise.measure.results import make_bench_result, summarize_minutes
from edgewise.measure.runs import PlacedVariant, place_variant, store_inputs
from edgewise.plugins import Connection

MODELS, METRICS = Path("models"), Path("metrics")


def measure(settings: schema.Config, name: str, target: Path) -> records.BenchResult:
    """Measure one variant and write the raw results into the folder `target`. VariantFailed if the device lacks the runtime of the variant
    or of the reference."""
    try:
        return measure_on_device(settings, name, target)
    except DeviceError as error:
        lacking = find_missing_runtime(records.read_plain(METRICS / "runtimes.json"), str(error), name, settings.reference)
        if error.fault != "runtime_missing" or lacking is None:
            raise
        raise VariantFailed(f"{lacking} on the device: {error}") from error


def measure_on_device(settings: schema.Config, name: str, target: Path) -> records.BenchResult:
    """Compare the outputs of one variant, then time it unless the device is emulated; raw results go into the folder `target`."""
    bench, device, samples = settings.bench, records.read_plain(METRICS / "device.json"), Samples.open(MODELS / "data")
    chosen, emulated = settings.variant(name), settings.device.load().EMULATED
    pair: dict[str, Any] = {"variant": name, "reference": settings.reference}
    with tempfile.TemporaryDirectory() as folder, lock(settings.device), connect(settings.device) as connection, connection.reserve():
        feeds = device_outputs.store_feeds(samples, bench.agreement_samples, Path(folder), needed=emulated)
        variant, reference = place_pair(settings, name, samples, connection, Path(folder))
        on_device = device_outputs.compute_on_device(variant, feeds)  # first: what fails on the device may fail on this machine too
        on_host = device_outputs.compute_on_host(chosen, variant, feeds, MODELS)
        agreed = device_outputs.compare(on_host, on_device, chosen) if feeds else None
        if emulated:
            threads = variant.fields["settings"]["threads"]
            unmeasured = records.Conditions(bench.name, bench.scope, threads, device["fingerprint"], emulated=True)
            return records.BenchResult(**pair, conditions=unmeasured, agreement=agreed)
        tuned = tuning.tune(chosen, variant, feeds, on_host, agreed, bench, device["facts"]["cores"])
        variant = tuned.placed
        key = make_key(variant, reference, bench, device["fingerprint"], records.read_plain(METRICS / "runtimes.json"))
        start = time.monotonic()
        found = measure_pairs(make_pair_runner(variant, reference, bench), bench, name)
        visit = make_visit(found, bench, time.monotonic() - start, key=key, **pair)
        passes = Passes.measure(variant, bench)
    write_raw_results(found, passes, tuned, chosen, target)
    known = {"threads": variant.fields["settings"]["threads"], "governor": device["facts"]["governor"]}
    measured = make_bench_result(found, passes, bench, tuned.agreement, device_fingerprint=device["fingerprint"], **pair, **known)
    if visit:
        visits.append(visit, device["fingerprint"])
    return replace(measured, engine_auto=tuned.record, visit=visit)


def place_pair(settings: schema.Config, name: str, samples: Samples, connection: Connection, folder: Path) -> list[PlacedVariant]:
    """Place the variant, the reference and their common inputs on the device. folder: a temporary one, for the inputs."""
    store_inputs(samples, settings.bench.scope, folder)
    inputs = f"{connection.place(folder)}/inputs.npz"
    chosen = [settings.variant(n) for n in (name, settings.reference)]
    return [place_variant(v, MODELS, inputs, samples, settings.bench, settings.device, connection) for v in chosen]


def write_raw_results(found: PairedRuns, passes: Passes, tuned: tuning.Tuned, variant: schema.Variant, target: Path) -> None:
    """Write the events of every process to samples.json, the minutes to minutes.json, and what the profile pass found."""
    raw = {"variant": found.variant, "reference": found.reference, "passes": passes.runs, "engine_auto": tuned.runs}
    artifact.write_json(
        target / "samples.json", {"schema": records.SCHEMA, **{side: [run.events for run in runs] for side, runs in raw.items()}}
    )
    artifact.write_json(target / "minutes.json", {"schema": records.SCHEMA, "variant": [summarize_minutes(run) for run in found.variant]})
    if passes.profile:
        write_profile(passes.profile, schema.part(variant.module, "profile").UNSUPPORTED, target)
