"""What the configured device is, as far as a result may depend on it."""

from collections.abc import Mapping
from typing import Any

from edgewise.agent.machine import fingerprint
from edgewise.artifacts.artifact import METRICS_SCHEMA
from edgewise.config import schema
from edgewise.devices.access import connected
from edgewise.measure.subjects import Run

DEADLINE_S = 60.0


def ask(settings: schema.Config) -> Mapping[str, Any]:
    """The device's event `facts`, with what the host knows of the transport: {"facts", "sensors", "memory_limit"}."""
    # of all formats, used or not: a variant that comes or goes must not look like another device
    packages = sorted({schema.part(form.module, "run").PACKAGE for form in settings.formats.values()})
    with connected(settings.device) as connection:
        run = Run.of(connection.run({"kind": "probe", "packages": packages}, DEADLINE_S), facts=1)
    found = run.one("facts")
    return {**found, "facts": {**found["facts"], "emulated": settings.device.load().EMULATED}}


def described(settings: schema.Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics/device.json holds."""
    return {"schema": METRICS_SCHEMA, "name": settings.device.name, "fingerprint": fingerprint(found["facts"]), "facts": found["facts"]}


def table(found: Mapping[str, Any]) -> str:
    """What the device said of itself, a line each. found: the event `facts`."""
    facts, sensors = found["facts"], found["sensors"]
    quota = f", at most {facts['cpu_quota_cores']:g} of them" if facts["cpu_quota_cores"] else ""
    lines = {
        "board": (facts["board"] or facts["machine"]) + (", emulated: outputs are compared, nothing is timed" if facts["emulated"] else ""),
        "cpu": f"{facts['cpu']}, {facts['cores_allowed']} cores{quota}: {', '.join(facts['isa']) or 'no known instruction set'}",
        "memory": f"{facts['ram_mib']} MiB",
        "python": f"{facts['python']}, " + ", ".join(f"{name} {version or 'missing'}" for name, version in facts["packages"].items()),
        "governor": facts["governor"] or "cannot be read",
        "sensors": ", ".join(f"{s['name']} ({s['problem']})" if s["problem"] else s["name"] for s in sensors) or "none",
        "limits": f"memory by {found['memory_limit']}",
    }
    return "\n".join(f"{name:10}{value}" for name, value in lines.items())
