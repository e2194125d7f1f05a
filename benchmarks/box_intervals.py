"""Are the intervals of detection and segmentation right, and how long do they take?

    python -m benchmarks.box_intervals coverage --repeats 400       how often they hold the truth, in simulated test sets (an hour)
    python -m benchmarks.box_intervals time                         5,000 pictures, 80 classes, 1,000 draws: as COCO's val2017

Coverage: two models on test sets drawn from a population, whose own scores are the truth. The interval of the difference is that of the
tasks; beside it the one of the mean average precision itself by the bootstrap, which is why the task gives none.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from edgewise.stats import average_precision, mean_iou, paired
from edgewise.stats.box_matching import Matches, match
from edgewise.stats.mean_iou import PixelCounts
from edgewise.stats.resampling import bootstrap, jackknife, percentile_interval
from edgewise.tasks.detection import compare_precision
from tests.support.coco_sets import make_set
from tests.support.judged_pictures import draw_matches, draw_pixels

DETECTION = (  # pictures, classes, objects in a picture, noise of the variant, share of detections that it lacks
    (60, 1, 6.0, 0.3, 0.03),
    (128, 3, 6.0, 0.3, 0.03),
    (128, 3, 6.0, 0.05, 0.002),
    (128, 80, 7.0, 0.3, 0.03),
    (500, 10, 7.0, 0.3, 0.03),
)
SEGMENTATION = ((30, 3, 0.1), (30, 11, 0.1), (100, 11, 0.05), (100, 11, 0.3), (233, 20, 0.1))  # pictures, classes, drift of the variant
Held = list[bool]


def holds(interval: tuple[float, float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def detection_held(case: tuple[int, int, float, float, float], repeats: int, seed: int) -> list[Held]:
    """For each test set whether the intervals hold the truth: of the difference, and of the first model's own score."""
    size, rest = case[0], case[1:]
    rng = np.random.default_rng(seed)
    truth = np.mean([[mean_of(each) for each in draw_matches(rng, 20_000, *rest)] for _ in range(2)], axis=0)
    found = []
    for _ in range(repeats):
        before, after = draw_matches(rng, size, *rest)
        own = bootstrap(partial(scores_of, before), np.zeros(size, int), draws=400)
        delta = compare_precision(before, after)[0].delta_ci95
        found.append([holds(delta, truth[1] - truth[0]), holds(percentile_interval(own), truth[0])])
    return found


def mean_of(matches: Matches) -> float:
    return float(average_precision.mean_precision(matches)[0].mean())


def scores_of(matches: Matches, counts: np.ndarray) -> np.ndarray:
    means: np.ndarray = average_precision.mean_precision(matches, counts).mean(axis=1)
    return means


def segmentation_held(case: tuple[int, int, float], repeats: int, seed: int) -> list[Held]:
    size, rest = case[0], case[1:]
    rng = np.random.default_rng(seed)
    truth = [mean_iou.mean_iou(each)[0] for each in draw_pixels(rng, 200_000, *rest)]
    found = []
    for _ in range(repeats):
        before, after = draw_pixels(rng, size, *rest)
        delta = paired.compare_jackknifed(partial(difference_of, before, after), size).delta_ci95
        own = jackknife(partial(mean_iou.mean_iou, before), size).interval
        found.append([holds(delta, truth[1] - truth[0]), holds(own, truth[0])])
    return found


def difference_of(before: PixelCounts, after: PixelCounts, counts: np.ndarray) -> np.ndarray:
    change: np.ndarray = mean_iou.mean_iou(after, counts) - mean_iou.mean_iou(before, counts)
    return change


def coverage(repeats: int, seed: int) -> None:
    print("held, of 100: difference, own score")
    simulations: tuple[tuple[str, tuple[tuple[float, ...], ...], Callable[..., list[Held]]], ...] = (
        ("mean average precision; pictures, classes, objects, noise, lacking", DETECTION, detection_held),
        ("mean IoU; pictures, classes, drift", SEGMENTATION, segmentation_held),
    )
    for words, cases, simulate in simulations:
        print(words)
        for case in cases:
            delta, own = 100 * np.mean(simulate(case, repeats, seed), axis=0)
            print(f"  {case}: {delta:.1f}, {own:.1f}", flush=True)


def measure_time(pictures: int, labels: int) -> None:
    found, truth = make_set(pictures, labels, objects=7.3, false=90)
    print(f"{pictures:,} pictures, {labels} classes, {len(truth.areas):,} objects, {len(found.scores):,} detections")
    started = time.perf_counter()
    matches = match(found, truth, pictures, labels)
    print(f"match: {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    average_precision.summarize(matches)
    print(f"all figures: {time.perf_counter() - started:.1f} s")
    started = time.perf_counter()
    compare_precision(matches, matches)
    print(f"interval of the difference of two models: {time.perf_counter() - started:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    covering = commands.add_parser("coverage", help="how often intervals hold the truth")
    covering.add_argument("--repeats", type=int, default=400)
    covering.add_argument("--seed", type=int, default=1)
    timing = commands.add_parser("time", help="how long matching and intervals take")
    timing.add_argument("--pictures", type=int, default=5000)
    timing.add_argument("--classes", type=int, default=80)
    given = parser.parse_args()
    if given.command == "coverage":
        coverage(given.repeats, given.seed)
    else:
        measure_time(given.pictures, given.classes)


if __name__ == "__main__":
    main()
