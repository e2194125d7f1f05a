"""Sections as the text of params.yaml: YAML with comments, and put in the place of those that are there."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

WIDTH = 140
NUMBER = re.compile(r"[-+]?(\d[\d_]*)?\.?[\d_]*([eE][-+]?\d+)?|0[ox][\da-fA-F]+")  # what YAML 1.2 and OmegaConf read as one
BLOCK = re.compile(r"^(?=[A-Za-z_][A-Za-z_0-9]*:)", re.MULTILINE)  # a key at the top level begins a section


@dataclass(frozen=True)
class Section:
    """values: a mapping, or a plain value. remarks: comments by key of it. head: lines of comment above it. tail: the same, below it."""

    values: Any
    remarks: Mapping[str, str] = field(default_factory=dict)
    head: Sequence[str] = ()
    tail: Sequence[str] = ()


def write_sections(sections: Mapping[str, Section]) -> str:
    return "".join("\n".join([*write_section(name, section), ""]) for name, section in sections.items())


def write_section(name: str, section: Section) -> Iterator[str]:
    yield from comment(section.head)
    if is_flat(section):
        yield from dump(name, section.values)
        yield from comment(section.tail)
        return
    yield f"{name}:"
    for key, value in section.values.items():
        yield from ("  " + line for line in write_entry(key, value, section.remarks.get(key)))
    yield from ("  " + line for line in comment(section.tail))


def is_flat(section: Section) -> bool:
    """Whether it fits on one line."""
    values = section.values
    return not isinstance(values, Mapping) or (not section.remarks and not any(isinstance(value, Mapping) for value in values.values()))


def comment(lines: Sequence[str]) -> Iterator[str]:
    for line in lines:
        yield from (f"# {part}" for part in textwrap.wrap(line, WIDTH - 4, break_long_words=False, break_on_hyphens=False) or [""])


def write_entry(key: str, value: Any, remark: str | None) -> Iterator[str]:
    lines = dump(key, value)
    if remark and len(lines) == 1 and len(lines[0]) + len(remark) < WIDTH - 6:
        yield f"{lines[0]} # {remark}"
        return
    yield from comment([remark] if remark else [])
    yield from lines


def dump(key: str, value: Any) -> list[str]:
    flow = None if isinstance(value, (Mapping, list, tuple)) else False
    written = yaml.dump({key: value}, Dumper=Quoting, sort_keys=False, default_flow_style=flow, width=WIDTH, allow_unicode=True)
    return written.splitlines()


class Quoting(yaml.SafeDumper):
    """Quotes words that other readers of YAML take for numbers, such as an input named 1e3."""


def _write_text(dumper: Quoting, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="'" if NUMBER.fullmatch(text) else None)


Quoting.add_representer(str, _write_text)


def replace_sections(params: str, sections: str) -> str:
    """The text of params.yaml with the sections of the same names replaced, in their places; new ones follow at the end.

    Other sections and their comments stay unchanged.
    """
    new = dict(split_sections(sections))
    head, *blocks = split_sections(params)
    placed = "".join([head[1], *(new.pop(name, text) for name, text in blocks)])
    rest = "".join(new.values())
    return placed + ("\n" if rest and placed and not placed.endswith("\n") else "") + rest


def split_sections(text: str) -> list[tuple[str, str]]:
    """(key, its lines), comments that stand right above a key with it; first what stands before any key, under the key ''."""
    found: list[tuple[str, str]] = [("", "")]
    waiting = ""
    for line in text.splitlines(keepends=True):
        key = line.partition(":")[0]
        if line.startswith("#"):
            waiting += line
        elif BLOCK.match(line):
            found.append((key, waiting + line))
            waiting = ""
        else:
            found[-1] = (found[-1][0], found[-1][1] + waiting + line)
            waiting = ""
    return [*found[:-1], (found[-1][0], found[-1][1] + waiting)]
