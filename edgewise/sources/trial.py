"""Try whether the preprocessing is that of the model's training.

The model is tried on some labelled samples. If it is often wrong, common ways to preprocess pictures are tried too. The best of them is
suggested, as settings, if it is significantly better on more samples: by the sign test over samples, which for classes is McNemar's. The
test split is not used. How right it is on a sample, from 0 to 1, depends on the kind of the targets:

Classes   1 where the highest score is that of the true class, else 0
Objects   the share of a picture's objects that its best detections find, as many of them as it has objects
Areas     the mean intersection over union of a picture's classes, at the size of the model's input
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent import class_maps, preprocess
from edgewise.agent.decoding import Decoder
from edgewise.agent.geometry import Geometry
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import BOXES, CLASSES, MASKS
from edgewise.plugins import Boxes
from edgewise.sources.box_objective import DETECTED, OBJECTS, gather, move
from edgewise.sources.heads import Truth, choose, recognize
from edgewise.stats.box_matching import Detected, Objects, match
from edgewise.stats.mean_iou import PixelCounts, picture_iou, pixel_confusion
from edgewise.stats.paired import mcnemar_p
from edgewise.stats.working_point import matched_shares

Arrays = Mapping[str, np.ndarray]
Values = Mapping[str, Sequence[float]]  # data.range, data.mean, data.std
Run = Callable[[Arrays], Arrays]  # feeds to outputs, [n, ...] each

GOOD_ENOUGH = 0.9  # mean from which on nothing else is tried
ALPHA = 0.001  # about twenty ways are tried, so a false suggestion has a probability of 1 in 50 at most
BATCH = 100  # samples that are run together
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
CHANCE_ALPHA = 0.01
LEAST = 0.15  # mean from which on a way to read boxes or maps is believed
UNSET: Mapping[str, Any] = {"output": None, "channels": None, "threshold": 0.5, "probabilities": None}  # of agent.class_maps


@dataclass(frozen=True, kw_only=True)
class Marks:
    """first: samples of the first look; more: those on which a better way is confirmed; ways: how many of VALUES are tried, None:
    all of them. now, then: the mean in words, as "the model NOW with these settings, and THEN with others"."""

    samples: Samples
    first: int
    more: int
    ways: int | None
    now: str
    then: str

    def select(self, pool: np.ndarray) -> np.ndarray:
        """Those of the samples that say something. pool: their indices."""
        return pool

    def of(self, outputs: Arrays, indices: np.ndarray) -> np.ndarray | None:
        """float [n] of these samples, NaN for what does not count; None where no output can be read."""
        raise NotImplementedError

    def believable(self, marks: np.ndarray, indices: np.ndarray) -> bool:
        """Whether a model that is so right knows what it does."""
        return bool(np.nanmean(marks) >= LEAST)

    def explain(self, outputs: Arrays, indices: np.ndarray) -> str | None:
        """A warning of what else may be wrong where no preprocessing helps. None of boxes and maps: what is not recognized, as a head of
        the user's own, looks like a model that finds nothing."""
        return None


def choose_marks(samples: Samples, scored: str | None) -> Marks | None:
    """By the kind of the targets; None where nothing says what is right. scored: the output with one value for each label."""
    if samples.kind == CLASSES:
        return Classes(samples=samples, scored=scored) if scored else None
    if samples.kind not in (BOXES, MASKS):
        return None
    return Located(samples=samples) if samples.kind == BOXES else Areas(samples=samples)


@dataclass(frozen=True, kw_only=True)
class Classes(Marks):
    scored: str
    first: int = 100
    more: int = 500
    ways: int | None = None
    now: str = "is correct on {mean:.0%} of {count} samples"
    then: str = "on {mean:.0%}"

    def of(self, outputs: Arrays, indices: np.ndarray) -> np.ndarray | None:
        hits: np.ndarray = outputs[self.scored].argmax(1) == self.samples.targets(indices)
        return hits.astype(float)

    def believable(self, marks: np.ndarray, indices: np.ndarray) -> bool:
        return beats_chance(int(marks.sum()), self.samples.targets(indices))

    def explain(self, outputs: Arrays, indices: np.ndarray) -> str | None:
        """If the model is no better than chance."""
        predicted, targets = outputs[self.scored].argmax(1), self.samples.targets(indices)
        count, correct = len(targets), int((predicted == targets).sum())
        if beats_chance(correct, targets):
            return None
        reordered = count_reordered_hits(predicted, targets, len(self.samples.labels))
        order = f"with its classes in another order it would be correct on {reordered}"
        why = order if reordered > correct else "no common preprocessing helps"
        return (
            f"the model is correct on {correct} of {count} samples, no better than chance; {why}:"
            " check that the classes are in the model's order (data.label_names=FILE) and that it was trained on such data"
        )


def beats_chance(correct: int, targets: np.ndarray) -> bool:
    """Whether that is significantly more than always predicting the most common class (one-sided binomial test, CHANCE_ALPHA)."""
    count = len(targets)
    chance = float(np.bincount(targets).max() / count)
    return sum(math.comb(count, k) * chance**k * (1 - chance) ** (count - k) for k in range(correct, count + 1)) < CHANCE_ALPHA


def count_reordered_hits(predicted: np.ndarray, targets: np.ndarray, classes: int) -> int:
    """Correct predictions if each predicted class is mapped to the class that it most often occurs with: mapped on one half, counted on the
    other, in both directions."""
    halves = np.arange(len(targets)) % 2 == 0
    correct = 0
    for half in (halves, ~halves):
        table = np.zeros((classes, classes), np.int64)
        np.add.at(table, (predicted[half], targets[half]), 1)
        correct += int((table.argmax(1)[predicted[~half]] == targets[~half]).sum())
    return correct


@dataclass(frozen=True, kw_only=True)
class Pictures(Marks):
    """What boxes and maps have in common: a few pictures tell much, and take long."""

    first: int = 12
    more: int = 32
    ways: int | None = 5

    def geometries(self, indices: np.ndarray) -> list[Geometry]:
        return [Geometry.of(self.samples.preprocessing, int(height), int(width)) for height, width in self.samples.sizes(indices)]


@dataclass(frozen=True, kw_only=True)
class Located(Pictures):
    """Boxes are read in the way that finds the most of these objects, whatever task.decoding says."""

    now: str = "finds {mean:.0%} of the objects in {count} pictures"
    then: str = "{mean:.0%}"

    def select(self, pool: np.ndarray) -> np.ndarray:
        shown = np.array([not boxes.crowd.all() for boxes in self.samples.targets(pool)], bool)
        kept: np.ndarray = pool[shown]
        return kept

    def of(self, outputs: Arrays, indices: np.ndarray) -> np.ndarray | None:
        places = self.geometries(indices)
        objects = [self._place(boxes, place) for boxes, place in zip(self.samples.targets(indices), places, strict=True)]
        truths = [Truth(boxes.corners, boxes.classes) for boxes in objects]
        shapes = {name: array.shape for name, array in outputs.items()}
        tried = choose(recognize(shapes, places[0].placement.size, outputs), outputs, truths)
        if not tried or tried[0].reason is not None:
            return None
        found = Decoder(tried[0].candidate.spec)(outputs)
        pair = Detected(*gather(found, DETECTED)), Objects(*gather(objects, OBJECTS))
        return matched_shares(match(*pair, len(objects), len(self.samples.labels)))

    @staticmethod
    def _place(boxes: Boxes, place: Geometry) -> Boxes:
        """In pixels of the model's input, without crowds."""
        return move(boxes, place.boxes_to_input(boxes.corners)).take(~boxes.crowd)


@dataclass(frozen=True, kw_only=True)
class Areas(Pictures):
    now: str = "has a mean IoU of {mean:.2f} on {count} pictures"
    then: str = "of {mean:.2f}"

    def of(self, outputs: Arrays, indices: np.ndarray) -> np.ndarray | None:
        labels, places = len(self.samples.labels), self.geometries(indices)
        try:
            reading = class_maps.find_reading(UNSET, {name: describe(array) for name, array in outputs.items()}, labels)
        except ValueError:
            return None
        size = places[0].placement.size
        whole = Geometry.of({"size": size, "resize": "stretch"}, *size)
        said = [class_maps.make_class_map(array, reading, whole) for array in outputs[reading["output"]]]
        masks = [place.mask_to_input(mask) for place, mask in zip(places, self.samples.targets(indices), strict=True)]
        confusions = [pixel_confusion(*pair, labels) for pair in zip(said, masks, strict=True)]
        return picture_iou(PixelCounts.of(np.stack(confusions)))


def describe(output: np.ndarray) -> dict[str, Any]:
    """A port as agent.class_maps.find_reading takes it."""
    bounded = output.size and output.min() >= 0 and output.max() <= 1
    return {"shape": (None, *output.shape[1:]), "meaning": "probabilities" if bounded else None}


@dataclass(frozen=True)
class Trial:
    """words: how right the model is with the current settings, such as "is correct on 95% of 100 samples"; warning: what the user should
    know, or None."""

    samples: int
    words: str
    warning: str | None


def try_preprocessing(run: Run, samples: Samples, scored: str | None, seed: int = 0) -> Trial | None:
    """None if there are no samples outside of test, or nothing says what is right. scored: the output with one value for each label."""
    marks = choose_marks(samples, scored)
    pool = np.concatenate([samples.indices(split) for split in ("train", "validation", "calibration")])
    drawn = np.random.default_rng(seed).permutation(marks.select(pool)) if marks and len(pool) else pool[:0]
    if marks is None or not len(drawn):
        return None
    chosen = drawn[: marks.first]
    outputs = run(samples.feeds(chosen))
    found = marks.of(outputs, chosen)
    if found is None:
        return None
    now = _mean(found)
    warning = None
    if now < GOOD_ENOUGH:
        warning = _suggest_better(run, samples, marks, drawn, now) or marks.explain(outputs, chosen)
    return Trial(len(chosen), marks.now.format(mean=now, count=len(chosen)), warning)


def _mean(marks: np.ndarray) -> float:
    known = marks[~np.isnan(marks)]
    return float(known.mean()) if len(known) else 0.0


def _suggest_better(run: Run, samples: Samples, marks: Marks, drawn: np.ndarray, now: float) -> str | None:
    """A warning that names the settings with which the model is right most often, if they are significantly better than the current."""
    if samples.preprocessing["kind"] != "image":
        return None
    ways = alternatives(samples.preprocessing, VALUES[: marks.ways])
    tried = [(_mean(_mark(run, samples, marks, drawn[: marks.first], spec)), words, spec) for words, spec in ways]
    most, words, spec = max(tried, key=lambda entry: entry[0])
    if most <= now:
        return None
    chosen = drawn[: marks.more]
    before, after = (_mark(run, samples, marks, chosen, each) for each in (samples.preprocessing, spec))
    if mcnemar_p(int((after > before).sum()), int((after < before).sum())) >= ALPHA or _mean(after) <= _mean(before):
        return None
    if not marks.believable(after, chosen):
        return None
    return (
        f"the model {marks.now.format(mean=_mean(before), count=len(chosen))} with the current preprocessing, and"
        f" {marks.then.format(mean=_mean(after))} with {words}: it was probably trained that way (the test split was not used)"
    )


def _mark(run: Run, samples: Samples, marks: Marks, chosen: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """How right the model is, float [n], if pictures are preprocessed by `spec`; 0 where its outputs cannot be read."""
    parts = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
    fed = ({name: preprocess.normalize(stored, spec) for name, stored in samples.raw(part).items()} for part in parts)
    outputs = [run(feeds) for feeds in fed]
    found = marks.of({name: np.concatenate([part[name] for part in outputs]) for name in outputs[0]}, chosen)
    return np.zeros(len(chosen)) if found is None else found


def alternatives(spec: Mapping[str, Any], values: Sequence[Values] = VALUES) -> Iterator[tuple[str, dict[str, Any]]]:
    """Common preprocessings other than the current one: as settings, and as a spec (see edgewise.agent.preprocess)."""
    channels = spec["channels"]
    for order in ("RGB", "BGR") if channels == 3 else ("RGB",):
        for given in values:
            if len(given.get("mean", ())) > channels:
                continue
            limits = given.get("range") or (0, 1)
            changes = preprocess.scaling_spec(limits, given.get("mean") or (0,), given.get("std") or (1,), channels)
            changed = {**spec, **changes, "order": order, "dtype": "float32"}
            if any(not np.allclose(changed[key], spec[key]) for key in changes) or order != spec.get("order", "RGB"):
                words = [f"data.{key}={list(value)}".replace(" ", "") for key, value in given.items()]
                yield " ".join([*words, *(["data.channel_order=bgr"] if order == "BGR" else [])]), changed
