"""The paired ratio on a machine that drifts and whose neighbours come in bursts: its error and its interval, beside other estimates.

A session is simulated as it is measured: pairs of processes one after the other, A B B A, each a block of 0.8 s of runs. Neighbours are
an on-off process that slows what runs meanwhile.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from edgewise.stats import timing as ts

pytestmark = pytest.mark.lengthy  # simulations

TRUE = 0.2
GAP_S, BLOCK_S, STEP_S, RUNS = 1.0, 0.8, 0.05, 60
SESSIONS = 150


@dataclass(frozen=True)
class Machine:
    """drift: how much slower it is in the end; on_s, off_s: mean length of bursts and rests; slow: factor meanwhile."""

    drift: float = 0.0
    on_s: float = 0.0
    off_s: float = 1.0
    slow: float = 1.0


MACHINES = {
    "quiet": Machine(),
    "drifting": Machine(drift=0.2),
    "doubling": Machine(drift=1.0),
    "few bursts": Machine(drift=0.1, on_s=0.5, off_s=4.5, slow=2),
    "many bursts": Machine(drift=0.1, on_s=1.5, off_s=3.5, slow=2),
    "short bursts": Machine(drift=0.1, on_s=0.2, off_s=0.4, slow=2),
    "long bursts": Machine(drift=0.3, on_s=15, off_s=25, slow=2.5),
}


def neighbours(machine: Machine, length_s: float, random: np.random.Generator) -> np.ndarray:
    """Whether a neighbour computes, by step of STEP_S."""
    steps, at, busy = np.zeros(int(length_s / STEP_S), bool), 0, random.random() < machine.on_s / (machine.on_s + machine.off_s)
    while machine.on_s and at < len(steps):
        length = max(1, int(random.exponential(machine.on_s if busy else machine.off_s) / STEP_S))
        steps[at : at + length] = busy
        at, busy = at + length, not busy
    return steps


def session(machine: Machine, pairs: int, random: np.random.Generator) -> tuple[list, list]:
    """variant, reference: a process each a pair, of one block."""
    sides: tuple[list, list] = ([], [])
    length_s = 2 * pairs * (GAP_S + BLOCK_S)
    busy = neighbours(machine, length_s + BLOCK_S, random)
    for number in range(2 * pairs):
        side = (number + number // 2 + 1) % 2  # A B B A
        start_s = number * (GAP_S + BLOCK_S) + GAP_S
        meanwhile = busy[int(start_s / STEP_S) : int((start_s + BLOCK_S) / STEP_S)]
        slow = np.where(meanwhile[np.arange(RUNS) * len(meanwhile) // RUNS], machine.slow, 1.0)
        level = (TRUE, 1.0)[side] * random.normal(1, 0.01) * (1 + machine.drift * start_s / length_s)
        rare = (random.random(RUNS) < 0.05) * random.exponential(1, RUNS)
        sides[side].append([level * slow * random.normal(1, 0.01, RUNS) * (1 + rare)])
    return sides


def medians(side: list) -> np.ndarray:
    return np.array([np.median(blocks[0]) for blocks in side])


OTHERS: dict[str, Callable[[list, list], float]] = {
    "ratio of the medians": lambda v, r: float(np.median(medians(v)) / np.median(medians(r))),
    "ratio of pooled medians": lambda v, r: float(np.median(ts.pool_samples(v)) / np.median(ts.pool_samples(r))),
    "geometric mean of pairs": lambda v, r: float(np.exp(np.mean(np.log(medians(v) / medians(r))))),
}


def errors(estimate: Callable[[list, list], float], machine: Machine, pairs: int) -> np.ndarray:
    """|log(estimate / truth)| over SESSIONS sessions; the same sessions for every estimate."""
    random = np.random.default_rng(1)
    return np.array([abs(np.log(estimate(*session(machine, pairs, random)) / TRUE)) for _ in range(SESSIONS)])


def typical(values: np.ndarray) -> float:
    return float(np.median(values))


def bad(values: np.ndarray) -> float:
    return float(np.quantile(values, 0.9))


def test_the_order_of_processes_is_that_of_the_rounds():
    random = np.random.default_rng(0)
    variant, reference = session(Machine(drift=1.0), 4, random)
    ratios = medians(variant) / medians(reference) / TRUE
    assert (ratios[[0, 2]] > 1).all() and (ratios[[1, 3]] < 1).all(), "whichever comes second is slower while it drifts"


@pytest.mark.parametrize(
    ("machine", "at_most"), [("quiet", 0.01), ("drifting", 0.015), ("few bursts", 0.015), ("many bursts", 0.02), ("short bursts", 0.02)]
)
@pytest.mark.parametrize("pairs", [5, 9])
def test_the_typical_error_stays_small(machine, pairs, at_most):
    assert typical(errors(ts.median_ratio, MACHINES[machine], pairs)) < at_most


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("machine", ["many bursts", "long bursts"])
def test_nothing_else_errs_less_under_bursts(other, machine):
    """Nine pairs. A burst that hits one side of a pair spoils one ratio, which the median of the pairs leaves out."""
    mine, its = (errors(estimate, MACHINES[machine], 9) for estimate in (ts.median_ratio, OTHERS[other]))
    assert np.mean(mine) < 0.7 * np.mean(its) and bad(mine) <= bad(its)


def test_the_unpaired_medians_can_be_far_off_where_the_pairs_are_not():
    mine, its = (errors(estimate, MACHINES["long bursts"], 9) for estimate in (ts.median_ratio, OTHERS["ratio of the medians"]))
    assert np.mean(mine) < 0.015 and np.mean(its) > 0.05 and its.max() > 0.5


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("pairs", [5, pytest.param(9, marks=pytest.mark.slow)])
def test_the_interval_covers_and_its_upper_end_claims_too_little_rather_than_too_much(machine, pairs, monkeypatch):
    monkeypatch.setattr(ts, "DRAWS", 800)
    random = np.random.default_rng(pairs)
    found = np.array([ts.ratio_interval(*session(MACHINES[machine], pairs, random)) for _ in range(SESSIONS)])
    low, high = found[:, 0] <= TRUE, found[:, 1] >= TRUE
    assert np.mean(low & high) >= 0.88, "95 %, less three standard errors and what few pairs cost"
    assert np.mean(high) >= 0.92, "variants are ranked by this end"


def test_a_point_far_off_comes_with_an_interval_that_says_so(monkeypatch):
    monkeypatch.setattr(ts, "DRAWS", 800)
    random = np.random.default_rng(3)
    sessions = [session(MACHINES["many bursts"], 5, random) for _ in range(SESSIONS)]
    far = [s for s in sessions if abs(np.log(ts.median_ratio(*s) / TRUE)) > 0.1]
    widths = [np.log(high / low) for low, high in (ts.ratio_interval(*s) for s in far)]
    assert 3 <= len(far) < SESSIONS / 4, "it happens"
    assert min(widths) > 0.3, "and nobody can mistake it for a measurement"
