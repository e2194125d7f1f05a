"""Measure the variant and the reference in pairs of fresh processes, as bench.interleave says, and record the visit that they make.

    blocks       both are loaded and take turns block by block (agent.latency): load from elsewhere cancels in the ratio
    processes    one after the other: one model in memory at a time, and load that lasts as long as the profile says

The order alternates from pair to pair (A B B A), so that a steady drift of the machine cancels.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.agent.protocol import DETERMINISTIC, EventReader, Fault, ProtocolFault
from edgewise.artifacts import artifact, visits
from edgewise.artifacts.visits import Visit
from edgewise.config import schema
from edgewise.config.schema import Bench
from edgewise.errors import VariantFailed
from edgewise.measure.runs import Event, PlacedVariant, Run, blocks_by_process
from edgewise.stats.timing import log_ratio_error, median_ratio, pool_samples, ratio_interval, relative_half_width

RunPair = Callable[[bool], tuple[Run, Run]]  # (whether the variant comes first) -> (run of the variant, run of the reference)
MIN_PAIRS = 3  # for any interval
MIN_TURNS = 8  # of a slow model
MEMORY_FAULTS = ("oom_killed", "out_of_memory", "killed")
BOTH_LOADED = "while both models were in memory to take turns, and each runs alone: set bench.interleave=processes"
MODELS = Path("models")
STAGE = "bench-on-device"
TIMED = ("scope", "interleave", "block_s", "warmup", "answer")  # of bench: what is timed; the rest says how often


@dataclass(frozen=True)
class PairedRuns:
    """variant[i] and reference[i] were measured as a pair. stop: ci or budget, see `find_stop_reason`."""

    variant: tuple[Run, ...]
    reference: tuple[Run, ...]
    stop: str


def measure_pairs(
    pair: RunPair,
    bench: Bench,
    name: str,
    clock: Callable[[], float] = time.monotonic,
) -> PairedRuns:
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
            stop = find_stop_reason(variant, reference, bench, clock() - start)
    return PairedRuns(tuple(variant), tuple(reference), stop)


def find_stop_reason(variant: list[Run], reference: list[Run], bench: Bench, spent_s: float) -> str | None:
    """ci: the ratio's interval is as narrow as required; budget: the limit of processes or time is reached; None: go on.

    None as long as fewer pairs than bench.processes were measured: an interval of so few would be a guess.
    """
    count, sides = len(variant), (blocks_by_process(variant), blocks_by_process(reference))
    if count < bench.processes:
        return None
    if bench.claims and count >= MIN_PAIRS and min(len(pool_samples(s)) for s in sides) >= bench.min_samples:
        if relative_half_width(ratio_interval(*sides), median_ratio(*sides)) <= bench.target_half_width:
            return "ci"
    elif not bench.claims:
        return "budget"
    another_s = spent_s / count
    return "budget" if count >= bench.max_processes or spent_s + another_s > bench.max_s else None


def make_pair_runner(variant: PlacedVariant, reference: PlacedVariant, bench: Bench) -> RunPair:
    """What measures one pair; for blocks it estimates the time of a run first."""
    if bench.interleave == "processes":
        return partial(run_in_sequence, variant, reference, bench)
    run_s = {side.name: estimate_run_s(side, bench) for side in {side.name: side for side in (variant, reference)}.values()}
    return partial(run_in_turns, variant, reference, reduce_turns(bench, max(run_s.values())))


def estimate_run_s(side: PlacedVariant, bench: Bench) -> float:
    """Time of one run, seconds: the median of a warm-up in a process of its own, which is used for nothing else."""
    short = replace(bench, blocks=1, block_s=0.0, min_samples=1)
    return float(np.median(side.run("latency", side.expected(short), **side.timed(short)).one("warmup")["wall_ns"])) / 1e9


def reduce_turns(bench: Bench, run_s: float) -> Bench:
    """Fewer blocks if a single run takes longer than a block: each begins with an untimed run, which costs slow models much."""
    turns = round(bench.blocks * min(1.0, bench.block_s / run_s))
    return replace(bench, blocks=max(min(MIN_TURNS, bench.blocks), turns))


def run_in_sequence(variant: PlacedVariant, reference: PlacedVariant, bench: Bench, variant_first: bool) -> tuple[Run, Run]:
    return _variant_first([side.latency(bench) for side in _in_order(variant, reference, variant_first)], variant_first)


def run_in_turns(variant: PlacedVariant, reference: PlacedVariant, bench: Bench, variant_first: bool) -> tuple[Run, Run]:
    sides = _in_order(variant, reference, variant_first)
    sides[0].cool_down()
    job = {"kind": "pair", "sides": [side.timed(bench) for side in sides], "blocks": bench.blocks}
    try:
        events = list(variant.connection.run(job, variant.deadline_s + reference.deadline_s))
        runs = [Run.of(own, **side.expected(bench)) for side, own in zip(sides, _split_by_side(events, len(sides)), strict=True)]
    except Fault as fault:
        if fault.word in (*DETERMINISTIC, *MEMORY_FAULTS):
            _assign_blame(sides, bench, fault)
        raise
    return _variant_first(runs, variant_first)


def _split_by_side(events: list[Event], count: int) -> list[list[Event]]:
    """The events of each model, checked as those of a run of their own. ProtocolFault otherwise."""
    readers = [EventReader() for _ in range(count)]
    found: list[list[Event]] = [[] for _ in range(count)]
    for event in events:
        if event["event"] == "side":
            if event["index"] >= count:
                raise ProtocolFault("out_of_order", f"side {event['index']} of {count}")
            inner = readers[event["index"]].parse_line(event["line"].encode() + b"\n")
            found[event["index"]] += [inner] if inner else []
    return found


def _assign_blame(sides: list[PlacedVariant], bench: Bench, fault: Fault) -> None:
    """Run each model alone: one that fails again raises its own error, otherwise the failure is blamed on the two together."""
    for side in sides:
        side.latency(bench)
    if fault.word in MEMORY_FAULTS:
        raise Fault(fault.word, f"{fault} This happened {BOTH_LOADED}") from fault
    raise VariantFailed(f"{' beside '.join(side.name for side in sides)} on the device: {fault}") from fault


def _in_order(variant: PlacedVariant, reference: PlacedVariant, variant_first: bool) -> list[PlacedVariant]:
    return [variant, reference] if variant_first else [reference, variant]


def _variant_first(runs: list[Run], variant_first: bool) -> tuple[Run, Run]:
    first, second = runs
    return (first, second) if variant_first else (second, first)


def make_visit(pairs: PairedRuns, bench: Bench, seconds: float, source: str = visits.BENCH, **identity: str) -> Visit | None:
    """The record of a visit that has just ended. identity: key, variant, reference. None where the profile claims nothing or there are
    fewer than MIN_PAIRS pairs, so that no error of the visit is known."""
    sides = blocks_by_process(pairs.variant), blocks_by_process(pairs.reference)
    if not bench.claims or len(pairs.variant) < MIN_PAIRS:
        return None
    return Visit(
        at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        interleave=bench.interleave,
        ratio=median_ratio(*sides),
        log_standard_error=log_ratio_error(*sides),
        degrees=len(pairs.variant) - 1,
        seconds=round(seconds, 3),
        source=source,
        **identity,
    )


def make_key(variant: PlacedVariant, reference: PlacedVariant, bench: Bench, device_fingerprint: str, runtimes: Mapping[str, Any]) -> str:
    """The key of a visit: a hash of all that decides its ratio. runtimes: metrics/runtimes.json."""
    sides = (variant, reference)
    return visits.make_key(
        {
            "files": [artifact.read(MODELS / "variants" / side.name).files for side in sides],
            "engine": [dict(side.fields["settings"]) for side in sides],
            "runtimes": [runtimes["variants"].get(side.name) for side in sides],
            "data": artifact.read(MODELS / "data").files,
            "bench": {name: schema.to_plain(getattr(bench, name)) for name in TIMED},
            "code": (schema.read_compared(STAGE)["code"] or {}).get(variant.name),
            "device": device_fingerprint,
        }
    )
