"""What would a design of fewer or more visits have said? From the visits that `python -m benchmarks.trust visits` has stored.

    python -m benchmarks.trust designs --raw single_visits.json

A design takes some visits of a variant, and knows or does not know how far visits lie apart. It is tried at every place of the visits in
turn; the truth is the mean log ratio of all visits that it did not take. Seconds are those of its visits, both sides together.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewise.artifacts.visits import Trust, Visit
from edgewise.config.settings import build
from edgewise.measure.collecting import to_measured
from edgewise.stats.random_effects import Measured, Spread, between_visits, pool

COLUMNS = ("design", "variant", "condition", "hold the truth", "median width", "seconds")

Knows = Callable[[Sequence[Measured], Sequence[Measured], Spread], Spread | None]  # its visits, all others, the device's study


@dataclass(frozen=True)
class Design:
    """offsets: which visits it takes, as shares of the whole series from its first; a negative one means the next in the row."""

    name: str
    offsets: tuple[float, ...]
    spread: Knows

    def take(self, first: int, count: int) -> list[int]:
        return [(first + (round(offset * count) if offset >= 0 else 1)) % count for offset in self.offsets]


def nothing(mine: Sequence[Measured], others: Sequence[Measured], study: Spread) -> None:
    """Only the visit's own error."""


def from_study(mine: Sequence[Measured], others: Sequence[Measured], study: Spread) -> Spread:
    return study


def from_others(mine: Sequence[Measured], others: Sequence[Measured], study: Spread) -> Spread | None:
    """The variant's own movement, from as many visits as there are beside its own."""
    return between_visits([others])


def from_themselves(mine: Sequence[Measured], others: Sequence[Measured], study: Spread) -> Spread | None:
    return between_visits([mine])


DESIGNS = (
    Design("one visit, nothing known of others", (0.0,), nothing),
    Design("one visit, `edgewise trust` of two other variants", (0.0,), from_study),
    Design("one visit, the variant's own movement known", (0.0,), from_others),
    Design("two visits in a row, nothing known", (0.0, -1.0), from_themselves),
    Design("two visits in a row, `edgewise trust`", (0.0, -1.0), from_study),
    Design("two visits half the time apart, `edgewise trust`", (0.0, 0.5), from_study),
    Design("three visits spread over the time, nothing known", (0.0, 1 / 3, 2 / 3), from_themselves),
    Design("three visits spread over the time, `edgewise trust`", (0.0, 1 / 3, 2 / 3), from_study),
)


def try_design(design: Design, visits: Sequence[Visit], study: Spread) -> tuple[int, float, float]:
    """How many of its intervals hold the truth, their median width as a share of the ratio, and its seconds."""
    measured = [to_measured(visit) for visit in visits]
    held, widths, seconds = 0, [], []
    for first in range(len(visits)):
        taken = design.take(first, len(visits))
        mine, others = [measured[i] for i in taken], [each for i, each in enumerate(measured) if i not in taken]
        estimate = pool(mine, design.spread(mine, others, study))
        low, high = estimate.interval()
        held += low <= math.exp(np.mean([each.log_ratio for each in others])) <= high
        widths.append((high - low) / estimate.ratio)
        seconds.append(sum(visits[i].seconds for i in taken))
    return held, float(np.median(widths)), float(np.median(seconds))


def rows(found: dict[str, dict[str, list[Visit]]], study: Spread) -> Iterator[tuple[str, ...]]:
    for design in DESIGNS:
        for variant, conditions in found.items():
            for condition, visits in conditions.items():
                held, width, seconds = try_design(design, visits, study)
                yield design.name, variant, condition, f"{held} of {len(visits)}", f"{width:.1%}", f"{seconds:.0f}"


def read_raw(path: Path) -> tuple[dict[str, dict[str, list[Visit]]], Trust]:
    raw = json.loads(path.read_text(encoding="utf-8"))
    found = {
        variant: {condition: [build(Visit, visit, str(path)) for visit in visits] for condition, visits in conditions.items()}
        for variant, conditions in raw["visits"].items()
    }
    return found, build(Trust, raw["trust"], str(path))


def describe(path: Path) -> str:
    found, trust = read_raw(path)
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(found, Spread(trust.log_variance, trust.degrees))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
