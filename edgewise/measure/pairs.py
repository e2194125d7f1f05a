"""One pair of fresh processes, the variant's and the reference's, as bench.interleave says.

blocks     both are loaded and take turns from block to block (agent.blocks): what neighbours do to the machine cancels in the ratio
processes  the one after the other: one model in memory at a time, and a load that goes on for as long as the profile says
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from tqdm import tqdm

from edgewise.agent.protocol import DETERMINISTIC, Fault, ProtocolFault, EventReader
from edgewise.config.schema import Bench
from edgewise.errors import VariantFailed
from edgewise.measure.subjects import Event, Run, Subject, side
from edgewise.stats.timing import half_width, pooled, ratio, ratio_interval

Pair = Callable[[bool], tuple[Run, Run]]  # whether the variant comes first -> its run, the reference's
LEAST_TURNS = 8  # of a slow model
MEMORY = ("oom_killed", "out_of_memory", "killed")
BOTH = "while both models were in memory to take turns, and each runs alone: set bench.interleave=processes"


def pairing(variant: Subject, reference: Subject, bench: Bench) -> Pair:
    if bench.interleave == "processes":
        return partial(in_sequence, variant, reference, bench)
    run_s = {side.name: typical_run_s(side, bench) for side in {side.name: side for side in (variant, reference)}.values()}
    return partial(in_turns, variant, reference, fitted(bench, max(run_s.values())))


def typical_run_s(side: Subject, bench: Bench) -> float:
    """How long a run takes, seconds: the median of a warm-up in a process of its own, which counts for nothing else."""
    look = replace(bench, blocks=1, block_s=0.0, min_samples=1)
    return float(np.median(side.run("latency", side.expected(look), **side.timed(look)).one("warmup")["wall_ns"])) / 1e9


def fitted(bench: Bench, run_s: float) -> Bench:
    """With fewer turns where a single run is longer than a block: each begins with a run that is not timed, which slow models feel."""
    turns = round(bench.blocks * min(1.0, bench.block_s / run_s))
    return replace(bench, blocks=max(min(LEAST_TURNS, bench.blocks), turns))


def in_sequence(variant: Subject, reference: Subject, bench: Bench, variant_first: bool) -> tuple[Run, Run]:
    return _parted([side.latency(bench) for side in _ordered(variant, reference, variant_first)], variant_first)


def in_turns(variant: Subject, reference: Subject, bench: Bench, variant_first: bool) -> tuple[Run, Run]:
    sides = _ordered(variant, reference, variant_first)
    sides[0].cool_down()
    job = {"kind": "pair", "sides": [side.timed(bench) for side in sides], "blocks": bench.blocks}
    try:
        events = list(variant.connection.run(job, variant.deadline_s + reference.deadline_s))
        runs = [Run.of(own, **side.expected(bench)) for side, own in zip(sides, _unwrapped(events, len(sides)), strict=True)]
    except Fault as fault:
        if fault.word in (*DETERMINISTIC, *MEMORY):
            _blame(sides, bench, fault)
        raise
    return _parted(runs, variant_first)


def _ordered(variant: Subject, reference: Subject, variant_first: bool) -> list[Subject]:
    return [variant, reference] if variant_first else [reference, variant]


def _parted(runs: list[Run], variant_first: bool) -> tuple[Run, Run]:
    first, second = runs
    return (first, second) if variant_first else (second, first)


def _unwrapped(events: list[Event], count: int) -> list[list[Event]]:
    """The events of each side, checked as those of a run of its own."""
    readers = [EventReader() for _ in range(count)]
    found: list[list[Event]] = [[] for _ in range(count)]
    for event in events:
        if event["event"] == "side":
            if event["index"] >= count:
                raise ProtocolFault("out_of_order", f"side {event['index']} of {count}")
            inner = readers[event["index"]].parse_line(event["line"].encode() + b"\n")
            found[event["index"]] += [inner] if inner else []
    return found


def _blame(sides: list[Subject], bench: Bench, fault: Fault) -> None:
    """Whose failure it is: that of the model which fails alone, too, and says so itself; else that of both together."""
    for subject in sides:
        subject.latency(bench)
    if fault.word in MEMORY:
        raise Fault(fault.word, f"{fault} This happened {BOTH}") from fault
    raise VariantFailed(f"{' beside '.join(side.name for side in sides)} on the device: {fault}") from fault


# Rounds of A B B A: the reference (A) and the variant (B) in pairs of fresh processes (pairing).
#
# A machine that drifts slows both of a pair, so their ratio stays; the order changes from pair to pair, so that a steady drift cancels.

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
