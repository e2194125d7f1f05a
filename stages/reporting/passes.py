"""What the files beside the record of a measurement hold: time by operator, and the medians minute by minute."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.core import results
from stages.core.results import Operators

MODELS = Path("models")
MOST_OPERATORS = 6


def operators(variant: str) -> Operators | None:
    """Of models/bench/V/profile.json; None where no profile was asked for."""
    found = profile(variant)
    if found is None:
        return None
    return Operators(found["reason"] or found["status"], tuple(found["types"][:MOST_OPERATORS]) if found["status"] == "measured" else ())


def profile(variant: str) -> dict[str, Any] | None:
    """models/bench/V/profile.json; None where no profile was asked for."""
    path = MODELS / "bench" / variant / "profile.json"
    return results.read_plain(path) if path.exists() else None


def minutes(variant: str) -> list[Mapping[str, Any]]:
    """The first process of models/bench/V/minutes.json, minute by minute; none where nothing ran for minutes."""
    path = MODELS / "bench" / variant / "minutes.json"
    return results.read_plain(path)["variant"][0] if path.exists() else []
