"""bench-on-device@V: measure one variant on the configured device: its outputs against this machine's, its latency against the
reference's, and its memory. With `engine: auto` the engine settings are chosen first.

    python -m stages.bench_on_device VARIANT

Reads   models/variants/V and the reference's, models/data (samples of the test split), metrics/device.json
Writes  metrics/bench/V.json (records.BenchResult), models/bench/V: samples.json (every event of every process),
        minutes.json (median, temperature, frequency by minute), profile.json and trace.json (time by operator; a Chrome trace)
"""

import sys

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.config import schema
from edgewise.errors import VariantFailed, run_main
from edgewise.measure.bench import METRICS, MODELS, measure
from edgewise.proof.isolation import fail_alone

FOREACH = "variants"
CODE = (
    "edgewise.measure.bench",
    "{device}",
    "edgewise.devices.access",
    "{format}.run",
    "{format}.profile",
    "{reference}.run",
    "{samples}",
    "edgewise.agent.program",
    "edgewise.agent.sessions",
    "edgewise.stats.timing",
    "edgewise.stats.agreement",
    "edgewise.proof.checks",
    "edgewise.proof.isolation",
    "edgewise.artifacts.records",
)


def main() -> None:
    settings = schema.read()
    name = settings.variant(sys.argv[1] if len(sys.argv) == 2 else "").name
    target = MODELS / "bench" / name
    record: records.BenchResult | records.Failed
    try:
        for needed in (name, settings.reference):
            artifact.require_ok(artifact.read(MODELS / "variants" / needed), needed)
        with fail_alone(f"measuring {name}"), artifact.building(target) as folder:
            record = measure(settings, name, folder)
            artifact.write(folder, Manifest(kind="bench", config_key="bench"))
    except VariantFailed as failure:
        record = records.Failed(str(failure))
        artifact.write_status(target, Manifest(kind="bench", status="failed", reason=record.reason))
    records.write(METRICS / "bench" / f"{name}.json", record)


if __name__ == "__main__":
    run_main(main)
