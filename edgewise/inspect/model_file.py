"""`edgewise inspect`: what a model file takes and gives, and the sections of params.yaml with which it runs."""

import contextlib
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from edgewise.config import schema
from edgewise.config.runtimes import MISSING, own_packages, version
from edgewise.errors import EdgewiseError, MissingExtra, ModelError
from edgewise.inspect import suggestion
from edgewise.inspect.meanings import Guess, guess_ports
from edgewise.inspect.params_text import replace_sections, write_sections
from edgewise.inspect.sections import METHOD, Formats
from edgewise.proof import isolation
from edgewise.sources.inspection import CONTAINERS, Inspection, Port, check_stand_in, one_line

CONF, PARAMS = Path("conf"), Path("params.yaml")
SHOWN_OPERATORS = 12
HEADER = "# for params.yaml, in place of its sections with the same names"
OF_ALL = re.compile(r"""edgewise\[([^]]*)\]\s*;\s*extra == ['"]all['"]""")  # in the metadata of the package


@dataclass(frozen=True)
class Destination:
    """Where the YAML goes. full: all of params.yaml with the sections in it, and what the file is on stderr; output: a file that gets all
    of it in place of stdout."""

    full: bool = False
    output: Path | None = None

    @property
    def whole(self) -> bool:
        return self.full or self.output is not None

    def say(self, text: str) -> None:
        """Print a line for the reader: on stderr where stdout is params.yaml."""
        print(text, file=sys.stderr if self.full and not self.output else sys.stdout, flush=True)


def print_inspection(path: Path, project: Path, data: str | None, schemes: Sequence[str], to: Destination, *, template: Path) -> None:
    """Print what the file is and the YAML with which it runs.

    project: the folder of conf/ and params.yaml; template: that of a new project. data: the user's data, for the YAML.
    """
    params = read_params(project, template) if to.whole else ""
    with never_left_empty(project / PARAMS, params):
        importer, found = inspect_file(path, project / CONF)
        to.say(describe_file(path, found))
        if found.model is None:
            return
        asked = suggestion.Asked(path, importer, project / CONF, read_formats(project / CONF), data, tuple(schemes))
        sections, notes = suggestion.suggest(found, asked)
        for note in notes:
            to.say(f"  {note}")
        text = write_sections(sections)
        if to.output:
            for key, comment in list_comments(text):
                to.say(f"  {'check' if key else 'note':<15}{key}{': ' if key else ''}{comment}")
            write_whole(to.output, replace_sections(params, text))
            print(f"written: {to.output}; next: dvc repro")
        else:
            print(replace_sections(params, text) if to.full else f"\n{HEADER}\n{text}", end="")


def list_comments(text: str) -> Iterator[tuple[str, str]]:
    """What the comments of the sections say, with the key of the line: guesses to confirm, and why a setting is as it is. Without a key
    those with a line of their own, which say what is missing."""
    ends: dict[int, int] = {}  # line -> where its last word of YAML ends: a # before that belongs to a value
    for token in yaml.scan(text):
        ends[token.end_mark.line] = max(ends.get(token.end_mark.line, 0), token.end_mark.column)
    for number, line in enumerate(text.splitlines()):
        mark, comment = line[ends.get(number, 0) :].partition("# ")[1:]
        if mark:
            key = line[: ends.get(number, 0)].partition(":")[0].strip()
            yield key, comment


def write_whole(path: Path, text: str) -> None:
    """Replace the file in one step: whatever happens, the old or the new one is there."""
    written = path.with_name(f".{path.name}.edgewise")
    written.write_text(text, encoding="utf-8")
    written.replace(path)


@contextlib.contextmanager
def never_left_empty(path: Path, content: str) -> Iterator[None]:
    """Print `content` where stdout is the file at `path` and nothing else went there: a shell has emptied it for `> params.yaml`."""
    try:
        yield
    finally:
        sys.stdout.flush()
        if content and is_stdout(path) and path.stat().st_size == 0:
            print(content, end="", flush=True)


def is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(sys.stdout.fileno()), path.stat())
    except OSError:  # no such file, or stdout is none (io.UnsupportedOperation)
        return False


def read_params(project: Path, template: Path) -> str:
    """The text of params.yaml. Where `edgewise inspect FILE --full > params.yaml` has emptied it, that of the last commit, or a new one."""
    path = project / PARAMS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if text.strip():
        return text
    emptied = " (a shell empties the file of `>` first; `--output params.yaml` keeps what is not committed)" if is_stdout(path) else ""
    try:
        done = subprocess.run(["git", "show", f"HEAD:./{PARAMS}"], cwd=project, capture_output=True, text=True, check=False)
    except OSError:
        done = None
    committed = done.stdout if done is not None and done.returncode == 0 else ""
    whose = "the last commit" if committed.strip() else "a new project"
    print(f"  params.yaml is empty{emptied}: its other sections are those of {whose}", file=sys.stderr)
    return committed if committed.strip() else (template / PARAMS).read_text(encoding="utf-8")


def inspect_file(path: Path, conf: Path = CONF) -> tuple[ModuleType, Inspection]:
    """Inspect a file in a separate process, which a malformed file may abort. Raises ModelError, or MissingExtra for a missing package."""
    importer = find_importer(path, conf)

    def aborted(how: str) -> ModelError:
        return ModelError(f"{path} aborts the library that reads it ({how}); export the model again")

    try:
        return importer, isolation.call_isolated(inspect_alone, importer.__name__, path, aborted=aborted)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package not in importer.REQUIRES:
            raise
        raise MissingExtra(package, importer.REQUIRES[package]) from None


def inspect_alone(importer: str, path: Path) -> Inspection:
    """What the importer says of the file. ModelError for whatever a library raises on a damaged one."""
    package, _, name = importer.rpartition(".")
    module = schema.part(package, name)
    try:
        found: Inspection = module.inspect(path)
    except (EdgewiseError, ModuleNotFoundError):
        raise
    except Exception as error:
        kinds = ", ".join(module.RECOGNIZED)
        raise ModelError(
            f"{path} cannot be read as {kinds}: {type(error).__name__}: {one_line(error)}; it is damaged or truncated, or uses"
            " something that is not supported yet: export the model again"
        ) from error
    return found


def find_importer(path: Path, conf: Path = CONF) -> ModuleType:
    """The importer for files of this kind, told by their first bytes. Raises ModelError where none fits."""
    if not path.exists():
        raise ModelError(f"{path} does not exist; give the path of a model file")
    if not (path.is_file() or path.is_dir()) or not os.access(path, os.R_OK):
        raise ModelError(f"{path} cannot be read: no permission; make it readable")
    check_stand_in(path)
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
    guesses = guess_ports(found)
    lines = [f"{path}: {found.kind}"]
    for side, ports in (("input", guesses.inputs), ("output", guesses.outputs)):
        lines += [f"  {side:14} {describe_port(guess.port)}  ({words_of(guess)})" for guess in ports]
    if found.operators:
        counts = sorted(found.operators.items(), key=lambda entry: (-entry[1], entry[0]))
        rest = f" and {len(counts) - SHOWN_OPERATORS} more kinds" if len(counts) > SHOWN_OPERATORS else ""
        lines.append("  operators      " + ", ".join(f"{count} {name}" for name, count in counts[:SHOWN_OPERATORS]) + rest)
    lines += [f"  {name:14} {format_number(value)}" for name, value in file_figures(found).items()]
    return "\n".join([*lines, *(f"  note           {note}" for note in found.notes)])


def words_of(guess: Guess) -> str:
    """What the port probably is; that it is a guess stands there."""
    return f"probably {guess.words}" if guess.words else "of unknown meaning"


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


def read_formats(conf: Path) -> Formats:
    """The formats in conf/format/, and which of them lack a package here."""
    read = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted((conf / "format").glob("*.yaml"))}
    every = {name: {**read_make(form["module"]), "schemes": list(form["schemes"])} for name, form in read.items()}
    missing = {name: extra for name, form in read.items() if (extra := missing_extra(form["module"]))}
    usual = extras_of_all()
    return Formats(every, missing, frozenset(name for name, extra in missing.items() if usual and extra not in usual))


def read_make(module: str) -> dict[str, Any]:
    """The kinds of sources that a format reads, and for each scheme its values of calibration.method."""
    make = schema.part(module, "make")
    return {"sources": make.SOURCES, "methods": {scheme: given.get(METHOD, ()) for scheme, given in make.SETTINGS.items()}}


def missing_extra(module: str) -> str | None:
    """The extra of a format that installs what makes and runs its files, if any of that is missing. module: edgewise.formats.NAME."""
    return next((extra for package, extra in own_packages(module).items() if version(package) == MISSING), None)


def extras_of_all() -> set[str]:
    """The extras that `edgewise[all]` installs; none where the package has no metadata, as in a checkout that was never installed."""
    try:
        requirements = metadata.requires("edgewise") or []
    except metadata.PackageNotFoundError:
        return set()
    named = (OF_ALL.match(requirement) for requirement in requirements)
    return {extra.strip() for found in named if found for extra in found[1].split(",")}
