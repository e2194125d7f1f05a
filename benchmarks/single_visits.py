"""A against B with truth, visit by visit: how often does the interval of a single visit hold what all other visits say?

    python -m benchmarks.trust visits --variants onnx-int8-static onnx-fp16 --visits 20 --minutes 40 --busy 1

Every visit is a measurement as the bench stage makes it, quiet and beside busy cores in turn. The truth for a visit is the mean log ratio
of all other visits of the same variant in the same condition. `with trust` are the intervals of the report, from the trust that
`edgewise trust` has measured on this device before; `alone` is that of the visit itself. The visits are not added to the store.
They are written to the file `--raw` after each round, and a run that was stopped, or that asks for more visits, goes on with them.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewise.artifacts.visits import Trust, Visit
from edgewise.config.schema import Bench, to_plain
from edgewise.errors import UserError
from edgewise.measure.collecting import read_trust, to_measured
from edgewise.measure.pairs import make_pair_runner, make_visit, measure_pairs
from edgewise.measure.runs import PlacedVariant
from edgewise.measure.trust import spread_over_time
from edgewise.stats.random_effects import Measured, Spread, between_visits, pool

QUIET = "quiet"
Busy = Callable[[int], AbstractContextManager[None]]
Found = dict[str, dict[str, list[Visit]]]  # variant -> condition -> its visits


@dataclass(frozen=True)
class Plan:
    """count: visits of each variant in each condition. busy: cores that `neighbours` keeps busy in every second round."""

    count: int
    minutes: float
    busy: int
    neighbours: Busy


COLUMNS = (
    *("variant", "condition", "visits", "hold the truth with trust", "alone", "median width with trust", "alone"),
    *("ratios", "sd between visits", "seconds a visit"),
)


def known_trust() -> Trust:
    """Of this device, as the report uses it; UserError before `edgewise trust` has run."""
    found = read_trust()
    if found is None:
        raise UserError("this device has no trust yet: run `edgewise trust && dvc repro` first")
    return found


def visit_in_turns(
    placed: Sequence[PlacedVariant], reference: PlacedVariant, bench: Bench, plan: Plan, found: Found, keep: Callable[[Found], None]
) -> Found:
    """The visits of the plan, evenly over its time. The order of the variants alternates. found: visits made before. keep: called after
    each round."""
    conditions = [0, plan.busy] if plan.busy else [0]
    runners = {variant.name: make_pair_runner(variant, reference, bench) for variant in placed}
    found = {v.name: {(c := name_condition(cores)): found.get(v.name, {}).get(c, []) for cores in conditions} for v in placed}
    made = min(sum(map(len, each.values())) for each in found.values())
    for number in spread_over_time(plan.count * len(conditions) - made, 60 * plan.minutes):
        cores = conditions[(made + number) % len(conditions)]
        with plan.neighbours(cores):
            for variant in placed if number // len(conditions) % 2 == 0 else placed[::-1]:
                start = time.monotonic()
                pairs = measure_pairs(runners[variant.name], bench, variant.name)
                names = {"key": "", "variant": variant.name, "reference": reference.name}
                visit = make_visit(pairs, bench, time.monotonic() - start, **names)
                if visit is None:
                    raise UserError(f"the profile {bench.name} gives no interval; use --profile quick or standard")
                found[variant.name][name_condition(cores)].append(visit)
        keep(found)
    return found


def name_condition(cores: int) -> str:
    return f"{cores} busy" if cores else QUIET


def rows(found: Found, trust: Trust) -> Iterator[tuple[str, ...]]:
    """The cells of the table."""
    for name, conditions in found.items():
        known = trust.own.get(name, trust)
        spread = Spread(known.log_variance, known.degrees)
        for condition, made in conditions.items():
            measured = [to_measured(visit) for visit in made]
            own = between_visits([measured])
            held = [(count_holding(measured, each), median_width(measured, each)) for each in (spread, None)]
            ratios = [visit.ratio for visit in made]
            yield (
                *(name, condition, str(len(made)), f"{held[0][0]} of {len(made)}", f"{held[1][0]} of {len(made)}"),
                *(f"{held[0][1]:.1%}", f"{held[1][1]:.1%}", f"{min(ratios):.3f} .. {max(ratios):.3f}"),
                *(f"{own.deviation:.1%}" if own else "", f"{np.median([visit.seconds for visit in made]):.0f}"),
            )


def count_holding(measured: Sequence[Measured], spread: Spread | None) -> int:
    """How many intervals of single visits hold the mean of all others, which is known well but not exactly: 20 visits that move by a
    standard deviation of 2 % know it to 0.5 %."""
    count = 0
    for number, visit in enumerate(measured):
        truth = math.exp(np.mean([other.log_ratio for place, other in enumerate(measured) if place != number]))
        low, high = pool([visit], spread).interval()
        count += low <= truth <= high
    return count


def median_width(measured: Sequence[Measured], spread: Spread | None) -> float:
    """Of the whole interval, as a share of the ratio."""
    estimates = [pool([visit], spread) for visit in measured]
    return float(np.median([(each.interval()[1] - each.interval()[0]) / each.ratio for each in estimates]))


def describe(found: Found, trust: Trust) -> str:
    head = (
        f"trust: ratios move by {100 * math.sqrt(trust.log_variance):.2g} % (standard deviation), {trust.degrees:.3g} degrees of freedom,"
        f" {trust.visits} visits of {', '.join(trust.variants)}"
    )
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows(found, trust)]
    return "\n".join([head, "", *("| " + " | ".join(cells) + " |" for cells in lines)])


def write_raw(found: Found, trust: Trust, path: Path) -> None:
    """Every visit, to be looked at again."""
    path.write_text(json.dumps({"trust": to_plain(trust), "visits": to_plain(dict(found))}, indent=1) + "\n", encoding="utf-8")
