"""`edgewise inspect`: what a model file takes and gives, and the sections of params.yaml with which it runs."""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from edgewise.config import schema
from edgewise.errors import MissingExtra, ModelError
from edgewise.inspect import sections
from edgewise.proof import isolation
from edgewise.sources.inspection import CONTAINERS, Inspection, Port

CONF, PARAMS = Path("conf"), Path("params.yaml")
SHOWN_OPERATORS = 12


def print_inspection(path: Path, project: Path, data: str | None, schemes: Sequence[str], *, full: bool) -> None:
    """Print what the file is and the YAML with which it runs.

    project: the folder of conf/ and params.yaml. data: the user's data, for the YAML. full: print all of params.yaml with these sections
    in it, and what the file is on stderr.
    """
    importer, found = inspect_file(path, project / CONF)
    print(describe_file(path, found), file=sys.stderr if full else sys.stdout)
    if found.model is None:
        return
    text = sections.suggest_sections(found, importer.FORMAT, read_formats(project / CONF), data, schemes)
    if full:
        print(sections.replace_sections((project / PARAMS).read_text(encoding="utf-8"), text), end="")
    else:
        print(f"\n# for params.yaml, in place of its sections with the same names\n{text}", end="")


def inspect_file(path: Path, conf: Path = CONF) -> tuple[ModuleType, Inspection]:
    """Inspect a file in a separate process, which a malformed file may abort. Raises ModelError, or MissingExtra for a missing package."""
    importer = find_importer(path, conf)

    def aborted(how: str) -> ModelError:
        return ModelError(f"{path} aborts the library that reads it ({how}); export the model again")

    try:
        return importer, isolation.call_isolated(importer.inspect, path, aborted=aborted)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in importer.REQUIRES:
            raise
        raise MissingExtra(package, importer.REQUIRES[package]) from None


def find_importer(path: Path, conf: Path = CONF) -> ModuleType:
    """The importer for files of this kind, told by their first bytes. Raises ModelError where none fits."""
    if not path.exists():
        raise ModelError(f"{path} does not exist; give the path of a model file")
    known = list(find_importers(conf))
    found = next((module for module in known if module.recognizes(path)), None)
    if found is None:
        kinds = ", ".join(kind for module in known for kind in module.RECOGNIZED)
        raise ModelError(f"{path} is not a model file that Edgewise recognizes by its first bytes; it reads: {kinds}")
    return found


def find_importers(conf: Path) -> Iterator[ModuleType]:
    """The modules named in conf/model/*.yaml that can inspect a file."""
    modules = [yaml.safe_load(path.read_text(encoding="utf-8"))["module"] for path in sorted((conf / "model").glob("*.yaml"))]
    for name in dict.fromkeys(modules):
        module = importlib.import_module(name)
        if hasattr(module, "recognizes"):
            yield module


def describe_file(path: Path, found: Inspection) -> str:
    """The lines that say what the file is."""
    lines = [f"{path}: {found.kind}"]
    for side, ports in (("input", found.inputs), ("output", found.outputs)):
        lines += [f"  {side:14} {describe_port(port)}" for port in ports]
    if found.operators:
        counts = sorted(found.operators.items(), key=lambda entry: (-entry[1], entry[0]))
        rest = f" and {len(counts) - SHOWN_OPERATORS} more kinds" if len(counts) > SHOWN_OPERATORS else ""
        lines.append("  operators      " + ", ".join(f"{count} {name}" for name, count in counts[:SHOWN_OPERATORS]) + rest)
    lines += [f"  {name:14} {format_number(value)}" for name, value in file_figures(found).items()]
    return "\n".join([*lines, *(f"  note           {note}" for note in found.notes)])


def describe_port(port: Port) -> str:
    """Name, shape, dtype and quantization of an input or output."""
    words = " ".join((port.name, *([] if port.dtype in CONTAINERS else [describe_shape(port)]), port.dtype))
    if port.quantization is None:
        return words
    scale, zero_point = port.quantization
    return f"{words}, real value = {scale:.6g} * (stored {'+' if zero_point < 0 else '-'} {abs(zero_point)})"


def describe_shape(port: Port) -> str:
    if not port.known_rank:
        return "any shape"
    return "scalar" if port.scalar else f"[{', '.join('any' if side is None else str(side) for side in port.shape)}]"


def file_figures(found: Inspection) -> Mapping[str, int | None]:
    return {"parameters": found.parameters, "multiply-adds": found.multiply_adds} if found.parameters is not None else {}


def format_number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def read_formats(conf: Path) -> dict[str, Mapping[str, Any]]:
    """{format: {"sources": ..., "schemes": ...}} of the formats in conf/format/."""
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((conf / "format").glob("*.yaml"))}
    return {name: {"sources": schema.part(form["module"], "make").SOURCES, "schemes": list(form["schemes"])} for name, form in read.items()}
