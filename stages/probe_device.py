"""probe-device: what the configured device is, as far as a result may depend on it.

    python -m stages.probe_device

Reads   the device section of models/config.yaml
Writes  metrics/device.json: stable facts and their fingerprint; the same machine writes the same bytes
"""

from pathlib import Path

from stages.core import config
from stages.core.artifact import write_json
from stages.core.errors import run_main
from stages.measuring.access import connected
from stages.measuring.runs import Run
from stages.payload.hostinfo import fingerprint

METRICS = Path("metrics")
DEADLINE_S = 60.0


def main() -> None:
    settings = config.read()
    # of all formats, used or not: a variant that comes or goes must not look like another device
    packages = sorted({config.part(form.module, "run").PACKAGE for form in settings.formats.values()})
    with connected(settings.device) as connection:
        run = Run.of(connection.run({"kind": "probe", "packages": packages}, DEADLINE_S), facts=1)
    facts = run.one("facts")["facts"]
    write_json(METRICS / "device.json", {"schema": 1, "name": settings.device.name, "fingerprint": fingerprint(facts), "facts": facts})
    print(f"{facts['cpu']}, {facts['cores_allowed']} cores, {facts['ram_mib']} MiB, {', '.join(facts['isa'])}")


if __name__ == "__main__":
    run_main(main)
