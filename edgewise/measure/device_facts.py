"""Probe the configured device: the stable facts that a result may depend on, and which runtimes it has."""

import re
from collections.abc import Mapping
from typing import Any

from edgewise.agent.machine import fingerprint
from edgewise.agent.packages import list_packages
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
    packages = sorted({package for form in settings.formats.values() for package in _packages(form.module)})
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
    """The content of metrics/runtimes.json: the versions of all packages, and for each variant those of its runtime, on which
    bench-on-device depends: "torch 2.13.0, executorch 1.5.1"."""
    variants = {
        name: ", ".join(f"{package} {found['packages'].get(package) or MISSING}" for package in _packages(variant.module))
        for name, variant in settings.variants.items()
    }
    return {"schema": METRICS_SCHEMA, "packages": dict(found["packages"]), "variants": variants}


def _packages(module: str) -> list[str]:
    """What pip installs for the runtime of a format."""
    return list(list_packages(schema.part(module, "run")).values())


def find_missing_runtime(runtimes: Mapping[str, Any], said: str, *variants: str) -> str | None:
    """The first of the variants whose runtime the device lacks, or a package that the runtime stands on. runtimes: of
    `make_runtimes_record`. said: the fault `runtime_missing`, which names the packages of the runtime that could not be imported. None
    where that is another one, such as numpy, or all of them are installed and one is broken."""
    for name in variants:
        entries = [entry.rpartition(" ") for entry in runtimes["variants"].get(name, "").split(", ")]
        packages = " ".join(package for package, _, _ in entries)
        if any(version == MISSING for *_, version in entries) and re.search(rf"pip install {re.escape(packages)}(;|$)", said):
            return name
    return None


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
