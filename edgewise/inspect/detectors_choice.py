"""How the boxes of a detector are read, and how its pictures are prepared: guessed from its outputs, decided by labelled pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.agent.geometry import Geometry
from edgewise.data.encoders import LETTERBOX_GREY
from edgewise.inspect.trial_run import Arrays, Tried
from edgewise.plugins import Item
from edgewise.sources.heads import Tried as Read
from edgewise.sources.heads import Truth, choose, recognize

PICTURES = 12  # labelled ones that decide
RANGES = ((0, 255), (0, 1), (-1, 1))
FOUND = 0.15  # share of the objects from which on a way to read the boxes is believed; the least of three that the right one should exceed
SHOWN = 3
# how pictures are prepared for detectors that have a way of their own; with another one all scores are near 0
OWN_WAYS: Mapping[str, Mapping[str, Any]] = {
    "yolox": {"range": [0, 255], "channel_order": "bgr", "resize": "letterbox", "pad_anchor": "corner", "pad_value": LETTERBOX_GREY}
}


@dataclass(frozen=True)
class Choice:
    """decoding: for task.decoding; empty if nothing fits. data: settings of the pictures that go with it. words: why; of_data: the same for
    these settings alone. sure: whether labelled pictures decided. hints: lines of comment where they did not."""

    decoding: Mapping[str, Any]
    data: Mapping[str, Any]
    words: str
    of_data: str = ""
    sure: bool = False
    hints: tuple[str, ...] = ()


def guess(tried: Tried, size: Sequence[int]) -> Choice | None:
    """What the outputs look like, without labels. None if like those of no detector."""
    candidates = recognize({name: array.shape for name, array in tried.outputs.items()}, size, tried.outputs)
    if not candidates:
        return None
    first = candidates[0]
    others = f"; or {', '.join(candidate.words for candidate in candidates[1:SHOWN])}" if len(candidates) > 1 else ""
    hints = (
        f"its outputs look like those of a detector, a guess: {first.words}{others}",
        "with labelled pictures (--data of a YOLO yaml, COCO json or VOC folder) inspect finds out, and prints task: {name: detection}",
    )
    own = OWN_WAYS.get(first.spec["head"], {})
    return Choice({}, own, f"a guess: as {first.words} is trained, where it is one" if own else first.words, hints=hints)


@dataclass(frozen=True)
class Way:
    """One way to prepare pictures. data: settings; spec: see agent.preprocess."""

    data: Mapping[str, Any]
    spec: Mapping[str, Any]


def list_ways(spec: Mapping[str, Any], known: bool) -> list[Way]:
    """The given one, and if the scaling is not known the usual other ones."""
    orders = ("rgb", "bgr") if spec["channels"] == 3 else ("rgb",)
    ranges = RANGES if not known and spec["dtype"] != "uint8" else (None,)
    return [Way(*describe_way(spec, limits, order)) for limits in ranges for order in orders]


def describe_way(spec: Mapping[str, Any], limits: tuple[int, int] | None, order: str) -> tuple[dict[str, Any], dict[str, Any]]:
    scaling = preprocess.scaling_spec(limits, (0.0,), (1.0,), spec["channels"]) if limits else {}
    given = {"range": list(limits)} if limits else {}
    return {**given, **({"channel_order": order} if spec["channels"] == 3 else {})}, {**spec, **scaling, "order": order.upper()}


def prepare(items: Sequence[Item], spec: Mapping[str, Any]) -> Arrays:
    """Pictures as the model takes them, [n, ...]."""
    return {"image": preprocess.normalize(np.stack([preprocess.resize_to_spec(item.value, spec) for item in items]), spec)}


def make_truths(items: Sequence[Item], spec: Mapping[str, Any]) -> Iterator[Truth]:
    """The objects in pixels of the model's input."""
    for item in items:
        height, width = item.value.shape[:2]
        boxes: Any = item.label
        yield Truth(Geometry.of(spec, height, width).boxes_to_input(boxes.corners), boxes.classes)


@dataclass(frozen=True)
class Reading:
    """One way to read boxes from what one way to prepare pictures gave."""

    tried: Read
    way: Way

    def describe_beside(self, other: "Reading") -> str:
        """What differs from another one: how the pictures are prepared, or else how the boxes are read."""
        changed = {key: value for key, value in self.way.data.items() if value != other.way.data[key]}
        return ", ".join(name_settings(changed)) or self.tried.candidate.words


def name_settings(data: Mapping[str, Any]) -> list[str]:
    """range [0, 255]; bgr."""
    return [f"{key} {value}" if key == "range" else str(value) for key, value in data.items()]


def decide(items: Sequence[Item], ways: Sequence[Way], runs: Sequence[Tried]) -> Choice | None:
    """The way to prepare pictures and to read boxes that finds the most labelled objects. runs: the model's outputs, way by way. None where
    the outputs look like those of no detector."""
    found: list[Reading] = []
    for way, run in zip(ways, runs, strict=True):
        candidates = recognize({name: array.shape for name, array in run.outputs.items()}, way.spec["size"], run.outputs)
        found += [Reading(each, way) for each in choose(candidates, run.outputs, list(make_truths(items, way.spec)))]
    ranked = sorted(found, key=lambda reading: (-reading.tried.found, -reading.tried.located))
    return conclude(ranked, len(items)) if ranked else None


def conclude(ranked: Sequence[Reading], count: int) -> Choice:
    """ranked: the best first."""
    best, found, located = ranked[0], ranked[0].tried.found, ranked[0].tried.located
    candidate, way = best.tried.candidate, best.way
    decoding = {key: value for key, value in candidate.spec.items() if key != "size"}
    second = next((each for each in ranked if each.way is not best.way), ranked[1] if len(ranked) > 1 else None)
    next_best = f", the next best ({second.describe_beside(best)}) {second.tried.found:.0%}" if second else ""
    words = f"{candidate.words}: finds {found:.0%} of the objects in {count} labelled pictures{next_best}"
    bars = {"resize": "letterbox", "pad_anchor": "corner" if candidate.spec["head"] == "yolox" else "center", "pad_value": LETTERBOX_GREY}
    data = {**way.data, **bars}
    if found >= FOUND:
        return Choice(decoding, data, words, describe_data(way, bars, len({id(each.way) for each in ranked}), count), sure=True)
    if located >= FOUND:
        hint = (
            f"it finds {located:.0%} of the objects with {candidate.words}, but {found:.0%} as their class: name the model's own classes in"
            f" their order with data.label_names=FILE, then task: {{name: detection, decoding: {decoding}}}"
        )
        return Choice({}, data, words, hints=(hint,))
    return Choice({}, {}, words, hints=(f"no way to read its outputs finds the labelled objects ({candidate.words}: {found:.0%})",))


def describe_data(way: Way, bars: Mapping[str, Any], ways: int, count: int) -> str:
    """Which settings of the pictures were tried, and which go with such boxes."""
    usual = f"letterbox, {bars['pad_anchor']}, bars of {bars['pad_value']}: usual for such boxes"
    tried = f"{', '.join(name_settings(way.data))}: the best of {ways} ways with {count} labelled pictures; " if way.data else ""
    return tried + usual
