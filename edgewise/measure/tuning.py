"""`engine: auto`: try the format's grid of engine settings (GRID of its run.py) on the device and keep the best.

Every point must first give the outputs that the variant's plain settings give on this machine, within the scheme's tolerance. The points,
the plain settings among them, are then measured in turns, each time in a fresh process. The best is only a candidate, since the best of
several noisy results looks better than it is (winner's curse): it is measured again in pairs with the plain settings, and kept if the
interval of that ratio lies below 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.artifacts.records import Agreement, EngineAuto, EnginePoint
from edgewise.config.schema import LATENCY, MEMORY, Bench, Variant, part
from edgewise.errors import VariantFailed
from edgewise.measure.device_outputs import Arrays, compare, compute_on_device
from edgewise.measure.pairs import MIN_PAIRS
from edgewise.measure.passes import make_memory
from edgewise.measure.runs import PlacedVariant, Run, blocks_by_process
from edgewise.stats.timing import Side, median_ratio, ratio_interval

BLOCK_S, LEAST_RUNS = 0.4, 10  # of one process: one turn of all points should take about a minute
Settings = Mapping[str, Any]


@dataclass
class Point:
    """One point of the grid and its runs. settings: those that differ from the plain ones; empty for the plain point itself."""

    settings: Settings
    placed: PlacedVariant
    agreement: Agreement | None = None
    refusal: str | None = None
    runs: list[Run] = field(default_factory=list)
    confirming: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class Tuned:
    """The variant with the settings that were kept, the agreement of its outputs, the record, and all runs behind it."""

    placed: PlacedVariant
    agreement: Agreement | None
    record: EngineAuto | None = None
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Goal:
    """What is minimized. measure: one process; values: blocks of values by process, from its runs."""

    measure: Callable[[PlacedVariant, Bench], Run]
    values: Callable[[Sequence[Run]], Side]


def peak_values(runs: Sequence[Run]) -> Side:
    """For each process one value: its peak memory above the baseline, bytes, at least 1."""
    return [[np.array([max(1.0, make_memory(run).peak_rss_above_baseline_bytes)])] for run in runs]


GOALS = {LATENCY: Goal(PlacedVariant.latency, blocks_by_process), MEMORY: Goal(lambda placed, bench: placed.memory(), peak_values)}
WORDS = {LATENCY: "latency", MEMORY: "peak memory above the baseline"}


def tune(
    variant: Variant, placed: PlacedVariant, feeds: Arrays, on_host: Arrays, agreement: Agreement | None, bench: Bench, cores: int
) -> Tuned:
    """Find the settings to keep; the plain ones if the variant does not say `engine: auto`. on_host: the outputs of the plain settings on
    this machine; agreement: of the device with them."""
    if variant.auto is None:
        return Tuned(placed, agreement)
    plain, goal = Point({}, placed, agreement), GOALS[variant.auto.goal]
    why_not = find_excuse(bench, feeds)
    if why_not:
        return conclude(variant.auto.goal, [plain], plain, why_not)
    points = [
        plain,
        *(Point(settings, with_settings(placed, settings)) for settings in make_grid(variant, placed.fields["settings"], cores)),
    ]
    short = replace(bench, blocks=1, block_s=min(BLOCK_S, bench.blocks * bench.block_s), min_samples=LEAST_RUNS * bench.processes)
    total = len(points) - 1 + MIN_PAIRS * len(points) + 2 * bench.processes
    with tqdm(total=total, desc=f"engine auto {variant.name}", unit="process", mininterval=0.5) as progress:
        for point in points[1:]:
            try_point(
                point,
                lambda point: setattr(point, "agreement", compare(on_host, compute_on_device(point.placed, feeds), variant)),
                progress,
            )
        run_in_turns(points, MIN_PAIRS, lambda point: point.runs.append(goal.measure(point.placed, short)), progress)
        best = find_best(points, goal)
        if best:
            run_in_turns([best, plain], bench.processes, lambda point: point.confirming.append(goal.measure(point.placed, short)), progress)
    return conclude(variant.auto.goal, points, *decide(variant.auto.goal, plain, best))


def find_excuse(bench: Bench, feeds: Arrays) -> str | None:
    """Why the grid is not tried; None if it is."""
    if not bench.claims or bench.processes < MIN_PAIRS:
        return f"profile {bench.name} claims nothing, so the plain settings are kept; set bench.name=quick to try the grid"
    if not feeds:
        return "bench.agreement_samples is 0, so a setting that changes the outputs would go unnoticed: the plain settings are kept"
    return None


def make_grid(variant: Variant, plain: Settings, cores: int) -> list[Settings]:
    """The points of the format's grid that keep what the user fixed and differ from `plain`. Only fewer threads than device.threads are
    tried, since all variants are compared at that number."""
    run = part(variant.module, "run")
    most, fixed = plain["threads"], set(variant.auto.fixed) if variant.auto else set()
    takes = run.ENGINE["threads"]
    halves = [most >> step for step in range(1, most.bit_length())]
    fewer = [{"threads": threads} for threads in halves if threads <= cores and (takes is None or threads in takes)]
    points = [*run.GRID, *(run.GRID_THREADED if most > 1 else ()), *fewer]
    return [point for point in points if not fixed & set(point) and {**plain, **point} != plain]


def with_settings(placed: PlacedVariant, settings: Settings) -> PlacedVariant:
    return replace(placed, fields={**placed.fields, "settings": {**placed.fields["settings"], **settings}})


def run_in_turns(points: Sequence[Point], rounds: int, work: Callable[[Point], Any], progress: Any) -> None:
    """Do the work for all points, forwards and backwards in turn, so that a steady drift cancels."""
    for turn in range(rounds):
        for point in points if turn % 2 == 0 else reversed(points):
            try_point(point, work, progress)


def try_point(point: Point, work: Callable[[Point], Any], progress: Any) -> None:
    """Do the work unless the point was refused before. A VariantFailed refuses the point; for the plain settings it is raised."""
    if point.refusal is None:
        try:
            work(point)
        except VariantFailed as failure:
            if not point.settings:
                raise
            point.refusal = str(failure)
    progress.update()


def find_best(points: Sequence[Point], goal: Goal) -> Point | None:
    """The point with the lowest ratio to the plain settings, points[0]; None if all others were refused."""
    able = [point for point in points[1:] if point.refusal is None]
    return min(able, key=lambda point: median_ratio(goal.values(point.runs), goal.values(points[0].runs)), default=None)


def decide(goal: str, plain: Point, best: Point | None) -> tuple[Point, str]:
    """The point to keep, and the reason."""
    if best is None:
        return plain, "plain settings kept: the grid has no other point that this device runs with the same outputs"
    if best.refusal:
        return plain, f"plain settings kept: {describe(best.settings)} was best and was then refused: {best.refusal}"
    candidate, base = (GOALS[goal].values(point.confirming) for point in (best, plain))
    low, high = ratio_interval(candidate, base)
    result = f"{median_ratio(candidate, base):.3f} [{low:.3f}, {high:.3f}] of the plain {WORDS[goal]}, {len(candidate)} further pairs"
    if high < 1:
        return best, f"kept {describe(best.settings)}: {result}"
    return plain, f"no difference, plain settings kept; the best other point, {describe(best.settings)}: {result}"


def conclude(goal: str, points: Sequence[Point], kept: Point, reason: str) -> Tuned:
    record = EngineAuto(
        goal=goal,
        kept=dict(kept.settings),
        settings=dict(kept.placed.fields["settings"]),
        reason=reason,
        points=tuple(make_row(goal, point, points[0], kept) for point in points),
    )
    return Tuned(kept.placed, kept.agreement, record, tuple(run for point in points for run in (*point.runs, *point.confirming)))


def make_row(goal: str, point: Point, plain: Point, kept: Point) -> EnginePoint:
    """The record of one point; its ratio comes from the turns, in which all points took part."""
    ratio_to_plain, interval = None, None
    if point.refusal is None and point.runs and point is not plain:
        values, base = (GOALS[goal].values(one.runs) for one in (point, plain))
        ratio_to_plain, interval = median_ratio(values, base), ratio_interval(values, base)
    verdict = "kept" if point is kept else describe_standing(point.refusal, interval)
    return EnginePoint(
        dict(point.settings), verdict, ratio_to_plain, interval, point.refusal, point.agreement.sqnr_db if point.agreement else None
    )


def describe_standing(refusal: str | None, ratio_ci95: tuple[float, float] | None) -> str:
    if refusal:
        return "refused"
    if ratio_ci95 is None:
        return "plain"
    low, high = ratio_ci95
    return "worse" if low > 1 else "lower, not confirmed" if high < 1 else "no difference"


def describe(settings: Settings) -> str:
    """Settings as the user writes them: arena=false, threads=2."""
    return ", ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items())
