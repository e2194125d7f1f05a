"""What the configured device is, as far as a result may depend on it, and which runtimes it has."""

from collections.abc import Mapping
from typing import Any

from edgewise.agent.machine import fingerprint
from edgewise.artifacts.artifact import METRICS_SCHEMA
from edgewise.config import schema
from edgewise.config.runtimes import MISSING
from edgewise.devices.access import connect
from edgewise.measure.subjects import Run

DEADLINE_S = 60.0


def ask(settings: schema.Config) -> Mapping[str, Any]:
    """The device's event `facts`, with what the host knows of the transport: {"facts", "packages", "sensors", "memory_limit"}.

    packages: versions of numpy and of the runtimes, None for one that the device lacks. They are no facts of the machine: a runtime that
    is installed later outdates what is measured with it, and nothing else.
    """
    # of all formats, used or not: a variant that comes or goes must not look like another device
    packages = sorted({schema.part(form.module, "run").PACKAGE for form in settings.formats.values()})
    with connect(settings.device) as connection:
        run = Run.of(connection.run({"kind": "probe", "packages": packages}, DEADLINE_S), facts=1)
    found = run.one("facts")
    facts = dict(found["facts"])
    packages = facts.pop("packages")
    return {**found, "facts": {**facts, "emulated": settings.device.load().EMULATED}, "packages": packages}


def described(settings: schema.Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics/device.json holds."""
    return {"schema": METRICS_SCHEMA, "name": settings.device.name, "fingerprint": fingerprint(found["facts"]), "facts": found["facts"]}


def described_runtimes(settings: schema.Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """What metrics/runtimes.json holds: versions of all packages, and for each variant its own runtime in words, on which bench-on-device
    depends."""
    owners = {name: schema.part(variant.module, "run").PACKAGE for name, variant in settings.variants.items()}
    variants = {name: f"{package} {found['packages'].get(package) or MISSING}" for name, package in owners.items()}
    return {"schema": METRICS_SCHEMA, "packages": dict(found["packages"]), "variants": variants}


def missing_runtime(runtimes: Mapping[str, Any], *variants: str) -> str | None:
    """The first of the variants whose runtime the device lacks. runtimes: what `described_runtimes` gave. None where it has all of them,
    or where it lacks numpy, which no variant can do without."""
    if runtimes["packages"].get("numpy") is None:
        return None
    return next((name for name in variants if runtimes["variants"].get(name, "").endswith(f" {MISSING}")), None)


def table(found: Mapping[str, Any]) -> str:
    """What the device said of itself, a line each. found: the event `facts`."""
    facts, sensors = found["facts"], found["sensors"]
    quota = f", at most {facts['cpu_quota_cores']:g} of them" if facts["cpu_quota_cores"] else ""
    lines = {
        "board": (facts["board"] or facts["machine"]) + (", emulated: outputs are compared, nothing is timed" if facts["emulated"] else ""),
        "cpu": f"{facts['cpu']}, {facts['cores_allowed']} cores{quota}: {', '.join(facts['isa']) or 'no known instruction set'}",
        "memory": f"{facts['ram_mib']} MiB",
        "python": f"{facts['python']}, " + ", ".join(f"{name} {version or 'missing'}" for name, version in found["packages"].items()),
        "governor": facts["governor"] or "cannot be read",
        "sensors": ", ".join(f"{s['name']} ({s['problem']})" if s["problem"] else s["name"] for s in sensors) or "none",
        "limits": f"memory by {found['memory_limit']}",
    }
    return "\n".join(f"{name:10}{value}" for name, value in lines.items())
