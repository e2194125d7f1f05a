"""How often is a verdict of one run contradicted by what several runs say together?

    python -m benchmarks.trust verdicts --visits 5 --margin 0.03

Every variant is visited once a run, in another order each time, as the bench stage does it. For every run the verdicts are those of the
report: faster, slower or equivalent to the reference, and of each two variants which one is faster. The truth is the mean log ratio of
the other runs. A verdict is contradicted where the truth lies on the other side: at or above 1 for "faster", outside the margin for
"equivalent", in the other order for two variants.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from edgewise.artifacts.visits import Trust, Visit
from edgewise.measure.collecting import to_measured
from edgewise.stats import claims
from edgewise.stats.random_effects import Measured, Spread, pool

Runs = Mapping[str, Sequence[Visit]]  # variant -> its visit in each run
Verdict = tuple[str, str, bool]  # what kind it is, what it says, whether the truth contradicts it

TO_REFERENCE, OF_TWO = "to the reference", "of two variants"


def verdicts_of_run(runs: Runs, number: int, spread: Spread | None, noise: claims.Interval | None, margin: float) -> Iterator[Verdict]:
    """spread: between visits; None: each interval is that of its visit. noise: the reference against itself in this run."""
    measured = {name: [to_measured(visit) for visit in visits] for name, visits in runs.items()}
    intervals = {name: pool([visits[number]], spread).interval() for name, visits in measured.items()}
    truths = {name: mean_of_others(visits, number) for name, visits in measured.items()}
    for name, interval in intervals.items():
        said = claims.ratio_claim(interval, margin, noise)
        yield TO_REFERENCE, said, contradicts(said, truths[name], margin)
    for one, other in combinations(intervals, 2):
        said = claims.ratio_claim(intervals[one], None, beside=intervals[other])
        yield OF_TWO, said, contradicts(said, truths[one] - truths[other], margin)


def mean_of_others(visits: Sequence[Measured], number: int) -> float:
    return float(np.mean([visit.log_ratio for place, visit in enumerate(visits) if place != number]))


def contradicts(said: str, truth: float, margin: float) -> bool:
    """truth: a log ratio."""
    wrong = {claims.FASTER: truth >= 0, claims.SLOWER: truth <= 0, claims.EQUIVALENT: abs(truth) >= math.log1p(margin)}
    return wrong.get(said, False)


def rows(runs: Runs, itself: Sequence[Visit], spread: Spread | None, label: str, margin: float) -> Iterator[tuple[str, ...]]:
    """itself: the reference against itself in each run."""
    said: Counter[tuple[str, str]] = Counter()
    wrong: Counter[tuple[str, str]] = Counter()
    for number, visit in enumerate(itself):
        noise = claims.device_noise(pool([to_measured(visit)], None).interval())
        for kind, verdict, contradicted in verdicts_of_run(runs, number, spread, noise, margin):
            said[kind, verdict] += 1
            wrong[kind, verdict] += contradicted
    for (kind, verdict), count in sorted(said.items()):
        yield label, kind, verdict, str(count), str(wrong[kind, verdict]) if verdict != claims.NOT_RESOLVED else "-"


def describe(runs: Runs, itself: Sequence[Visit], trust: Trust, margin: float) -> str:
    columns = ("intervals", "verdict", "says", "times", "contradicted by the other runs")
    found = [
        *rows(runs, itself, Spread(trust.log_variance, trust.degrees), "with `edgewise trust`", margin),
        *rows(runs, itself, None, "of the visit alone", margin),
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (columns, ("---",) * len(columns), *found))
