"""A class for each pixel: mean intersection over union, compared over the same pictures.

The model's values are resized to the picture as its file has it and its pixels are scored, whatever size the model works at. What is kept
of the outputs is the map of classes of each picture, packed.
"""

import itertools
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from edgewise.agent import class_maps
from edgewise.agent.class_maps import CHANNELS, make_class_map
from edgewise.agent.geometry import Geometry
from edgewise.config.settings import option
from edgewise.errors import ConfigError, DataError, ModelError
from edgewise.plugins import IGNORED, Arrays, Comparison, Decisions, Predictions, PrimaryMetric, Scores, Shown
from edgewise.stats import mean_iou, paired
from edgewise.stats.mean_iou import PixelCounts
from edgewise.stats.resampling import jackknife

TARGETS = "masks"
NEEDS: tuple[str, ...] = ()
SCORED = False
DRAWN = True
SPLITS = ("test",)
PRIMARY_METRIC = PrimaryMetric("mean_iou", "mean_iou", "mean IoU", "mean IoU")
SCORES = ("mean_iou_ci95", "pixel_accuracy", "pixels_changed_share")


@dataclass(frozen=True)
class Settings:
    output: str | None = option(None, "output that holds the map; null: the only one with as many channels as there are classes")
    channels: str | None = option(
        None,
        "where the map has its classes: first [classes, h, w], last [h, w, classes], one (a value for class 1), none (class numbers);"
        " null: by the number of classes",
        choices=(*CHANNELS, None),
    )
    threshold: float = option(0.5, "probability from which on a map of one channel is class 1", low=0.001, high=0.999)
    probabilities: bool | None = option(
        None, "whether a map of one channel holds probabilities (true) or logits (false); null: as the model's manifest says"
    )


def condense(settings: Settings, spec: Mapping[str, Any], outputs: Arrays) -> Arrays:
    """The map of classes of each picture, at its own size, as zlib bytes; `counts` has the bytes of each. spec: with `labels`, `ports`, and
    `preprocessing` and `sizes` of these pictures.

    ConfigError where no output is a map, ModelError for a class that the data does not have.
    """
    reading = find_reading(settings, spec["ports"], spec["labels"])
    sizes = np.asarray(spec["sizes"], np.int64)
    geometries = (Geometry.of(spec["preprocessing"], int(height), int(width)) for height, width in sizes)
    maps = [make_class_map(array, reading, geometry) for array, geometry in zip(outputs[reading["output"]], geometries, strict=True)]
    highest = max(int(made[made != IGNORED].max(initial=0)) for made in maps)
    if highest >= len(spec["labels"]):
        raise ModelError(f"model.path: the map has class number {highest}, the data has {len(spec['labels'])}: {', '.join(spec['labels'])}")
    packed = [np.frombuffer(zlib.compress(made.tobytes(), 1), np.uint8) for made in maps]
    return {"counts": np.array([len(part) for part in packed], np.int64), "sizes": sizes, "packed": np.concatenate(packed)}


def find_reading(settings: Settings, ports: Mapping[str, Mapping[str, Any]], labels: Sequence[str]) -> dict[str, Any]:
    """agent.class_maps.find_reading with these settings. ConfigError if it is not clear which output is the map."""
    try:
        return class_maps.find_reading(asdict(settings), ports, len(labels))
    except ValueError as error:
        raise ConfigError(str(error)) from error


def timed_answer(settings: Settings) -> dict[str, Any]:
    """What is timed after the model with bench.scope=end_to_end: the class of each pixel of the picture."""
    return {"answer": "map", **asdict(settings)}


def iterate_maps(kept: Mapping[str, np.ndarray]) -> Iterator[np.ndarray]:
    """The maps that `condense` kept, uint8 [height, width] each."""
    ends = np.cumsum(kept["counts"])
    for start, end, (height, width) in zip(ends - kept["counts"], ends, kept["sizes"], strict=True):
        yield np.frombuffer(zlib.decompress(kept["packed"][start:end].tobytes()), np.uint8).reshape(height, width)


def count_confusions(answers: Predictions) -> np.ndarray:
    """Pixels of each picture by true and given class, int64 [n, classes, classes + 1]. DataError for a mask of another size."""
    found = []
    for i, (said, truth) in enumerate(zip(iterate_maps(answers.ports), answers.targets, strict=True)):
        if said.shape != truth.shape:
            raise DataError(
                f"data: the mask of test picture {i} is {truth.shape}, the picture {said.shape} (height, width); they must agree"
            )
        found.append(mean_iou.pixel_confusion(said, truth, len(answers.labels)))
    return np.stack(found)


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    test = answers["test"]
    confusions = count_confusions(test)
    pixels = PixelCounts.of(confusions)
    with_class = int(pixels.true.any(axis=1).sum())
    if with_class < 2:
        raise DataError(
            f"data.splits.test: {with_class} of its {len(confusions)} masks have a pixel with a class, and at least 2 are needed; add some,"
            " or check data.ignore"
        )
    found = jackknife(lambda counts: mean_iou.mean_iou(pixels, counts), len(confusions))
    scores = {
        "mean_iou": found.value,
        "mean_iou_ci95": [max(0.0, found.interval[0]), min(1.0, found.interval[1])],
        "pixel_accuracy": mean_iou.pixel_accuracy(pixels),
    }
    by_class = {label: float(value) for label, value in zip(test.labels, mean_iou.class_iou(pixels)[0], strict=True) if not np.isnan(value)}
    decision = {"answer": "map", **find_reading(settings, test.spec["ports"], test.labels)}
    return Scores(scores, decision, {"iou_per_class": by_class, "confusion": confusions.sum(axis=0)[:, :-1].tolist()})


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    """The difference of the mean IoUs, with its interval from leaving out each picture, and the share of pixels whose class changed."""
    before, after = (PixelCounts.of(count_confusions(answers)) for answers in (reference, variant))

    def difference(counts: np.ndarray) -> np.ndarray:
        deltas: np.ndarray = mean_iou.mean_iou(after, counts) - mean_iou.mean_iou(before, counts)
        return deltas

    found = paired.compare_jackknifed(difference, len(before.true))
    pairs = zip(iterate_maps(reference.ports), iterate_maps(variant.ports), strict=True)
    changed = sum(int(np.sum(one != other)) for one, other in pairs)
    if not changed:
        found = replace(found, delta_ci95=(0.0, 0.0))
    return found.with_scores(pixels_changed_share=changed / int(reference.ports["sizes"].prod(axis=1).sum()))


def decide(answers: Predictions) -> Decisions | None:
    return None


def truth(answers: Predictions, index: int) -> Shown:
    return Shown(class_map=answers.targets[index])


def shown(answers: Predictions, index: int) -> Shown:
    return Shown(class_map=next(itertools.islice(iterate_maps(answers.ports), index, None)))


def changed(reference: Predictions, variant: Predictions) -> np.ndarray:
    """The share of the pixels whose class changed, by picture."""
    pairs = zip(iterate_maps(reference.ports), iterate_maps(variant.ports), strict=True)
    return np.array([float(np.mean(one != other)) for one, other in pairs])


def describe_change(change: float) -> str:
    return f"{change:.1%} of the pixels changed" if change else "the same classes"
