"""Probe the configured device: the stable facts that a result may depend on, and which runtimes it has."""

import re
from collections.abc import Mapping
from typing import Any

from edgewise.agent.machine import fingerprint
from edgewise.artifacts.artifact import METRICS_SCHEMA
from edgewise.config import schema
from edgewise.config.runtimes import MISSING
from edgewise.devices.access import connect
from edgewise.measure.runs import Run

DEADLINE_S = 60.0


def probe(settings: schema.Config) -> Mapping[str, Any]:
    """The event `facts` of the device, with whether it is emulated: {"facts", "packages", "sensors", "memory_limit"}.

    packages: versions of numpy and of the runtimes, None for one that the device lacks. They are kept out of the facts: installing a
    runtime outdates what is measured with it, and nothing else.
    """
    # of all formats, used or not, so that another choice of variants gives the same record
    packages = sorted({schema.part(form.module, "run").PACKAGE for form in settings.formats.values()})
    with connect(settings.device) as connection:
        run = Run.of(connection.run({"kind": "probe", "packages": packages}, DEADLINE_S), facts=1)
    found = run.one("facts")
    facts = dict(found["facts"])
    packages = facts.pop("packages")
    return {**found, "facts": {**facts, "emulated": settings.device.load().EMULATED}, "packages": packages}


def make_device_record(settings: schema.Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of metrics/device.json."""
    return {"schema": METRICS_SCHEMA, "name": settings.device.name, "fingerprint": fingerprint(found["facts"]), "facts": found["facts"]}


def make_runtimes_record(settings: schema.Config, found: Mapping[str, Any]) -> dict[str, Any]:
    """The content of metrics/runtimes.json: the versions of all packages, and for each variant its runtime with the version, on which
    bench-on-device depends."""
    owners = {name: schema.part(variant.module, "run").PACKAGE for name, variant in settings.variants.items()}
    variants = {name: f"{package} {found['packages'].get(package) or MISSING}" for name, package in owners.items()}
    return {"schema": METRICS_SCHEMA, "packages": dict(found["packages"]), "variants": variants}


def find_missing_runtime(runtimes: Mapping[str, Any], said: str, *variants: str) -> str | None:
    """The first of the variants whose runtime the device lacks. runtimes: of `make_runtimes_record`. said: the fault `runtime_missing`,
    which names the package that could not be imported. None where that is another one, such as numpy, or is installed and broken."""
    packages = {name: runtimes["variants"].get(name, "").removesuffix(f" {MISSING}") for name in variants}
    return next((name for name, package in packages.items() if re.search(rf"pip install {re.escape(package)}(;|$)", said)), None)


def format_facts(found: Mapping[str, Any]) -> str:
    """The facts as lines for the terminal. found: what `probe` returned."""
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
