"""probe-device: find out the stable facts of the configured device, which results depend on.

    python -m stages.probe_device

Reads   the device section of models/config.yaml
Writes  metrics/device.json: the facts and their fingerprint; the same machine gives the same bytes
        metrics/runtimes.json: which runtime the device has for each variant, by version
"""

from pathlib import Path

from edgewise.artifacts.artifact import write_json
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.measure.device_facts import format_facts, make_device_record, make_runtimes_record, probe
from edgewise.measure.threads import warn_of_threads

METRICS = Path("metrics")


def main() -> None:
    settings = schema.read()
    found = probe(settings)
    write_json(METRICS / "device.json", make_device_record(settings, found))
    write_json(METRICS / "runtimes.json", make_runtimes_record(settings, found))
    print(format_facts(found))
    if warning := warn_of_threads(settings.device.settings["threads"], found["facts"], settings.device.name):
        print(warning)


if __name__ == "__main__":
    run_main(main)
