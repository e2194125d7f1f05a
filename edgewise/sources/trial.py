"""Is the model fed as it was trained? It is tried on a hundred labelled samples, and where it is often wrong, so are the common ways to
preprocess pictures: the best of them is named, as the settings that give it, where up to five hundred samples confirm that it is better
than what is set (McNemar's test, on the same samples). The test split stays unseen.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.artifacts.samples import CLASSES, Samples
from edgewise.stats.paired import mcnemar_exact

Arrays = dict[str, np.ndarray]
Values = Mapping[str, Sequence[float]]  # data.range, data.mean, data.std
Score = Callable[[Arrays], np.ndarray]  # feeds [n, ...] to scores [n, labels]

SAMPLES, CONFIRM = 100, 500
GOOD_ENOUGH = 0.9  # right in so many: nothing else is tried
ALPHA = 0.001  # some twenty ways are tried: one in fifty trials of a model that is fed rightly may name another
CHANCE_ALPHA = 0.01
IMAGENET: Values = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CAFFE: Values = {"range": [0, 255], "mean": [103.939, 116.779, 123.68]}
MNIST: Values = {"mean": [0.1307], "std": [0.3081]}
VALUES: tuple[Values, ...] = (  # the commonest first: of equally good ones the first is named
    {"range": [0, 255]},
    {"range": [0, 1]},
    {"range": [-1, 1]},
    IMAGENET,
    CAFFE,
    MNIST,
    {"range": [-128, 127]},
    {"range": [255, 0]},
    {"range": [1, 0]},
    {"range": [1, -1]},
)


@dataclass(frozen=True)
class Trial:
    """right: of `samples`, as the settings say; warning: what the user should know, or None."""

    samples: int
    right: int
    warning: str | None


def run(score: Score, samples: Samples, seed: int = 0) -> Trial | None:
    """None where the data have no labelled sample outside of test, or no classes."""
    pool = np.concatenate([samples.indices(split) for split in ("train", "validation", "calibration")])
    if not len(pool) or samples.kind != CLASSES:
        return None
    drawn = np.random.default_rng(seed).permutation(pool)
    chosen = drawn[:SAMPLES]
    targets = samples.targets(chosen)
    answers = score(samples.feeds(chosen)).argmax(1)
    right = int((answers == targets).sum())
    if right >= GOOD_ENOUGH * len(chosen):
        return Trial(len(chosen), right, None)
    warning = _better(score, samples, drawn, right) or _hopeless(answers, targets, len(samples.labels))
    return Trial(len(chosen), right, warning)


def _better(score: Score, samples: Samples, drawn: np.ndarray, right: int) -> str | None:
    """Names the way that is right most often, where it is significantly better than the one that is set."""
    if samples.preprocessing["kind"] != "image":
        return None
    found = [(int(_hits(score, samples, drawn[:SAMPLES], spec).sum()), told, spec) for told, spec in ways(samples.preprocessing)]
    most, told, spec = max(found, key=lambda entry: entry[0])
    if most <= right:
        return None
    chosen = drawn[:CONFIRM]
    now, then = (_hits(score, samples, chosen, each) for each in (samples.preprocessing, spec))
    if mcnemar_exact(int((then & ~now).sum()), int((now & ~then).sum())) >= ALPHA or then.sum() <= now.sum():
        return None
    if not _beats_chance(int(then.sum()), samples.targets(chosen)):
        return None
    return (
        f"the model is right on {now.mean():.0%} of {len(chosen)} samples as they are preprocessed now, and on {then.mean():.0%}"
        f" with {told}: probably it was trained so (the test split was not looked at)"
    )


def _hits(score: Score, samples: Samples, chosen: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """Whether the answer is right, bool [n], for pictures that are preprocessed by `spec`."""
    feeds = {name: preprocess.normalize(stored, spec) for name, stored in samples.raw(chosen).items()}
    hits: np.ndarray = score(feeds).argmax(1) == samples.targets(chosen)
    return hits


def ways(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Settings in words, and the spec that they give; not the one that is set already."""
    channels = spec["channels"]
    for order in ("RGB", "BGR") if channels == 3 else ("RGB",):
        for given in VALUES:
            if len(given.get("mean", ())) > channels:
                continue
            limits = given.get("range") or (0, 1)
            changes = preprocess.values(limits, given.get("mean") or (0,), given.get("std") or (1,), channels)
            changed = {**spec, **changes, "order": order, "dtype": "float32"}
            if any(not np.allclose(changed[key], spec[key]) for key in changes) or order != spec.get("order", "RGB"):
                words = [f"data.{key}={list(value)}".replace(" ", "") for key, value in given.items()]
                yield " ".join([*words, *(["data.channel_order=bgr"] if order == "BGR" else [])]), changed


def _hopeless(answers: np.ndarray, targets: np.ndarray, classes: int) -> str | None:
    """Where the model does no better than chance, and no common way helps: what else is often wrong."""
    count, right = len(targets), int((answers == targets).sum())
    if _beats_chance(right, targets):
        return None
    reordered = _reordered(answers, targets, classes)
    why = f"in another order of the classes it would be right on {reordered}" if reordered > right else "no common preprocessing helps"
    return (
        f"the model is right on {right} of {count} samples, no better than chance; {why}:"
        " check that the classes stand in the model's order (data.label_names=FILE) and that it was trained on such data"
    )


def _beats_chance(right: int, targets: np.ndarray) -> bool:
    """Whether so many right answers are too many for one who always names the commonest class (binomial test, one side)."""
    count = len(targets)
    chance = float(np.bincount(targets).max() / count)
    return sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(right, count + 1)) < CHANCE_ALPHA


def _reordered(answers: np.ndarray, targets: np.ndarray, classes: int) -> int:
    """Right answers if each answer stood for the class that it mostly goes with, learned on one half and counted on the other,
    both ways round."""
    halves = np.arange(len(targets)) % 2 == 0
    right = 0
    for half in (halves, ~halves):
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (answers[half], targets[half]), 1)
        right += int((table.argmax(1)[answers[~half]] == targets[~half]).sum())
    return right
