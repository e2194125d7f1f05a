"""What is possible from which source to which format: every scheme of every format is tried on a small model of each kind.

    python -m benchmarks.sources [KIND ...]      prints the rows; without KIND it writes docs/sources.md

Formats are those of conf/format/; those whose packages are not installed are left out, with a word. A cell lists the schemes whose file was
made, is what its name says, and answers like the source within the scheme's tolerance.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import public_models
from edgewise.artifacts import artifact
from edgewise.config import runtimes
from edgewise.config.compose import Options
from edgewise.config.schema import part
from edgewise.errors import VariantFailed
from edgewise.proof import checks, isolation
from edgewise.proof.making import unreadable_source
from tests.support import onnx_sources, port_kinds, source_kinds
from tests.support.source_kinds import Kinds, form, make_of

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs/sources.md"
OPTIONS = Options(ROOT / "conf")
MISSING = {
    name: packages
    for name in OPTIONS.names("format")
    if (packages := [p for p in runtimes.own_packages(form(name)["module"]) if runtimes.version(p) == runtimes.MISSING])
}
FORMATS = [name for name in OPTIONS.names("format") if name not in MISSING]
ONNX_READERS = [name for name in FORMATS if "onnx" in make_of(name).SOURCES]
BUILDERS = {**source_kinds.BUILDERS, **port_kinds.BUILDERS}
TOLD = {**source_kinds.TOLD, **port_kinds.TOLD}
STAGES_OF_THEIR_OWN = {"mixed", "qat"}  # settings of schemes that scan-layers or train-qat prepares
HEAD = """# What is possible from which source

Good for: seeing which formats and schemes your kind of model can become, before you try. A scheme is listed where the file was made, is
what its name says, and answers like the source. What is missing, and why, stands below. Schemes that first search layers or train on
(int8-mixed, int8-qat) are not tried here.

Written by `python -m benchmarks.sources`, which runs every pair; edit that, not this.

"""
PORTS = """
## Ports of other kinds

ONNX files whose inputs and outputs are not one float32 array of [samples, ...] each, in the formats that read ONNX. Every output is
compared. An open height and width is fixed to `data.image_size` here.

Pictures at their own sizes, one by one, from the source to the bundle: `data.resize=as_is`.

* It works in onnx and openvino, of an ONNX file, with `task.name=none`. The other formats take one size, and say so. So do the scan of
  int8-mixed and models in parts (`load`).
* `data.pad_stride=32` pads them to a multiple of 32, for nets that need one.
* Latency is that of a picture of `data.image_size`.

"""


def float_model(kind: str, name: str, kinds: Kinds) -> Path:
    """The float model, through another format where that lies between. VariantFailed where there is no way."""
    source = kinds.get(kind)
    target = kinds.folder / f"{kind}-{name}"
    if target.exists():
        return target
    origin, ways = artifact.read(source).format, make_of(name).SOURCES
    if origin in ways:
        return source_kinds.convert(name, source, target)
    if ways[0] in FORMATS and origin in make_of(ways[0]).SOURCES:
        return source_kinds.convert(name, float_model(kind, ways[0], kinds), target)
    raise unreadable_source(make_of(name), str(origin))


def carry(kind: str, name: str, scheme: str, kinds: Kinds) -> str | None:
    """None where the variant is what it says; else the reason in one line."""
    source, made = kinds.get(kind), form(name)
    folder = kinds.folder / f"{kind}-{name}-{scheme}"
    try:
        parent = float_model(kind, name, kinds)
        inputs, expected = checks.read_probe(source)
        onnx_sources.quantized(name, scheme, parent, source, folder)
        checks.check_scheme(part(made["module"], "facts").facts(folder), make_of(name).SCHEMES[scheme], [], f"{name}-{scheme}")
        given = isolation.compute_outputs(made["module"], folder, {"threads": 1}, inputs)
        least = checks.least_sqnr_db(
            OPTIONS.load("scheme", scheme, "scheme")["min_sqnr_db"], artifact.read(source).details.get("precision")
        )
        checks.check_outputs(expected, given, least)
    except (VariantFailed, ValueError) as failure:
        return " ".join(str(failure).split())
    return None


def schemes(name: str) -> dict[str, dict[str, Any]]:
    """Those of a format that are made of the float model alone, with their settings."""
    listed = {scheme: settings or {} for scheme, settings in form(name)["schemes"].items()}
    return {scheme: settings for scheme, settings in listed.items() if not STAGES_OF_THEIR_OWN & set(settings)}


def formats_of(kind: str) -> list[str]:
    """The columns of the table in which a kind stands."""
    return ONNX_READERS if kind in port_kinds.BUILDERS else FORMATS


def row(kind: str, kinds: Kinds) -> tuple[str, list[str]]:
    """The line of the table, and the reasons of what is missing."""
    cells, reasons = [], []
    for name in formats_of(kind):
        found = {scheme: carry(kind, name, scheme, kinds) for scheme in schemes(name)}
        cells.append(", ".join(scheme for scheme, reason in found.items() if reason is None) or "-")
        by_reason: dict[str, list[str]] = {}
        for scheme, reason in found.items():
            if reason is not None:
                by_reason.setdefault(reason.replace(f"{name}-{scheme}", "it").replace(str(kinds.folder), "..."), []).append(scheme)
        reasons += [f"* {TOLD[kind]} to {name} {', '.join(schemes)}: {reason}" for reason, schemes in by_reason.items()]
    return f"| {TOLD[kind]} | {' | '.join(cells)} |", reasons


def table(found: dict[str, tuple[str, list[str]]], columns: list[str], title: str) -> str:
    lines = [f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|", *(line for line, _ in found.values())]
    return "\n".join([*lines, ""])


def page(found: dict[str, tuple[str, list[str]]]) -> str:
    files = {kind: made for kind, made in found.items() if kind not in port_kinds.BUILDERS}
    ports = {kind: made for kind, made in found.items() if kind in port_kinds.BUILDERS}
    reasons = [reason for _, given in found.values() for reason in given]
    absent = [f"* {name}: {', '.join(packages)} not installed where this was run" for name, packages in MISSING.items()]
    tables = HEAD + table(files, FORMATS, "source") + PORTS + table(ports, ONNX_READERS, "ports")
    return tables + "\n".join(["", "## What is not, and why", "", *absent, *reasons, ""])


def main() -> None:
    wanted = sys.argv[1:] or list(BUILDERS)
    with tempfile.TemporaryDirectory() as place:
        kinds = Kinds(Path(place), BUILDERS)
        found = {}
        for kind in wanted:
            print(f"{kind} ...", file=sys.stderr)
            found[kind] = row(kind, kinds)
    if sys.argv[1:]:
        print(*(line for line, _ in found.values()), *(reason for _, given in found.values() for reason in given), sep="\n")
    else:
        _, title, rest = TARGET.read_text(encoding="utf-8").partition(public_models.TITLE)
        TARGET.write_text(f"{page(found)}\n{title}{rest}" if title else page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
