"""Whether a variant's interval holds for other visits: by what the variant itself moves from visit to visit, and by what others move.

    python -m benchmarks.own_variance [--cases 2000]

A device moves the log ratio of every variant from visit to visit, and not each as much. `edgewise trust` studies two variants; a variant of
which measure.collecting.ENOUGH visits are kept, from studies and from the bench stage together, is given its own movement instead.

Here the truth is known: two studied variants move by 1 %, the variant in question by 0.3, 1 or 3 %; a visit of a study has 3 pairs of
processes, that of the bench stage 6, and pairs of one visit differ by 1.5 %. For each rule: in how many of 100 cases the interval of the
variant's bench visit holds the truth (95 is right; of 2,000 cases such a figure is known within 1), and half of its width (median).
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.measure.collecting import ENOUGH
from edgewise.stats.random_effects import Measured, Spread, between_visits, pool

OF_PAIRS, OF_OTHERS = 0.015, 0.01  # standard deviations of log ratios: of the pairs of a visit, of the visits of the studied variants
MOVEMENTS = (0.003, 0.01, 0.03)  # of the variant in question
KNOWN = (ENOUGH, 8, 12, 20)  # visits of it, the one of the bench stage included
STUDIED, STUDY_PAIRS, BENCH_PAIRS = 8, 3, 6
RULES = "own", "of others"


@dataclass(frozen=True)
class Cell:
    """holds: share of cases in which the interval holds the truth. half_width: median of the log ratio's."""

    movement: float
    known: int
    rule: str
    holds: float
    half_width: float


def draw_visits(rng: np.random.Generator, movement: float, pairs: Sequence[int]) -> list[Measured]:
    """Visits of a model whose true log ratio is 0. pairs: of each visit."""
    found = []
    for count in pairs:
        logs = rng.normal(rng.normal(0, movement), OF_PAIRS, count)
        found.append(Measured(float(logs.mean()), float(logs.std(ddof=1) / math.sqrt(count)), count - 1))
    return found


def choose_spread(rule: str, own: Sequence[Measured], others: Sequence[Sequence[Measured]]) -> Spread | None:
    return between_visits([own] if rule == RULES[0] else others)


def simulate(movement: float, known: int, rule: str, cases: int, seed: int = 0) -> Cell:
    rng, held, widths = np.random.default_rng(seed), 0, []
    for _ in range(cases):
        *studied, last = draw_visits(rng, movement, [*[STUDY_PAIRS] * (known - 1), BENCH_PAIRS])
        others = [draw_visits(rng, OF_OTHERS, [STUDY_PAIRS] * STUDIED) for _ in range(2)]
        low, high = pool([last], choose_spread(rule, [*studied, last], others)).interval()
        held += low <= 1 <= high
        widths.append(math.log(high / low) / 2)
    return Cell(movement, known, rule, held / cases, float(np.median(widths)))


def simulate_all(cases: int) -> Iterator[Cell]:
    """What others move does not depend on how many visits of the variant are known."""
    for movement in MOVEMENTS:
        yield from (simulate(movement, known, RULES[0], cases) for known in KNOWN)
        yield simulate(movement, KNOWN[0], RULES[1], cases)


def format_table(cells: Sequence[Cell]) -> str:
    lines = ["| the variant moves by | its interval by | holds, of 100 | half-width |", "|---|---|---|---|"]
    for cell in cells:
        rule = f"its own {cell.known} visits" if cell.rule == RULES[0] else f"two others' {STUDIED} visits each"
        lines.append(f"| {100 * cell.movement:g} % | {rule} | {100 * cell.holds:.1f} | {100 * cell.half_width:.1f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=2000, help="for each line (2000)")
    print(format_table(list(simulate_all(parser.parse_args().cases))))


if __name__ == "__main__":
    main()
