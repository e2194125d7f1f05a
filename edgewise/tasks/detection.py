"""Objects in pictures: mean average precision by COCO's rules, compared over the same resampled pictures, and what happens to detections at
the threshold that they are used with.

Outputs are decoded as they come, and boxes are kept in pixels of the picture. Every variant has its own threshold, that of the best F1 on
the validation split, unless task.threshold gives one. What a variant loses is counted at the reference's threshold, as whoever exchanges
one file for the other would find it, and at the variant's own.

There is no interval of the mean average precision itself: of few pictures it lies above that of many (with 80 classes in 128 pictures by
0.07, tried), which resampling them does not show. The difference of two models does not have this error (benchmarks/box_intervals.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewise.agent.decoding import Decoder, complete
from edgewise.agent.geometry import Geometry
from edgewise.config.settings import option
from edgewise.errors import ConfigError, DataError, ModelError
from edgewise.plugins import Arrays, Boxes, Comparison, Decisions, Predictions, PrimaryMetric, Scores, Shown
from edgewise.stats import average_precision, paired, working_point
from edgewise.stats.average_precision import AP50, mean_precision
from edgewise.stats.box_matching import Detected, Matches, Objects, match
from edgewise.stats.independent import bootstrapped_interval
from edgewise.stats.resampling import bootstrap, percentile_interval
from edgewise.stats.working_point import FoundAgain
from edgewise.tasks.predictions import require_split

TARGETS = "boxes"
NEEDS: tuple[str, ...] = ()
SCORED = False
DRAWN = True
SPLITS = ("validation", "test")
PRIMARY_METRIC = PrimaryMetric("map_50_95", "map", "mAP 50:95", "mAP")
AT_THRESHOLD = ("threshold", "precision_at_threshold", "recall_at_threshold", "f1_at_threshold")
LOST = ("lost_detections_share", "lost_detections_share_ci95", "lost_at_own_threshold_share")
SHIFTS = ("score_shift_p5", "score_shift_median", "score_shift_p95")
SCORES = (
    *(name for name in average_precision.SCORE_NAMES if name != PRIMARY_METRIC.name),
    f"{PRIMARY_METRIC.name}_ci95",
    *AT_THRESHOLD,
    *("ap50_delta", "ap50_delta_ci95", "detections", *LOST, *SHIFTS),
)
DRAWS = 1000
USUAL_THRESHOLD = 0.25  # where decoding is timed before a threshold is chosen
ANY_SIZE = [32, 32]  # of the model's input, which is not known before the model is
KEPT = ("corners", "scores", "classes")  # of each detection; `counts` says how many each picture has


@dataclass(frozen=True)
class Settings:
    decoding: dict[str, Any] = option(
        {}, "how boxes are read from the outputs: `head` and its settings; empty: as the model's manifest says"
    )
    threshold: float | None = option(
        None, "score above which a detection is used; null: that of the best F1 on validation", low=0.0, high=1.0
    )

    def __post_init__(self) -> None:
        """ConfigError for a head, or a setting of it, that does not exist."""
        if self.decoding:
            try:
                complete({"size": ANY_SIZE, **self.decoding})
            except ValueError as error:
                raise ConfigError(f"task.{error}") from None


def condense(settings: Settings, spec: Mapping[str, Any], outputs: Arrays) -> Arrays:
    """The detections, in pixels of the pictures. spec: with `labels`, and `preprocessing` and `sizes` of these pictures.

    ConfigError where the outputs cannot be decoded, ModelError for a class that the data does not have.
    """
    geometries = [Geometry.of(spec["preprocessing"], int(height), int(width)) for height, width in spec["sizes"]]
    size = geometries[0].placement.size  # with data.pad_stride smaller than data.image_size
    try:
        found = Decoder({"size": list(size), **find_decoding(settings, spec)})(outputs)
    except ValueError as error:
        raise ConfigError(f"task.{error}") from error
    highest = max((int(each.classes.max()) for each in found if len(each)), default=-1)
    if highest >= len(spec["labels"]):
        raise ModelError(
            f"model.path: the model detects class number {highest}, the data has {len(spec['labels'])}; name the model's own classes"
            " in their order with data.label_names=FILE, or correct task.decoding"
        )
    corners = [geometry.boxes_to_picture(each.corners) for each, geometry in zip(found, geometries, strict=True)]
    return {
        "counts": np.array([len(each) for each in found], np.int64),
        "corners": np.concatenate(corners),
        "scores": np.concatenate([each.scores for each in found]),
        "classes": np.concatenate([each.classes for each in found]),
    }


def find_decoding(settings: Settings, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    """How boxes are read: what the user says, else what the model's manifest does. ConfigError where neither says anything."""
    decoding: Mapping[str, Any] = settings.decoding or spec.get("decoding") or {}
    if not decoding:
        raise ConfigError(
            "task.decoding: nothing says how boxes are read from the model's outputs; see which heads fit with `edgewise inspect`, and set"
            " one, for example task.decoding={head: yolo, outputs: {predictions: output0}}"
        )
    return decoding


def to_detected(kept: Mapping[str, np.ndarray]) -> Detected:
    """What `condense` kept, of all pictures."""
    pictures = np.repeat(np.arange(len(kept["counts"])), kept["counts"])
    return Detected(pictures, *(kept[name] for name in KEPT))


def to_objects(targets: list[Boxes]) -> Objects:
    """The true objects of all pictures."""
    pictures = np.repeat(np.arange(len(targets)), [len(boxes) for boxes in targets])
    names = ("corners", "classes", "areas", "crowd")
    return Objects(pictures, *(np.concatenate([getattr(boxes, name) for boxes in targets]) for name in names))


def match_answers(answers: Predictions) -> Matches:
    """The detections of a split against its objects."""
    return match(to_detected(answers.ports), to_objects(answers.targets), len(answers.targets), len(answers.labels))


def judge(settings: Settings, answers: Mapping[str, Predictions]) -> Scores:
    """The twelve figures of COCO on the test split, and what the detections above the threshold are worth."""
    test = answers["test"]
    matches = match_answers(test)
    require_objects(matches, "test", "add some")
    threshold = settings.threshold
    if threshold is None:
        validation = match_answers(require_split(answers, "validation", ", or set task.threshold"))
        require_objects(validation, "validation", "add some, or set task.threshold")
        threshold = working_point.best_threshold(validation)
    point = working_point.judge_threshold(matches, threshold)
    at_threshold = dict(zip(AT_THRESHOLD, (threshold, point.precision, point.recall, point.f1), strict=True))
    decision = {"answer": "boxes", "threshold": threshold, "decoding": dict(find_decoding(settings, test.spec))}
    scores = {**average_precision.summarize(matches), f"{PRIMARY_METRIC.name}_ci95": precision_interval(matches), **at_threshold}
    return Scores(scores, decision, describe_classes(matches, test.labels))


def precision_interval(matches: Matches) -> list[float]:
    """The 95 % interval of mAP 50:95, by resampling pictures."""

    def values(counts: np.ndarray) -> np.ndarray:
        means: np.ndarray = mean_precision(matches, counts).mean(axis=1)
        return means

    draws = bootstrap(values, np.zeros(matches.size, int), draws=DRAWS)
    draws = draws[~np.isnan(draws)]  # a draw of empty pictures alone has no precision
    value, least = float(values(np.ones((1, matches.size)))[0]), len(np.unique(matches.object_pictures))
    return list(bootstrapped_interval(value, draws, matches.size, least))


def require_objects(matches: Matches, split: str, next_step: str) -> None:
    """DataError if no picture of the split shows an object that counts."""
    if not matches.counted[:, average_precision.ALL].any():
        raise DataError(f"data.splits.{split}: none of its {matches.size} pictures has an object; {next_step}")


def describe_classes(matches: Matches, labels: tuple[str, ...]) -> dict[str, Any]:
    """For details.json, of each class with objects: how many there are, its average precision, and precision at 101 levels of recall."""
    precision = average_precision.precision_by_class(matches)[0]
    counts = [len(matches.objects_of(i, average_precision.ALL)) for i in range(len(labels))]
    there = [i for i, count in enumerate(counts) if count]
    return {
        "objects_per_class": {labels[i]: counts[i] for i in there},
        "map_50_95_per_class": {labels[i]: float(precision[i].mean()) for i in there},
        "ap50_per_class": {labels[i]: float(precision[i, AP50]) for i in there},
        "precision_at_recall": {labels[i]: average_precision.precision_at_levels(matches, i).round(4).tolist() for i in there},
    }


def compare(settings: Settings, reference: Predictions, variant: Predictions) -> Comparison:
    """The difference of the mean average precisions over the same draws of pictures, and the reference's detections that are lost."""
    before, after = match_answers(reference), match_answers(variant)
    found, ap50 = compare_precision(before, after)
    again = working_point.find_again(to_detected(reference.ports), to_detected(variant.ports), reference.spec["threshold"])
    more = describe_lost(again, len(variant.targets), reference.spec["threshold"], variant.spec["threshold"])
    if all(np.array_equal(reference.ports[name], variant.ports[name]) for name in ("counts", *KEPT)):
        found, ap50 = (replace(each, delta_ci95=(0.0, 0.0)) for each in (found, ap50))
        more["lost_detections_share_ci95"] = [0.0, 0.0] if more["detections"] else None
    return found.with_scores(ap50_delta=ap50.delta, ap50_delta_ci95=list(ap50.delta_ci95), **more)


def compare_precision(before: Matches, after: Matches) -> tuple[Comparison, Comparison]:
    """The differences in mAP 50:95 and in AP50."""

    def differences(counts: np.ndarray) -> np.ndarray:
        deltas = mean_precision(after, counts) - mean_precision(before, counts)
        return np.stack([deltas.mean(axis=1), deltas[:, AP50]], axis=1)

    deltas = differences(np.ones((1, before.size)))[0]
    draws = bootstrap(differences, np.zeros(before.size, int), draws=DRAWS)
    draws = draws[~np.isnan(draws).any(axis=1)]  # a draw of empty pictures alone has no precision
    least = len(np.unique(before.object_pictures))
    first, second = (paired.compare_bootstrapped(float(deltas[i]), draws[:, i], before.size, least) for i in (0, 1))
    return first, second


def describe_lost(again: FoundAgain, pictures: int, threshold: float, own_threshold: float) -> dict[str, Any]:
    """How many of the reference's detections the variant loses at the reference's threshold (with an interval) and at its own, and how the
    scores of the others moved. All but the number None where the reference detects nothing."""
    total, names = len(again.scores), (*LOST, *SHIFTS)
    if not total:
        return {"detections": 0, **dict.fromkeys(names)}
    lost = again.lost(threshold)
    values = [float(lost.mean()), lost_interval(again.pictures, lost, pictures), float(again.lost(own_threshold).mean())]
    return {"detections": total, **dict(zip(names, [*values, *(again.shifts() or (None,) * len(SHIFTS))], strict=True))}


def lost_interval(pictures: np.ndarray, lost: np.ndarray, size: int) -> list[float]:
    """95 % interval of the share of detections that are lost, by resampling pictures; if none is lost, or all are, the exact one of as many
    pictures. pictures, lost: of each detection."""
    with_any = len(np.unique(pictures))
    if lost.all() or not lost.any():
        return list(paired.exact_interval(with_any if lost.all() else 0, with_any))
    counts = [np.bincount(pictures, weights=weights, minlength=size) for weights in (lost, np.ones(len(lost)))]

    def share(drawn: np.ndarray) -> np.ndarray:
        part, whole = (drawn @ count for count in counts)
        shares: np.ndarray = np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)
        return shares

    draws = bootstrap(share, np.zeros(size, int), draws=DRAWS)
    return list(percentile_interval(draws[~np.isnan(draws)]))


def decide(answers: Predictions) -> Decisions | None:
    return None


def timed_answer(settings: Settings) -> dict[str, Any]:
    """What is timed after the model with bench.scope=end_to_end: decoding, suppression, and boxes in the picture's pixels."""
    threshold = USUAL_THRESHOLD if settings.threshold is None else settings.threshold
    return {"answer": "boxes", "threshold": threshold, "decoding": {**settings.decoding}}


def truth(answers: Predictions, index: int) -> Shown:
    boxes = answers.targets[index]
    return Shown(boxes.corners, boxes.classes, [answers.labels[number] for number in boxes.classes])


def shown(answers: Predictions, index: int) -> Shown:
    """The detections above the threshold."""
    ends = np.cumsum(answers.ports["counts"])
    here = slice(ends[index] - answers.ports["counts"][index], ends[index])
    corners, scores, classes = (answers.ports[name][here] for name in KEPT)
    used = scores > answers.spec["threshold"]
    captions = [f"{answers.labels[number]} {score:.2f}" for number, score in zip(classes[used], scores[used], strict=True)]
    return Shown(corners[used], classes[used], captions)


def changed(reference: Predictions, variant: Predictions) -> np.ndarray:
    """Detections above the reference's threshold that only one of the two has, by picture."""
    threshold, size = reference.spec["threshold"], len(variant.targets)
    before, after = to_detected(reference.ports), to_detected(variant.ports)
    pairs = (working_point.find_again(before, after, threshold), working_point.find_again(after, before, threshold))
    counts: np.ndarray = sum(np.bincount(one.pictures[one.lost(threshold)], minlength=size) for one in pairs)  # type: ignore[assignment]
    return counts


def describe_change(change: float) -> str:
    return f"{change:.0f} detection{'' if change == 1 else 's'} that only one of the two has" if change else "the same detections"
