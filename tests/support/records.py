"""Rows of the report with figures of one's own choice, for tests."""

from dataclasses import replace
from typing import Any

from edgewise.artifacts.flat_metrics import PATHS, SCORE_PATHS
from edgewise.artifacts.records import Conditions, Energy, Memory, Noise, Operators, VariantSummary

EMPTY = {  # in the place of a record that a row has not
    "conditions": Conditions("quick", "model", 1, "board"),
    "memory": Memory(0, 0, 0, 0, 0, 0, 0, 0),
    "noise": Noise("clean"),
    "energy": Energy("measured"),
    "operators": Operators("measured"),
}
WHERE = {**PATHS, "score": "quality.score", **{f"score_{end}": path for end, path in SCORE_PATHS.items()}}


def varied(row: VariantSummary, **figures: Any) -> VariantSummary:
    """`row` with other figures. Their names: a field of the row, or one of artifacts.flat_metrics, with score for the primary metric's."""
    for name, value in figures.items():
        record, _, key = WHERE.get(name, name).partition(".") if name not in vars(row) else (name, "", "")
        known = getattr(row, record)
        row = replace(row, **{record: replace(known or EMPTY[record], **{key: value}) if key else value})
    return row


def made(format: str, scheme: str, status: str = "ok", **figures: Any) -> VariantSummary:
    """A row that has these figures alone."""
    return varied(VariantSummary(format, scheme, status), **figures)


def merged(record: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A JSON record with `changes` written over it, mapping by mapping."""
    both = {
        key: merged(record[key], value) for key, value in changes.items() if isinstance(value, dict) and isinstance(record.get(key), dict)
    }
    return {**record, **changes, **both}
