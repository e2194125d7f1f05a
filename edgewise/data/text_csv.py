"""Sentences in CSV files: any delimiter, quoted fields, a header, one or more columns of text, labels or none.

One file, or a folder with train.csv, dev.csv (validation) and test.csv, which are then the splits.
"""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgewise.artifacts.targets import NONE
from edgewise.config.settings import nearest, option
from edgewise.data.common import sort_numerically
from edgewise.data.text_files import Columns, Kind, Record, TextFileSettings, probe_files, read_items, read_text
from edgewise.data.wordpiece import WordPieceEncoder
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Item, Unreadable

__all__ = ["Settings", "encoder", "items", "probe"]

KIND = Kind((".csv", ".tsv"), "give a CSV file, or a folder with train.csv, dev.csv and test.csv", "record")
AUTO = "auto"
DELIMITERS = (",", ";", "\t", "|")  # that `auto` tries
RESERVED = '"\r\n'  # by the rules of CSV
TRIED_RECORDS = 20
encoder = WordPieceEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(TextFileSettings):
    delimiter: str = option(AUTO, "one character; auto: comma, semicolon, tab or bar, whichever divides the first records alike")
    quoted: bool = option(True, 'whether fields may stand in double quotes, with "" for a quote in them')
    header: bool = option(True, "whether the first record holds column names")
    text_columns: tuple[Any, ...] = option(("text",), "columns of the text, by name or by number from 0; several are joined")
    separator: str = option(" ", "between the texts of several columns")
    label_column: Any = option("label", "column of the label, by name or by number from 0; none: there are no labels")
    names: dict[str, str] = option({}, "names of the labels: {0: negative, 1: positive}; empty: as they are")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.delimiter != AUTO and (len(self.delimiter) != 1 or self.delimiter in RESERVED):
            raise ConfigError(f"data.delimiter: {self.delimiter!r} must be one character, or {AUTO}; no quote and no line break")
        if not self.text_columns:
            raise ConfigError("data.text_columns: empty; name one column or more")
        given = (*self.text_columns, *([self.label_column] if self.labelled else []))
        wrong = next((c for c in given if isinstance(c, bool) or not isinstance(c, (str, int)) or (isinstance(c, int) and c < 0)), None)
        if wrong is not None:
            raise ConfigError(f"data.text_columns, data.label_column: {wrong!r} must be the name of a column, or its number from 0")

    @property
    def labelled(self) -> bool:
        return self.label_column not in (None, NONE) and self.targets != NONE

    def sort_labels(self, labels: Any) -> list[str]:
        """All of data.names in the order of what they stand for; without them the labels as they are."""
        return [self.names[label] for label in sort_numerically(self.names)] if self.names else sort_numerically(labels)


def probe(settings: Settings) -> Mapping[str, Any]:
    return probe_files(settings, KIND) | ({} if settings.labelled else {"targets": NONE})


def items(settings: Settings) -> Iterator[Item | Unreadable]:
    for item in read_items(settings, KIND, lambda path: read_records(path, settings)):
        yield item if isinstance(item, Unreadable) else name_label(item, settings.names)


def name_label(item: Item, names: Mapping[str, str]) -> Item:
    """The sample with the name of its label. DataError if data.names lacks it."""
    if not names or not isinstance(item.label, str):
        return item
    if item.label not in names:
        raise DataError(f"data.names: {item.name}: no name for the label {item.label!r}; {nearest(item.label, names)}")
    return Item(item.name, names[item.label], item.group, item.sha256, item.value, item.split)


def read_records(path: Path, settings: Settings) -> tuple[Columns, list[Record]]:
    """All records of a file. DataError for one that breaks the rules of quoting."""
    content = read_text(path, KIND)
    delimiter = find_delimiter(content, settings.quoted) if settings.delimiter == AUTO else settings.delimiter
    reader = parse(content, delimiter, settings.quoted)
    try:
        records = [(reader.line_num, cells) for cells in reader if cells]
    except csv.Error as error:
        raise DataError(
            f"data.path: {path}, line {reader.line_num}: {error}; fix the quotes, or set data.quoted=false if they are part of the text"
        ) from None
    if not records:
        raise DataError(f"data.path: {path}: empty; {KIND.expected}")
    header = records.pop(0)[1] if settings.header else None
    return find_columns(path, header, settings), records


def parse(content: str, delimiter: str, quoted: bool) -> Any:
    lines = io.StringIO(content, newline="")
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE, strict=True)


def find_delimiter(content: str, quoted: bool) -> str:
    """The one that divides the first records into the most columns, of those that divide all of them alike; a comma if none does."""

    def columns(delimiter: str) -> int:
        try:
            counts = {len(cells) for cells in islice(parse(content, delimiter, quoted), TRIED_RECORDS) if cells}
        except csv.Error:
            return 0
        return counts.pop() if len(counts) == 1 else 0

    return max(DELIMITERS, key=columns)


def find_columns(path: Path, header: Sequence[str] | None, settings: Settings) -> Columns:
    """DataError for a name that the header does not have."""

    def place(setting: str, column: str | int) -> int:
        if isinstance(column, int):
            return column
        names = [name.strip() for name in header or ()]
        if column in names:
            return names.index(column)
        if header is None:
            raise DataError(f"data.{setting}: {column!r}, but data.header is false; give the column's number, from 0")
        raise DataError(f"data.{setting}: {path} has no column {column!r}; {nearest(column, names)}")

    texts = tuple(place("text_columns", column) for column in settings.text_columns)
    return Columns(texts, place("label_column", settings.label_column) if settings.labelled else None, settings.separator)
