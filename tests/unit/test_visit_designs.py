"""The judges of designs and verdicts, on visits with a known truth."""

import math
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import verdict_runs, visit_designs
from edgewise.artifacts.visits import Visit
from edgewise.stats import claims
from edgewise.stats.random_effects import Spread

VISIT = Visit("k" * 32, "2026-01-01T00:00:00.000+00:00", "v", "onnx-fp32", "blocks", 0.5, 0.005, 5, 20.0)
MOVES, VISITS = 0.05, 200


def drawn(truth: float, seed: int, moves: float = MOVES, count: int = VISITS) -> list[Visit]:
    """Visits whose log ratios move by `moves` (standard deviation) beside their own error of 0.5 %."""
    random = np.random.default_rng(seed)
    logs = math.log(truth) + random.normal(0, math.hypot(moves, 0.005), count)
    return [replace(VISIT, ratio=math.exp(each)) for each in logs]


def test_a_visit_that_knows_nothing_of_others_seldom_holds_their_mean_and_one_with_the_true_spread_does() -> None:
    alone, with_trust = (visit_designs.DESIGNS[number] for number in (0, 1))
    spread = Spread(MOVES**2, 1000.0)
    held = [visit_designs.try_design(design, drawn(0.5, 1), spread)[0] / VISITS for design in (alone, with_trust)]
    assert held[0] < 0.5 and 0.9 < held[1] < 0.99


def test_more_visits_are_narrower_and_cost_their_seconds() -> None:
    found = [visit_designs.try_design(visit_designs.DESIGNS[number], drawn(0.5, 2), Spread(MOVES**2, 1000.0)) for number in (1, 5, 7)]
    assert found[0][1] > found[1][1] > found[2][1]
    assert [seconds for _, _, seconds in found] == [20.0, 40.0, 60.0]


@pytest.mark.parametrize(
    ("said", "truth", "wrong"),
    [
        (claims.FASTER, math.log(0.9), False),
        (claims.FASTER, math.log(1.01), True),
        (claims.SLOWER, math.log(0.99), True),
        (claims.EQUIVALENT, math.log(1.02), False),
        (claims.EQUIVALENT, math.log(0.96), True),
        (claims.NOT_RESOLVED, math.log(3), False),
    ],
)
def test_a_verdict_is_contradicted_by_a_truth_on_the_other_side(said: str, truth: float, wrong: bool) -> None:
    assert verdict_runs.contradicts(said, truth, 0.03) is wrong


def test_verdicts_that_ignore_movement_are_contradicted_and_those_that_know_it_are_not() -> None:
    """Variants that are as fast as the reference, on a device that moves by 5 %."""
    runs = {name: drawn(1.0, seed, count=100) for seed, name in enumerate(("a", "b", "c"))}
    itself = drawn(1.0, 9, moves=0.0, count=100)

    def contradicted(spread: Spread | None) -> float:
        cells = [cell for cell in verdict_runs.rows(runs, itself, spread, "", 0.001) if cell[4] != "-"]
        return sum(int(cell[4]) for cell in cells) / (6 * 100)

    assert contradicted(None) > 0.2 > 0.05 > contradicted(Spread(MOVES**2, 1000.0))
