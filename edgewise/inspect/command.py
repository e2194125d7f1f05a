"""What a model file expects and is, and the sections of params.yaml with which it runs."""

import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from edgewise.config import schema
from edgewise.errors import MissingExtra, ModelError
from edgewise.inspect import suggestion
from edgewise.proof import isolation
from edgewise.sources.inspection import Inspection, Port

CONF, PARAMS = Path("conf"), Path("params.yaml")
SHOWN_OPERATORS = 12


def importers(conf: Path) -> Iterator[ModuleType]:
    """Each importer of conf/model/ that can look at a file."""
    modules = [yaml.safe_load(path.read_text(encoding="utf-8"))["module"] for path in sorted((conf / "model").glob("*.yaml"))]
    for name in dict.fromkeys(modules):
        module = importlib.import_module(name)
        if hasattr(module, "recognizes"):
            yield module


def find(path: Path, conf: Path = CONF) -> ModuleType:
    """The importer that knows files of this kind. ModelError where there is none."""
    if not path.exists():
        raise ModelError(f"{path} does not exist; name a model file")
    known = list(importers(conf))
    found = next((module for module in known if module.recognizes(path)), None)
    if found is None:
        kinds = ", ".join(kind for module in known for kind in module.RECOGNIZED)
        raise ModelError(f"{path} is no model file that Edgewise knows by its first bytes; it reads: {kinds}")
    return found


def examine(path: Path, conf: Path = CONF) -> tuple[ModuleType, Inspection]:
    """In a process of its own: foreign files may abort what reads them."""
    importer = find(path, conf)

    def aborted(how: str) -> ModelError:
        return ModelError(f"{path} makes the library that reads it abort ({how}); export it again")

    try:
        return importer, isolation.call(importer.look, path, aborted=aborted)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in importer.REQUIRES:
            raise
        raise MissingExtra(package, importer.REQUIRES[package]) from None


def describe(path: Path, found: Inspection) -> str:
    lines = [f"{path}: {found.kind}"]
    for side, ports in (("input", found.inputs), ("output", found.outputs)):
        lines += [f"  {side:14} {told(port)}" for port in ports]
    if found.operators:
        counts = sorted(found.operators.items(), key=lambda entry: (-entry[1], entry[0]))
        rest = f" and {len(counts) - SHOWN_OPERATORS} kinds more" if len(counts) > SHOWN_OPERATORS else ""
        lines.append("  operators      " + ", ".join(f"{count} {name}" for name, count in counts[:SHOWN_OPERATORS]) + rest)
    lines += [f"  {name:14} {number(value)}" for name, value in figures(found).items()]
    return "\n".join([*lines, *(f"  note           {note}" for note in found.notes)])


def told(port: Port) -> str:
    sides = ", ".join("any" if side is None else str(side) for side in port.shape)
    if port.quantization is None:
        return f"{port.name} [{sides}] {port.dtype}"
    scale, zero_point = port.quantization
    return f"{port.name} [{sides}] {port.dtype}, real value = {scale:.6g} * (stored {'+' if zero_point < 0 else '-'} {abs(zero_point)})"


def figures(found: Inspection) -> Mapping[str, int | None]:
    return {"parameters": found.parameters, "multiply-adds": found.multiply_adds} if found.parameters is not None else {}


def number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def formats(conf: Path) -> dict[str, Mapping[str, Any]]:
    """Name, declared sources and schemes of each format."""
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((conf / "format").glob("*.yaml"))}
    return {name: {"sources": schema.part(form["module"], "make").SOURCES, "schemes": list(form["schemes"])} for name, form in read.items()}


def show(path: Path, project: Path, data: str | None, schemes: Sequence[str], *, full: bool) -> None:
    """Print what the file is and the YAML with which it runs.

    project: the folder of conf/ and params.yaml. data: the user's data, for the YAML. full: print all of params.yaml with these sections
    in it, and what the file is on stderr.
    """
    importer, found = examine(path, project / CONF)
    print(describe(path, found), file=sys.stderr if full else sys.stdout)
    if found.model is None:
        return
    text = suggestion.text(found, importer.FORMAT, formats(project / CONF), data, schemes)
    if full:
        print(suggestion.replaced((project / PARAMS).read_text(encoding="utf-8"), text), end="")
    else:
        print(f"\n# for params.yaml, in the place of the sections of these names\n{text}", end="")
