"""One pair of fresh processes, the variant's and the reference's, as bench.interleave says.

blocks     both are loaded and take turns from block to block (payload.turns): what neighbours do to the machine cancels in the ratio
processes  the one after the other: one model in memory at a time, and a load that goes on for as long as the profile says
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from stages.core.config import Bench
from stages.core.errors import VariantFailed
from stages.measuring.jobs import Subject
from stages.measuring.runs import Event, Run
from stages.payload.faults import DETERMINISTIC, Fault
from stages.payload.reader import ProtocolFault, Reader

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
    readers = [Reader() for _ in range(count)]
    found: list[list[Event]] = [[] for _ in range(count)]
    for event in events:
        if event["event"] == "side":
            if event["index"] >= count:
                raise ProtocolFault("out_of_order", f"side {event['index']} of {count}")
            inner = readers[event["index"]].line(event["line"].encode() + b"\n")
            found[event["index"]] += [inner] if inner else []
    return found


def _blame(sides: list[Subject], bench: Bench, fault: Fault) -> None:
    """Whose failure it is: that of the model which fails alone, too, and says so itself; else that of both together."""
    for side in sides:
        side.latency(bench)
    if fault.word in MEMORY:
        raise Fault(fault.word, f"{fault} This happened {BOTH}") from fault
    raise VariantFailed(f"{' beside '.join(side.name for side in sides)} on the device: {fault}") from fault
