"""What is to be in the Model Registry, and under which aliases."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

BEST = {  # word of the alias: the result that it is about, and 1 where small is good
    "fastest": ("latency_ratio_to_reference", 1),
    "smallest": ("size_bytes", 1),
    "most-accurate": ("accuracy_top1", -1),
}


@dataclass(frozen=True)
class Candidate:
    """One measured variant. key: of its record. revision: of the experiment whose files it has; None: those of the workspace."""

    key: str
    variant: str
    result: Mapping[str, Any]
    revision: str | None = None


@dataclass(frozen=True)
class Registration:
    """One registered model. aliases: the key of the candidate that each belongs to; None where nothing deserves it any more."""

    name: str
    candidates: tuple[Candidate, ...] = ()
    aliases: Mapping[str, str | None] = field(default_factory=dict)


def registration(name: str, place: str, front: Sequence[Candidate], chosen: Mapping[str, Candidate | None]) -> Registration:
    """place: the device, and the sweep if it is one. chosen: by the name of the budget. By point estimates, as the front itself."""
    aliases: dict[str, str | None] = {}
    for word, (result, _) in BEST.items():
        measured = [candidate for candidate in front if candidate.result.get(result) is not None]
        aliases[f"{place}-{word}"] = min(measured, key=lambda c, first=result: rank(c, first)).key if measured else None  # type: ignore[misc]
    aliases |= {f"{place}-{budget}": candidate.key if candidate else None for budget, candidate in chosen.items()}
    every = {candidate.key: candidate for candidate in (*front, *filter(None, chosen.values()))}
    return Registration(name, tuple(every.values()), aliases)


def rank(candidate: Candidate, first: str) -> tuple[float, ...]:
    """Small is good. What is equal in `first` is told apart by the other results."""
    names = sorted(BEST.values(), key=lambda entry: entry[0] != first)
    values = ((candidate.result.get(name), sign) for name, sign in names)
    return tuple(math.inf if value is None else sign * value for value, sign in values)
