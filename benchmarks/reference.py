"""The pages of docs/reference, written from the code that they describe.

python -m benchmarks.reference            writes the pages
python -m benchmarks.reference --check    writes nothing; exit code 1 where a page says something else
"""

import dataclasses
import importlib
import os
import re
import sys
import types
import typing
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from edgewise import errors
from edgewise.agent.decoding import CHOICES, COMMON
from edgewise.agent.detectors import HEADS
from edgewise.agent.protocol import DETERMINISTIC, FAULTS
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.records import BenchResult, Evaluation, Failed, Summary
from edgewise.cli.commands import COMMANDS
from edgewise.cli.main import tree
from edgewise.config import schema
from edgewise.config.choices import MARGIN, MARGINS
from edgewise.config.compose import SECTIONS

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs/reference"
NOTE = "<!-- Written by `python -m benchmarks.reference`; edit the code or the YAML file that it describes. -->"
PLUGINS = ("data", "model", "task", "device")  # whose options name a module with Settings
TYPED: dict[str, type] = {"train": schema.Train, "bench": schema.Bench, "budget": schema.Budget}
COMMENT = re.compile(r"^\s*(?P<key>[\w-]+):\s*(?P<value>[^#]*?)\s*(?:#\s*(?P<text>.*))?$")
ABOUT = {
    "data": "What the model is calibrated and judged on. In brackets: the options that have a setting, if not all do; *pictures* are "
    "all with `image_size`.",
    "model": "The source: trained here, or a file of your own.",
    "task": "What is judged.",
    "train": "How a model is trained. A file of your own is not trained.",
    "device": "Where variants are measured.",
    "bench": "How long and what is measured.",
    "budget": "Limits. The report chooses the best variant that keeps them, and the bundle holds it.",
}
FILES = {
    "metrics/summary.json": (Summary, "Everything that the report says, written by the stage report."),
    "metrics/bench/VARIANT.json": (BenchResult, "One variant as measured on the device; `Failed` where it could not be."),
    "metrics/evaluate/VARIANT.json": (Evaluation, "One variant as judged on the test split; `Failed` where it could not be."),
    "metrics/*/VARIANT.json of a variant that failed": (Failed, "The reason, in place of a result."),
    "models/variants/VARIANT/manifest.json": (Manifest, "What a variant is: files, ports, proof."),
}


@dataclass(frozen=True)
class Setting:
    """One setting of one option. default, allowed: as text."""

    key: str
    kind: str
    default: str
    allowed: str
    help: str


def configuration() -> str:
    """Every section of params.yaml: its options, and every setting of them."""
    parts = [
        "# Configuration",
        "What each setting of `params.yaml` means, and what it may be. A section names one option, a YAML file of `conf/SECTION/`, and "
        "changes any of its settings. `null` keeps the value of that file; the word `none` removes a limit.",
        "    data: {name: yolo, path: coco128/data.yaml, image_size: 416}",
        "The same on the command line, for one experiment: `dvc exp run -S data.name=yolo -S data.path=coco128/data.yaml`. A setting that "
        "params.yaml does not list yet is added with `++`: `-S ++data.image_size=416`.",
        "`seed` (an integer) makes a run repeatable. `reference` names the variant that all others are compared with. "
        "`experiment` names the experiment and the registered model in MLflow (`null`: MODEL-DATA). `tracking_uri` is the MLflow server or "
        "database that runs are written to (`null`: `mlflow.db` in the project); `MLFLOW_TRACKING_URI` takes precedence.",
        *(describe_section(group) for group in ("data", "model", "task")),
        describe_heads(),
        *(describe_section(group) for group in SECTIONS if group not in ("data", "model")),
        "## variants",
        "`NAME: {format: F, scheme: S, ...}`. The name is `<format>-<scheme>`, with more behind it if you like: `onnx-int8-static-slim`. "
        "Every variant may have these settings; a format offers the ones that its own table lists for a scheme.",
        table(settings_of(schema.Variant, skip=("name", "format", "scheme", "module", "engine", "file"))),
        describe_schemes(),
        *(describe_format(path) for path in option_files("format")),
    ]
    return "\n\n".join(parts)


def describe_section(group: str) -> str:
    options = {path.stem: path for path in option_files(group)}
    listed = [f"- `{name}`: {first_comment(path)}" for name, path in options.items()]
    found = {name: option_settings(group, path) for name, path in options.items()}
    return "\n\n".join([f"## {group}", ABOUT[group], "\n".join(listed), merged_table(found)])


def option_files(group: str) -> list[Path]:
    return sorted((ROOT / "conf" / group).glob("*.yaml"))


def first_comment(path: Path) -> str:
    """The comment at the head of the file, up to its first example."""
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("# ") or line.startswith("#   "):
            break
        lines.append(line[2:].strip())
    return " ".join(lines).replace("*", "\\*") or "see the file"  # path/*.jpg begins no emphasis


def option_settings(group: str, path: Path) -> list[Setting]:
    """The settings of one option, with the defaults of its YAML file."""
    given = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    kind = importlib.import_module(given["module"]).Settings if group in PLUGINS else TYPED[group]
    return settings_of(kind, given, skip=("name",), comments=comments_of(path)) + find_margin(group, given)


def find_margin(group: str, given: Mapping[str, Any]) -> list[Setting]:
    """The key `margin`, which compose takes out of its section (config.choices)."""
    return [
        dataclasses.replace(setting, key=MARGIN)
        for setting in settings_of(schema.Margins, {setting: given.get(MARGIN) for setting in MARGINS.values()})
        if MARGIN in given and setting.key == MARGINS.get(group)
    ]


def comments_of(path: Path) -> dict[str, str]:
    """The comment behind each key of the top level."""
    found = (COMMENT.match(line) for line in path.read_text(encoding="utf-8").splitlines() if line[:1].isalpha())
    return {match["key"]: match["text"] for match in found if match and match["text"]}


def settings_of(
    kind: type,
    given: Mapping[str, Any] | None = None,
    prefix: str = "",
    skip: Iterable[str] = (),
    comments: Mapping[str, str] | None = None,
) -> list[Setting]:
    """The fields of a dataclass, those of nested ones by dotted key. given: values that replace the defaults."""
    hints, found = typing.get_type_hints(kind), []
    for field in dataclasses.fields(kind):
        if field.name in skip:
            continue
        inner, value = strip_optional(hints[field.name]), (given or {}).get(field.name)
        if dataclasses.is_dataclass(inner):
            found += settings_of(typing.cast(type, inner), value if isinstance(value, Mapping) else None, f"{prefix}{field.name}.")
            continue
        text = field.metadata.get("help") or (comments or {}).get(field.name, "")
        found.append(Setting(prefix + field.name, name_type(hints[field.name]), default_of(field, given), allowed_values(field), text))
    return found


def strip_optional(kind: Any) -> Any:
    inner = [each for each in typing.get_args(kind) if each is not type(None)]
    return inner[0] if typing.get_origin(kind) in (types.UnionType, typing.Union) and inner else kind


def name_type(kind: Any) -> str:
    """int, float, str, list of int ... in the words of the page."""
    inner = strip_optional(kind)
    if typing.get_origin(inner) is tuple:
        return f"list of {name_type(typing.get_args(inner)[0])}"
    if typing.get_origin(inner) is dict or inner is dict:
        return "mapping"
    words = {"int": "integer", "float": "number", "str": "string", "bool": "true or false", "Any": "any"}
    return words.get(getattr(inner, "__name__", ""), str(inner))


def default_of(field: Any, given: Mapping[str, Any] | None) -> str:
    if given is not None and field.name in given:
        value = given[field.name]
    elif field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        return "you give it"
    return "you give it" if value == "???" else as_code(value)


def as_code(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(as_code(each) for each in value)}]"
    return "{}" if value == {} else str(value)


def allowed_values(field: Any) -> str:
    low, high, choices = (field.metadata.get(name) for name in ("low", "high", "choices"))
    if choices:
        return ", ".join(as_code(each) for each in choices)
    if low is None and high is None:
        return ""
    return f"{low:g} to {high:g}" if None not in (low, high) else f"{low:g} or more" if high is None else f"up to {high:g}"


def merged_table(found: Mapping[str, Sequence[Setting]]) -> str:
    """One table for the options of a section: the default that most have, and the options that have the setting if not all do."""
    by_key: dict[str, dict[str, Setting]] = {}
    for option, settings in found.items():
        for setting in settings:
            by_key.setdefault(setting.key, {})[option] = setting
    pictures = by_key.get("image_size", {}).keys()
    return table(merge(each, found.keys(), pictures) for each in by_key.values())


def merge(settings: Mapping[str, Setting], options: Collection[str], pictures: Collection[str]) -> Setting:
    """pictures: the options that read pictures, which are not listed one by one."""
    common, _ = Counter(setting.default for setting in settings.values()).most_common(1)[0]
    others = [f"{name}: {setting.default}" for name, setting in settings.items() if setting.default != common]
    first = next(setting for setting in settings.values() if setting.default == common)
    whose = "" if settings.keys() == set(options) else f" ({'pictures' if settings.keys() == set(pictures) else ', '.join(settings)})"
    default = common if len(others) > 4 or not others else f"{common}; {', '.join(others)}"
    default = f"{common}; others in conf/" if len(others) > 4 else default
    return dataclasses.replace(first, default=default, help=f"{first.help}{whose}".strip())


def table(settings: Iterable[Setting]) -> str:
    rows = [(f"`{s.key}`", s.kind, cell(s.default), cell(s.allowed), cell(s.help)) for s in settings]
    if not rows:
        return "It has no settings."
    head = [("setting", "type", "default", "allowed", "meaning"), ("---",) * 5]
    return "\n".join("| " + " | ".join(row) + " |" for row in (*head, *rows))


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def describe_heads() -> str:
    """How boxes are read from the outputs of a detector: `task.decoding`."""
    rows = [
        f"| `{name}` | {', '.join([*(f'`{role}`' for role in head.roles), *(f'`{role}` (optional)' for role in head.optional)]) or 'any'} "
        f"| {cell(', '.join(f'`{key}: {as_code(value)}`' for key, value in head.settings.items()))} | {as_code(head.nms_threshold)} |"
        for name, head in HEADS.items()
    ]
    choices = "; ".join(f"`{key}` {', '.join(map(as_code, values))}" for key, values in CHOICES.items())
    common = ", ".join(f"`{key}: {as_code(value)}`" for key, value in COMMON.items())
    return "\n\n".join(
        [
            "### Heads of detectors",
            "`task.decoding` says how boxes are read: `{head: yolo, outputs: {predictions: output0}, ...}`. `edgewise inspect` finds "
            "the head that fits and prints it. `outputs` maps the roles of a head to names of the model's outputs.",
            "| head | roles | its own settings | `nms_threshold` |\n| --- | --- | --- | --- |\n" + "\n".join(rows),
            f"Of all heads: {common}, `multi_label`, `nms_threshold` (null: no suppression). Allowed: {choices}.",
            "`callable: package.module:function` is your own: it gets the outputs of one sample by name and the spec, and returns corners "
            "[k, 4] in pixels of the model's input, scores [k, classes] or [k], and in the second case classes [k].",
        ]
    )


def describe_schemes() -> str:
    """When to use each scheme, from conf/scheme/."""
    rows = []
    for path in option_files("scheme"):
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append(f"| `{path.stem}` | {cell(str(given.get('use', '')))} | {given['min_sqnr_db']} | {given['min_device_sqnr_db']} |")
    head = "| scheme | when to use it | least SQNR to the source, dB | least SQNR between machines, dB |\n| --- | --- | --- | --- |"
    return "\n\n".join(["### Schemes", "\n".join([head, *rows])])


def describe_format(path: Path) -> str:
    """What each scheme of a format lets the user change, and the settings of its runtime, with the comments of its YAML file."""
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    make, run = (importlib.import_module(f"{given['module']}.{name}") for name in ("make", "run"))
    schemes = [
        f"| `{name}` | {cell(', '.join(f'`{key}: {as_code(value)}`' for key, value in flat(settings or {})) or 'none')} |"
        for name, settings in given["schemes"].items()
    ]
    values = {f"{scheme}: {key}": ", ".join(map(as_code, few)) for scheme, each in make.SETTINGS.items() for key, few in each.items()}
    comments = nested_comments(path)
    engine = [
        f"| `engine.{key}` | {as_code(value)} | {cell(engine_values(key, run.ENGINE))} | {cell(comments.get(key, ''))} |"
        for key, value in (given.get("engine") or {}).items()
    ]
    parts = [f"### Format {path.stem}", "| scheme | its settings and their defaults |\n| --- | --- |\n" + "\n".join(schemes)]
    if values:
        parts.append("Allowed: " + "; ".join(f"`{key}` {text}" for key, text in values.items()) + ".")
    parts.append("| setting of the runtime | default | allowed | meaning |\n| --- | --- | --- | --- |\n" + "\n".join(engine))
    return "\n\n".join(parts)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def engine_values(key: str, engine: Mapping[str, Any]) -> str:
    if key == "auto":
        return "latency, memory"
    values = engine.get(key)
    if values is None:
        return "what the runtime knows"
    return f"{values[0]} to {values[-1]}" if isinstance(values, range) else ", ".join(map(as_code, values))


def nested_comments(path: Path) -> dict[str, str]:
    """The comment behind each key, at any depth; where a key is there twice, the first."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = COMMENT.match(line)
        if match and match["text"]:
            found.setdefault(match["key"], match["text"])
    return found


def commands() -> str:
    """The help of every command, as the terminal shows it."""
    os.environ["COLUMNS"] = "100"
    parsers = tree()
    parts = ["# Commands", "`edgewise COMMAND --help` prints the same. `dvc repro` runs the pipeline; these stand beside it."]
    for name, command in COMMANDS.items():
        text = parsers.commands[name].format_help().rstrip()
        parts.append(f"## edgewise {name}\n\n{command.summary[:1].upper()}{command.summary[1:]}.\n\n```text\n{text}\n```")
    return "\n\n".join(parts)


def files() -> str:
    """The records in metrics/ and the manifest, field by field."""
    parts = [
        "# Files",
        "What the JSON files of a run hold. Units stand in the names: `_ms`, `_bytes`, `_db`, `_share` (0 to 1), `_ci95` (a 95 % "
        "interval). `null` means that it is not known. Each file has a number `schema`; a file of another schema is refused.",
    ]
    described: set[type] = set()
    for place, (kind, text) in FILES.items():
        parts.append(f"## {place}\n\n{text}\n\n{describe_record(kind)}")
        described.add(kind)
    waiting = [inner for kind in described for inner in records_in(kind)]
    nested: dict[str, type] = {}
    while waiting:
        kind = waiting.pop()
        if kind not in described:
            described.add(kind)
            nested[kind.__name__] = kind
            waiting += records_in(kind)
    parts += [f"## {name}\n\n{describe_record(nested[name])}" for name in sorted(nested)]
    return "\n\n".join(parts)


def describe_record(kind: type) -> str:
    hints = typing.get_type_hints(kind)
    rows = [f"| `{field.name}` | {cell(type_text(hints[field.name]))} |" for field in dataclasses.fields(kind)]
    text = " ".join((kind.__doc__ or "").split()) if not (kind.__doc__ or "").startswith(f"{kind.__name__}(") else ""
    return "\n\n".join(filter(None, [cell(text), "| field | type |\n| --- | --- |\n" + "\n".join(rows)]))


def type_text(kind: Any) -> str:
    if isinstance(kind, type) and not typing.get_args(kind):
        return (
            f"[{kind.__name__}](#{kind.__name__.lower()})" if dataclasses.is_dataclass(kind) else kind.__name__.replace("NoneType", "null")
        )
    origin, inner = typing.get_origin(kind), [each for each in typing.get_args(kind) if each is not Ellipsis]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_text(each) for each in inner)
    if origin is tuple:
        return f"list of {type_text(inner[0])}"
    if origin in (dict, Mapping) or getattr(origin, "__name__", "") in ("dict", "Mapping"):
        return f"mapping to {type_text(inner[1])}"
    return str(kind).replace("typing.", "")


def records_in(kind: type) -> list[type]:
    """The dataclasses that the fields of a record hold."""
    found: list[type] = []
    waiting = list(typing.get_type_hints(kind).values())
    while waiting:
        each = waiting.pop()
        if dataclasses.is_dataclass(each):
            found.append(typing.cast(type, each))
        waiting += typing.get_args(each)
    return found


def error_page() -> str:
    """The error tree with its exit codes, and what to do about each fault of a device."""
    shown = (errors.__doc__ or "").split("\n\n")
    ends = dict.fromkeys(DETERMINISTIC, "the variant") | {"runtime_missing": "the variant; the run if it is numpy that is missing"}
    rows = [f"| `{word}` | {cell(text)} | {ends.get(word, 'the run')} |" for word, text in FAULTS.items()]
    return "\n\n".join(
        [
            "# Errors and faults",
            "A mistake ends the command with one line: the bad value, what is allowed, the next step. The exit code says whose it is.",
            f"```text\n{shown[1]}\n```",
            "A variant that cannot be made, judged or measured is recorded with its reason, and the others go on.",
            "## Faults of a device",
            "What stands in front of the message when a device did not deliver. A fault that belongs to the variant is its result; any "
            "other ends the run, and the same command goes on from there.",
            "| fault | what to do | ends |\n| --- | --- | --- |\n" + "\n".join(rows),
        ]
    )


WRITERS: dict[str, Callable[[], str]] = {"configuration": configuration, "commands": commands, "files": files, "errors": error_page}


def pages() -> dict[Path, str]:
    return {PAGES / f"{name}.md": f"{NOTE}\n\n{write()}\n" for name, write in WRITERS.items()}


def main() -> None:
    made = pages()
    if sys.argv[1:] == ["--check"]:
        old = [str(path.relative_to(ROOT)) for path, text in made.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
        sys.exit(f"{', '.join(old)}: out of date; run `python -m benchmarks.reference`" if old else 0)
    if sys.argv[1:]:
        sys.exit(f"unknown argument {sys.argv[1]!r}; allowed: --check")
    PAGES.mkdir(exist_ok=True)
    for path, text in made.items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(text.split())} words")


if __name__ == "__main__":
    main()
