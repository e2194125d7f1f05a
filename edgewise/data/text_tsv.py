"""Sentences with a label, one per line: text, tab, label. Quotes are part of the text; for quoted fields see text_csv.

One file, or a folder with train.tsv, dev.tsv (validation) and test.tsv, which are then the splits.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.targets import NONE
from edgewise.config.settings import option
from edgewise.data.text_files import Columns, Kind, Record, TextFileSettings, probe_files, read_items, read_text
from edgewise.data.wordpiece import WordPieceEncoder
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

KIND = Kind((".tsv",), "give a file of lines with text, tab, label, or a folder with train.tsv, dev.tsv and test.tsv", "line")
encoder = WordPieceEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(TextFileSettings):
    text_column: int = option(0, "index of the column, from 0", low=0)
    label_column: int | None = option(1, "index of the column, from 0; null: there are no labels", low=0)
    header: bool = option(False, "whether the first line holds column names")


def probe(settings: Settings) -> Mapping[str, Any]:
    return probe_files(settings, KIND) | ({"targets": NONE} if settings.label_column is None else {})


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    columns = Columns((settings.text_column,), None if settings.targets == NONE else settings.label_column)
    yield from read_items(settings, KIND, lambda path: (columns, read_lines(path, settings.header)))


def read_lines(path: Path, header: bool) -> Sequence[Record]:
    lines = read_text(path, KIND).replace("\r\n", "\n").rstrip("\n").split("\n")
    return [(number, line.split("\t")) for number, line in enumerate(lines, 1)][int(header) :]
