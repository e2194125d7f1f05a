"""What is to be in the Model Registry, and under which aliases."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FASTEST, SMALLEST, BEST_SCORE = "fastest", "smallest", "most-accurate"  # words of aliases
Cost = Callable[[Mapping[str, Any]], float]  # of a result: less is better, infinite where it was not measured


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


def registration(
    name: str, place: str, front: Sequence[Candidate], chosen: Mapping[str, Candidate | None], score: tuple[str, bool] | None
) -> Registration:
    """place: the device, and the sweep if it is one. chosen: by the name of the budget. score: the task's, and whether more is better."""
    costs: dict[str, Cost] = {FASTEST: latency, SMALLEST: of("size_bytes", 1)}
    if score:
        costs[BEST_SCORE] = of(score[0], -1 if score[1] else 1)
    aliases: dict[str, str | None] = {}
    for word in costs:
        best = min(front, key=lambda candidate, word=word: rank(candidate, word, costs), default=None)  # type: ignore[misc]
        aliases[f"{place}-{word}"] = best.key if best and costs[word](best.result) < math.inf else None
    aliases |= {f"{place}-{budget}": candidate.key if candidate else None for budget, candidate in chosen.items()}
    every = {candidate.key: candidate for candidate in (*front, *filter(None, chosen.values()))}
    return Registration(name, tuple(every.values()), aliases)


def rank(candidate: Candidate, first: str, costs: Mapping[str, Cost]) -> list[float]:
    """What is equal in `first` is told apart by the other results."""
    return [costs[word](candidate.result) for word in sorted(costs, key=lambda word: word != first)]


def latency(result: Mapping[str, Any]) -> float:
    """The least favourable end of the ratio's interval, by which the report ranks too; the ratio itself where there is none."""
    interval = result.get("latency_ratio_ci95")
    return float(interval[1]) if interval else of("latency_ratio_to_reference", 1)(result)


def of(name: str, sign: int) -> Cost:
    return lambda result: math.inf if result.get(name) is None else sign * float(result[name])
