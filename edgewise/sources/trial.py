"""Try whether the preprocessing is that of the model's training.

The model is tried on a hundred labelled samples. If it is often wrong, common ways to preprocess pictures are tried too. The best of them
is suggested, as settings, if it is significantly better on up to five hundred samples (McNemar's test, paired). The test split is not used.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import CLASSES
from edgewise.stats.paired import mcnemar_p

Arrays = dict[str, np.ndarray]
Values = Mapping[str, Sequence[float]]  # data.range, data.mean, data.std
Score = Callable[[Arrays], np.ndarray]  # feeds [n, ...] to scores [n, labels]

SAMPLES, CONFIRM = 100, 500
GOOD_ENOUGH = 0.9  # accuracy from which on nothing else is tried
ALPHA = 0.001  # about twenty ways are tried, so a false suggestion has a probability of 1 in 50 at most
CHANCE_ALPHA = 0.01
IMAGENET: Values = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
CAFFE: Values = {"range": [0, 255], "mean": [103.939, 116.779, 123.68]}
MNIST: Values = {"mean": [0.1307], "std": [0.3081]}
VALUES: tuple[Values, ...] = (  # most common first: of equally good ones the first is suggested
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
    """correct: predictions on `samples` samples with the current settings; warning: what the user should know, or None."""

    samples: int
    correct: int
    warning: str | None


def try_preprocessing(score: Score, samples: Samples, seed: int = 0) -> Trial | None:
    """None if there are no samples outside of test, or the targets are not classes."""
    pool = np.concatenate([samples.indices(split) for split in ("train", "validation", "calibration")])
    if not len(pool) or samples.kind != CLASSES:
        return None
    drawn = np.random.default_rng(seed).permutation(pool)
    chosen = drawn[:SAMPLES]
    targets = samples.targets(chosen)
    predicted = score(samples.feeds(chosen)).argmax(1)
    correct = int((predicted == targets).sum())
    if correct >= GOOD_ENOUGH * len(chosen):
        return Trial(len(chosen), correct, None)
    warning = _suggest_better(score, samples, drawn, correct) or _warn_if_chance(predicted, targets, len(samples.labels))
    return Trial(len(chosen), correct, warning)


def _suggest_better(score: Score, samples: Samples, drawn: np.ndarray, correct: int) -> str | None:
    """A warning that names the settings with the most correct predictions, if they are significantly better than the current ones."""
    if samples.preprocessing["kind"] != "image":
        return None
    tried = [(int(_hits(score, samples, drawn[:SAMPLES], spec).sum()), words, spec) for words, spec in alternatives(samples.preprocessing)]
    most, words, spec = max(tried, key=lambda entry: entry[0])
    if most <= correct:
        return None
    chosen = drawn[:CONFIRM]
    now, then = (_hits(score, samples, chosen, each) for each in (samples.preprocessing, spec))
    if mcnemar_p(int((then & ~now).sum()), int((now & ~then).sum())) >= ALPHA or then.sum() <= now.sum():
        return None
    if not _beats_chance(int(then.sum()), samples.targets(chosen)):
        return None
    return (
        f"the model is correct on {now.mean():.0%} of {len(chosen)} samples with the current preprocessing, and on {then.mean():.0%}"
        f" with {words}: it was probably trained that way (the test split was not used)"
    )


def _hits(score: Score, samples: Samples, chosen: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """Which predictions are correct, bool [n], if pictures are preprocessed by `spec`."""
    feeds = {name: preprocess.normalize(stored, spec) for name, stored in samples.raw(chosen).items()}
    hits: np.ndarray = score(feeds).argmax(1) == samples.targets(chosen)
    return hits


def alternatives(spec: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Common preprocessings other than the current one: as settings, and as a spec (see edgewise.agent.preprocess)."""
    channels = spec["channels"]
    for order in ("RGB", "BGR") if channels == 3 else ("RGB",):
        for given in VALUES:
            if len(given.get("mean", ())) > channels:
                continue
            limits = given.get("range") or (0, 1)
            changes = preprocess.scaling_spec(limits, given.get("mean") or (0,), given.get("std") or (1,), channels)
            changed = {**spec, **changes, "order": order, "dtype": "float32"}
            if any(not np.allclose(changed[key], spec[key]) for key in changes) or order != spec.get("order", "RGB"):
                words = [f"data.{key}={list(value)}".replace(" ", "") for key, value in given.items()]
                yield " ".join([*words, *(["data.channel_order=bgr"] if order == "BGR" else [])]), changed


def _warn_if_chance(predicted: np.ndarray, targets: np.ndarray, classes: int) -> str | None:
    """A warning if the model is no better than chance although no common preprocessing helps."""
    count, correct = len(targets), int((predicted == targets).sum())
    if _beats_chance(correct, targets):
        return None
    reordered = _count_reordered_hits(predicted, targets, classes)
    why = (
        f"with its classes in another order it would be correct on {reordered}" if reordered > correct else "no common preprocessing helps"
    )
    return (
        f"the model is correct on {correct} of {count} samples, no better than chance; {why}:"
        " check that the classes are in the model's order (data.label_names=FILE) and that it was trained on such data"
    )


def _beats_chance(correct: int, targets: np.ndarray) -> bool:
    """Whether that is significantly more than always predicting the most common class (one-sided binomial test, CHANCE_ALPHA)."""
    count = len(targets)
    chance = float(np.bincount(targets).max() / count)
    return sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(correct, count + 1)) < CHANCE_ALPHA


def _count_reordered_hits(predicted: np.ndarray, targets: np.ndarray, classes: int) -> int:
    """Correct predictions if each predicted class is mapped to the class that it most often occurs with: mapped on one half, counted on the
    other, in both directions."""
    halves = np.arange(len(targets)) % 2 == 0
    correct = 0
    for half in (halves, ~halves):
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (predicted[half], targets[half]), 1)
        correct += int((table.argmax(1)[predicted[~half]] == targets[~half]).sum())
    return correct
