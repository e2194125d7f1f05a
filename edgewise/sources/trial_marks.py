"""How right a model is on each of some labelled samples, from 0 to 1, by the kind of the targets: what `trial` compares preprocessings by.

Classes   1 where the highest score is that of the true class, else 0
Objects   the share of a picture's objects that its best detections find, as many of them as it has objects
Areas     the mean intersection over union of a picture's classes, at the size of the model's input
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent import class_maps
from edgewise.agent.decoding import Decoder
from edgewise.agent.geometry import Geometry
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import BOXES, CLASSES, MASKS
from edgewise.plugins import Boxes
from edgewise.sources.box_objective import DETECTED, OBJECTS, gather, move
from edgewise.sources.heads import Truth, choose, recognize
from edgewise.stats.box_matching import Detected, Objects, match
from edgewise.stats.mean_iou import PixelCounts, picture_iou, pixel_confusion
from edgewise.stats.working_point import matched_shares

Arrays = Mapping[str, np.ndarray]
CHANCE_ALPHA = 0.01
LEAST = 0.15  # mean from which on a way to read boxes or maps is believed
UNSET: Mapping[str, Any] = {"output": None, "channels": None, "threshold": 0.5, "probabilities": None}  # of agent.class_maps


@dataclass(frozen=True, kw_only=True)
class Marks:
    """first: samples of the first look; more: those on which a better way is confirmed; ways: how many of trial.VALUES are tried, None:
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
