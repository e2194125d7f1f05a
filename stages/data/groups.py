"""A CSV file with the columns `file` and `group`: pictures of one scene, that must not come into two splits."""

import csv
from collections.abc import Sequence
from pathlib import Path

from stages.core.errors import DataError

COLUMNS = ("file", "group")


def read(path: Path) -> dict[str, str]:
    """{file: group}; file is relative to the data folder. Other columns are ignored."""
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="backslashreplace") as stream:
            rows = csv.DictReader(stream)
            missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
            if missing:
                raise DataError(
                    f"data.groups: {path} has no column {' and '.join(missing)}; its first line is {','.join(rows.fieldnames or ())[:80]!r}"
                )
            return _collect(path, rows)
    except (OSError, csv.Error) as error:
        raise DataError(f"data.groups: {path}: {error}; give a CSV file with the columns file,group") from None


def _collect(path: Path, rows: "csv.DictReader[str]") -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        file, group = ((row[column] or "").strip() for column in COLUMNS)
        if not file or not group:
            raise DataError(f"data.groups: {path}, line {rows.line_num}: file and group must both be given")
        if found.setdefault(file, group) != group:
            raise DataError(f"data.groups: {path}, line {rows.line_num}: {file} is in group {found[file]} and in group {group}; keep one")
    return found


def require_all(path: Path, groups: dict[str, str], names: Sequence[str]) -> None:
    """DataError unless each picture has a group: one left out could come into another split than its twins."""
    without = [name for name in names if name not in groups]
    if without:
        known = f"; the file knows {next(iter(groups))}, ..." if groups else ""
        raise DataError(
            f"data.groups: {path} has no group for {len(without)} of {len(names)} pictures, such as {without[0]}{known}; "
            "add them, with paths relative to data.path"
        )
