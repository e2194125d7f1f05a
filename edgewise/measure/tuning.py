"""`engine: auto`: the format's grid of engine settings (GRID of its run.py), tried on the device; the best one is kept.

Every point first has to answer as the variant's plain settings do on this machine, within the scheme's tolerance. The points then take
turns, the plain settings among them, each time in a fresh process. The best of them is only a candidate, since the luckiest of several
looks better than it is: it is measured again in pairs with the plain settings, and kept where the interval of that ratio lies below 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.artifacts.records import Agreement, EngineAuto, EnginePoint
from edgewise.config.schema import LATENCY, MEMORY, Bench, Variant, part
from edgewise.errors import VariantFailed
from edgewise.measure.agreement import Arrays, compare, there
from edgewise.measure.outcomes import memory_of
from edgewise.measure.pairs import LEAST_PAIRS
from edgewise.measure.subjects import Run, Subject, side
from edgewise.stats.timing import Side, ratio, ratio_interval

BLOCK_S, LEAST_RUNS = 0.4, 10  # of one process: all points have to take their turns in a minute or so
Settings = Mapping[str, Any]


@dataclass
class Point:
    """One point of the grid: the settings in which it differs from the plain ones (none: it is the plain ones), and its runs."""

    settings: Settings
    subject: Subject
    found: Agreement | None = None
    refusal: str | None = None
    runs: list[Run] = field(default_factory=list)
    confirming: list[Run] = field(default_factory=list)


@dataclass(frozen=True)
class Tuned:
    """The subject with the settings that were kept, how its outputs agree, what the record says, and every run behind it."""

    subject: Subject
    agreement: Agreement | None
    record: EngineAuto | None = None
    runs: tuple[Run, ...] = ()


@dataclass(frozen=True)
class Goal:
    """What is to be small: how one process measures it, and the blocks of values in its run."""

    take: Callable[[Subject, Bench], Run]
    side: Callable[[Sequence[Run]], Side]


def peaks(runs: Sequence[Run]) -> Side:
    """Of each process one value: the peak of its memory above the baseline, at least one byte."""
    return [[np.array([max(1.0, memory_of(run).peak_rss_above_baseline_bytes)])] for run in runs]


GOALS = {LATENCY: Goal(Subject.latency, side), MEMORY: Goal(lambda subject, bench: subject.memory(), peaks)}
WORDS = {LATENCY: "latency", MEMORY: "peak memory above the baseline"}


def grid(variant: Variant, plain: Settings, cores: int) -> list[Settings]:
    """The points of a variant's format that leave what the user fixed as it is and differ from `plain`. Threads: down from what the
    device may use, for the record compares like with like only up to there."""
    run = part(variant.module, "run")
    most, fixed = plain["threads"], set(variant.auto.fixed) if variant.auto else set()
    fewer = [{"threads": most >> step} for step in range(1, most.bit_length()) if most >> step <= cores]
    points = [*run.GRID, *(run.GRID_THREADED if most > 1 else ()), *fewer]
    return [point for point in points if not fixed & set(point) and {**plain, **point} != plain]


def tune(variant: Variant, subject: Subject, feeds: Arrays, here: Arrays, found: Agreement | None, bench: Bench, cores: int) -> Tuned:
    """here: what the plain settings answer on this machine, found: how the device agrees with them. The subject as it is where the
    variant asks for nothing."""
    if variant.auto is None:
        return Tuned(subject, found)
    plain, goal = Point({}, subject, found), GOALS[variant.auto.goal]
    why_not = excuse(bench, feeds)
    if why_not:
        return concluded(variant.auto.goal, [plain], plain, why_not)
    points = [plain, *(Point(settings, changed(subject, settings)) for settings in grid(variant, subject.fields["settings"], cores))]
    short = replace(bench, blocks=1, block_s=min(BLOCK_S, bench.blocks * bench.block_s), min_samples=LEAST_RUNS * bench.processes)
    total = len(points) - 1 + LEAST_PAIRS * len(points) + 2 * bench.processes
    with tqdm(total=total, desc=f"engine auto {variant.name}", unit="process", mininterval=0.5) as progress:
        for point in points[1:]:
            attempt(point, lambda point: setattr(point, "found", compare(here, there(point.subject, feeds), variant)), progress)
        take_turns(points, LEAST_PAIRS, lambda point: point.runs.append(goal.take(point.subject, short)), progress)
        best = candidate(points, goal)
        if best:
            take_turns([best, plain], bench.processes, lambda point: point.confirming.append(goal.take(point.subject, short)), progress)
    return concluded(variant.auto.goal, points, *verdict(variant.auto.goal, plain, best))


def excuse(bench: Bench, feeds: Arrays) -> str | None:
    """Why nothing is tried, where that is so."""
    if not bench.claims or bench.processes < LEAST_PAIRS:
        return f"profile {bench.name} claims nothing, so the plain settings stay; bench.name=quick tries the grid"
    if not feeds:
        return "bench.agreement_samples is 0, and another setting could change the answers unseen: the plain settings stay"
    return None


def changed(subject: Subject, settings: Settings) -> Subject:
    return replace(subject, fields={**subject.fields, "settings": {**subject.fields["settings"], **settings}})


def take_turns(points: Sequence[Point], rounds: int, work: Callable[[Point], Any], progress: Any) -> None:
    """All of them in turn, there and back again, so that a steady drift cancels."""
    for turn in range(rounds):
        for point in points if turn % 2 == 0 else reversed(points):
            attempt(point, work, progress)


def attempt(point: Point, work: Callable[[Point], Any], progress: Any) -> None:
    """Do it, unless the point was refused before. What the runtime refuses, or what answers otherwise, is the point's own failure; that
    of the plain settings is the variant's."""
    if point.refusal is None:
        try:
            work(point)
        except VariantFailed as failure:
            if not point.settings:
                raise
            point.refusal = str(failure)
    progress.update()


def candidate(points: Sequence[Point], goal: Goal) -> Point | None:
    able = [point for point in points[1:] if point.refusal is None]
    return min(able, key=lambda point: ratio(goal.side(point.runs), goal.side(points[0].runs)), default=None)


def verdict(goal: str, plain: Point, best: Point | None) -> tuple[Point, str]:
    """The point to keep, and why in words."""
    if best is None:
        return plain, "the plain settings stay: the grid has no other point that this device runs with the same answers"
    if best.refusal:
        return plain, f"the plain settings stay: {told(best.settings)} was best and then refused: {best.refusal}"
    own, its = (GOALS[goal].side(point.confirming) for point in (best, plain))
    low, high = ratio_interval(own, its)
    said = f"{ratio(own, its):.3f} [{low:.3f}, {high:.3f}] of the {WORDS[goal]} of the plain settings, in {len(own)} further pairs"
    if high < 1:
        return best, f"kept {told(best.settings)}: {said}"
    return plain, f"no difference, the plain settings stay; the best other point, {told(best.settings)}: {said}"


def concluded(goal: str, points: Sequence[Point], kept: Point, reason: str) -> Tuned:
    record = EngineAuto(
        goal=goal,
        kept=dict(kept.settings),
        settings=dict(kept.subject.fields["settings"]),
        reason=reason,
        points=tuple(row(goal, point, points[0], kept) for point in points),
    )
    return Tuned(kept.subject, kept.found, record, tuple(run for point in points for run in (*point.runs, *point.confirming)))


def row(goal: str, point: Point, plain: Point, kept: Point) -> EnginePoint:
    """One line of the grid's table; the ratio is that of the turns, in which all points took part."""
    against, interval = None, None
    if point.refusal is None and point.runs and point is not plain:
        own, its = (GOALS[goal].side(one.runs) for one in (point, plain))
        against, interval = ratio(own, its), ratio_interval(own, its)
    verdict = "kept" if point is kept else standing(point.refusal, interval)
    return EnginePoint(dict(point.settings), verdict, against, interval, point.refusal, point.found.sqnr_db if point.found else None)


def standing(refusal: str | None, ratio_ci95: tuple[float, float] | None) -> str:
    if refusal:
        return "refused"
    if ratio_ci95 is None:
        return "plain"
    low, high = ratio_ci95
    return "worse" if low > 1 else "lower, not confirmed" if high < 1 else "no difference"


def told(settings: Settings) -> str:
    """arena=false, threads=2."""
    return ", ".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in settings.items())
