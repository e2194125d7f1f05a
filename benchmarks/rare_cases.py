"""Do the intervals hold where the cases that count are few?

    python -m benchmarks.rare_cases auroc           differences of AUROC, 5 to 100 positives (2 minutes)
    python -m benchmarks.rare_cases recall          differences of the recall at 5 % false positives (8 minutes)
    python -m benchmarks.rare_cases shares          recall at a threshold, accuracy: all outcomes counted, nothing drawn (5 s)
    python -m benchmarks.rare_cases precision       mAP, 5 to 100 pictures (4 minutes)
    python -m benchmarks.rare_cases equivalence     how often a difference as large as the margin is called equivalent (a minute)

Each line gives the share of test sets whose 95 % interval holds the truth, before (the percentile bootstrap, Tango's interval) and now, and
the median width of both. The truth is known: by formula, or from a population of 20,000 pictures.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from statistics import NormalDist

import numpy as np

from edgewise.stats import claims, paired, ranking
from edgewise.stats.average_precision import mean_precision
from edgewise.stats.ranking import Ranking
from edgewise.stats.resampling import bootstrap, percentile_interval
from edgewise.stats.roc_difference import compare_auroc, compare_recall
from edgewise.tasks.detection import compare_precision
from tests.support.judged_pictures import draw_matches
from tests.support.rare_scores import AREAS, CHANGES, apart, draw_scores

POSITIVES, NEGATIVES, FALSE_POSITIVES = (5, 11, 30, 100), 200, 0.05
FLIPS = (0.0, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4)
PICTURES = ((5, 1.0), (5, 4.0), (11, 1.0), (30, 1.0), (100, 1.0))  # pictures, objects in each on average
DRIFTS = ((0.05, 0.0), (0.3, 0.03), (0.5, 0.1))  # noise of the variant, share of detections that it lacks
Interval = tuple[float, float]


@dataclass
class Held:
    """How often an interval held the truth, and how wide it was."""

    held: list[bool]
    widths: list[float]

    @classmethod
    def empty(cls) -> "Held":
        return cls([], [])

    def add(self, interval: Interval, truth: float) -> None:
        self.held.append(interval[0] <= truth <= interval[1])
        self.widths.append(interval[1] - interval[0])

    def __str__(self) -> str:
        return f"{100 * np.mean(self.held):5.1f} % ({100 * np.median(self.widths):5.1f})"


def bootstrap_auroc(before: np.ndarray, after: np.ndarray, positive: np.ndarray) -> Interval:
    """As it was: the percentile interval, and 0 of as many positives where no draw differs."""
    orders = [Ranking.of(scores, positive) for scores in (before, after)]
    draws = bootstrap(lambda weights: ranking.auroc(orders[1], weights) - ranking.auroc(orders[0], weights), positive, draws=400)
    if np.std(draws) == 0:
        return -paired.zero_bound(int(positive.sum())), paired.zero_bound(int(positive.sum()))
    return percentile_interval(draws, max(3, int(positive.sum())))


def check_auroc(repeats: int) -> None:
    print("change of the variant, positives, AUROC: before, now (median width, points)")
    lowest: dict[str, list[float]] = {}
    for change, positives, area in product(CHANGES, POSITIVES, AREAS):
        before, now, rng = Held.empty(), Held.empty(), np.random.default_rng([positives, int(100 * area)])
        for _ in range(repeats):
            drawn = draw_scores(rng, positives, NEGATIVES, area, change)
            now.add(compare_auroc(*drawn.scores).delta_ci95, drawn.truth)
            if len(before.held) < repeats // 4:
                before.add(bootstrap_auroc(*drawn.scores), drawn.truth)
        lowest.setdefault(change, []).append(float(np.mean(now.held)))
        print(f"{change:10} {positives:4} {area:.2f}  {before}  {now}", flush=True)
    print("lowest:", {change: f"{100 * min(found):.1f} %" for change, found in lowest.items()})


def check_recall(repeats: int) -> None:
    print(f"change of the variant, positives, AUROC: recall at {FALSE_POSITIVES:.0%}: before, now (median width, points)")
    for change, positives, area in product(("rounding", "int8", "noisier", "worse"), POSITIVES, AREAS):
        was, now, rng = Held.empty(), Held.empty(), np.random.default_rng([positives, int(100 * area)])
        truth = true_recall(area, *CHANGES[change][:2]) - true_recall(area, 0.0, 0.0)
        for _ in range(repeats):
            before, after, positive = draw_scores(rng, positives, NEGATIVES, area, change).scores
            was.add(bootstrap_recall(before, after, positive), truth)
            now.add(compare_recall(before, after, positive, FALSE_POSITIVES).delta_ci95, truth)
        print(f"{change:10} {positives:4} {area:.2f}  {was}  {now}", flush=True)


def bootstrap_recall(before: np.ndarray, after: np.ndarray, positive: np.ndarray) -> Interval:
    """The percentile interval."""
    orders = [Ranking.of(scores, positive) for scores in (before, after)]

    def difference(weights: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.subtract(*(ranking.recall_at_fpr(order, weights, FALSE_POSITIVES) for order in orders[::-1]))
        return found

    return percentile_interval(bootstrap(difference, positive, draws=400), max(3, int(positive.sum())))


def true_recall(area: float, noise: float, loss: float) -> float:
    """Of normal scores with this noise and this loss of the positives."""
    normal, scale = NormalDist(), math.sqrt(1 + noise**2)
    return 1 - normal.cdf(normal.inv_cdf(1 - FALSE_POSITIVES) - (apart(area) - loss) / scale)


def outcomes(samples: int) -> np.ndarray:
    """All (gained, lost) of so many samples, [k, 2]."""
    every = np.array(list(product(range(samples + 1), repeat=2)))
    possible: np.ndarray = every[every.sum(axis=1) <= samples]
    return possible


def chances(every: np.ndarray, samples: int, gain: float, loss: float) -> np.ndarray:
    """The probability of each outcome."""
    logs = np.array([math.lgamma(i + 1) for i in range(samples + 1)])
    counts = np.column_stack([every, samples - every.sum(axis=1)])
    rates = np.array([gain, loss, 1 - gain - loss])
    terms = np.where(counts > 0, counts * np.log(np.maximum(rates, 1e-300)), 0.0)
    found: np.ndarray = np.exp(logs[samples] - logs[counts].sum(axis=1) + terms.sum(axis=1))
    return found


def lowest_coverage(every: np.ndarray, samples: int, ends: np.ndarray) -> float:
    """The lowest chance over all rates of FLIPS that the interval of an outcome holds the truth. ends: [k, 2]."""
    found = []
    for gain, loss in product(FLIPS, FLIPS):
        holds = (ends[:, 0] <= gain - loss + 1e-12) & (gain - loss - 1e-12 <= ends[:, 1])
        found.append(float(chances(every, samples, gain, loss)[holds].sum()))
    return min(found)


def check_shares(repeats: int) -> None:
    print("samples: lowest coverage over all rates of flips, Tango's interval, now; interval of 0 flips; of 1 lost")
    for samples in POSITIVES:
        every = outcomes(samples)
        ways: tuple[Callable[[int, int, int], Interval], ...] = (paired.tango_interval, paired.share_interval)
        was, now = (lowest_coverage(every, samples, np.array([way(g, lost, samples) for g, lost in every.tolist()])) for way in ways)
        shown = (", ".join(f"{100 * end:+.1f}" for end in paired.share_interval(0, lost, samples)) for lost in (0, 1))
        print(f"{samples:4}: {100 * was:.1f} %, {100 * now:.1f} %; [{'], ['.join(shown)}]", flush=True)


def mean_of(matches: object) -> float:
    return float(mean_precision(matches)[0].mean())  # type: ignore[arg-type]


def check_precision(repeats: int) -> None:
    print("pictures, objects in each, noise, share of lost detections: before, now (median width, points)")
    for (size, objects), (noise, drop) in product(PICTURES, DRIFTS):
        rng = np.random.default_rng([size, int(100 * noise)])
        population = [draw_matches(rng, 10_000, 1, objects, noise, drop) for _ in range(2)]
        truth = float(np.mean([mean_of(after) - mean_of(before) for before, after in population]))
        was, now = Held.empty(), Held.empty()
        for _ in range(repeats):
            before, after = draw_matches(rng, size, 1, objects, noise, drop)
            if not before.object_pictures.size:
                continue
            was.add(bootstrap_precision(before, after), truth)
            now.add(compare_precision(before, after)[0].delta_ci95, truth)
        print(f"{size:4} {objects:.0f} {noise:.2f} {drop:.2f}  {was}  {now}", flush=True)


def bootstrap_precision(before, after) -> Interval:  # type: ignore[no-untyped-def]
    """As it was: the percentile interval."""
    draws = bootstrap(
        lambda counts: (mean_precision(after, counts) - mean_precision(before, counts)).mean(axis=1), np.zeros(before.size, int), draws=400
    )
    draws = draws[~np.isnan(draws)]
    least = len(np.unique(before.object_pictures))
    if np.std(draws) == 0:
        return -paired.zero_bound(least), paired.zero_bound(least)
    return percentile_interval(draws, max(3, least))


def check_equivalence(repeats: int) -> None:
    print("false claims of equivalence where the truth is the margin: AUROC by change, positives, AUROC; shares by samples, flips")
    worst = 0.0
    for change, positives, area in product(("worse", "noisier"), POSITIVES, AREAS):
        rng, said = np.random.default_rng([positives, int(100 * area)]), []
        for _ in range(repeats):
            drawn = draw_scores(rng, positives, NEGATIVES, area, change)
            said.append(claims.claim(compare_auroc(*drawn.scores).delta_ci95, abs(drawn.truth)) == claims.EQUIVALENT)
        worst = max(worst, float(np.mean(said)))
        print(f"{change:10} {positives:4} {area:.2f}  margin {100 * abs(drawn.truth):4.1f}: {100 * np.mean(said):.1f} %", flush=True)
    for samples, loss in product((30, 100, 300), (0.02, 0.05, 0.1)):
        every = outcomes(samples)
        called = [claims.claim(paired.share_interval(g, lost, samples), loss) == claims.EQUIVALENT for g, lost in every.tolist()]
        found = float(chances(every, samples, 0.01, loss + 0.01)[called].sum())
        worst = max(worst, found)
        print(f"shares     {samples:4} margin {100 * loss:4.1f}: {100 * found:.1f} %", flush=True)
    print(f"at most: {100 * worst:.1f} %")


COMMANDS = {
    "auroc": (check_auroc, 400),
    "recall": (check_recall, 100),
    "shares": (check_shares, 1),
    "precision": (check_precision, 300),
    "equivalence": (check_equivalence, 400),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=COMMANDS)
    parser.add_argument("--repeats", type=int, help="test sets for each line")
    given = parser.parse_args()
    check, repeats = COMMANDS[given.what]
    check(given.repeats or repeats)


if __name__ == "__main__":
    main()
