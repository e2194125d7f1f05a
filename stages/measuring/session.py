"""Rounds of A B B A: the reference (A) and the variant (B) in pairs of fresh processes (pairing).

A machine that drifts slows both of a pair, so their ratio stays; the order changes from pair to pair, so that a steady drift cancels.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from tqdm import tqdm

from stages.core.config import Bench
from stages.core.timing_stats import half_width, pooled, ratio, ratio_interval
from stages.measuring.pairing import Pair
from stages.measuring.runs import Run, side

LEAST_PAIRS = 3  # for any interval


@dataclass(frozen=True)
class Rounds:
    """Pairs of processes: variant[i] and reference[i] ran next to each other. stop: ci or budget."""

    variant: tuple[Run, ...]
    reference: tuple[Run, ...]
    stop: str


def rounds(
    pair: Pair,
    bench: Bench,
    name: str,
    clock: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Run pairs until `stop_reason` gives one."""
    variant: list[Run] = []
    reference: list[Run] = []
    start, stop = clock(), None
    with tqdm(total=bench.processes, desc=f"bench {name}", unit="pair", mininterval=0.5) as progress:
        while stop is None:
            for run, runs in zip(pair(len(variant) % 2 == 1), (variant, reference), strict=True):
                runs.append(run)
            progress.total = max(progress.total, len(variant))
            progress.update()
            stop = stop_reason(variant, reference, bench, clock() - start)
    return Rounds(tuple(variant), tuple(reference), stop)


def stop_reason(variant: list[Run], reference: list[Run], bench: Bench, spent_s: float) -> str | None:
    """ci: the ratio's interval is as narrow as asked; budget: no more processes or time; None: go on.

    Never before the asked-for number of processes: fewer would make the interval a guess.
    """
    count, sides = len(variant), (side(variant), side(reference))
    if count < bench.processes:
        return None
    if bench.claims and count >= LEAST_PAIRS and min(len(pooled(s)) for s in sides) >= bench.min_samples:
        if half_width(ratio_interval(*sides), ratio(*sides)) <= bench.target_half_width:
            return "ci"
    elif not bench.claims:
        return "budget"
    another_s = spent_s / count
    return "budget" if count >= bench.max_processes or spent_s + another_s > bench.max_s else None
