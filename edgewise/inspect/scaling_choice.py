"""How pixels are scaled for a classifier: the usual way with which it gives the most probability to the classes of labelled pictures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.data import image_folder
from edgewise.data.pictures import read_picture
from edgewise.inspect.detectors_choice import SHOWN, Choice, Way
from edgewise.inspect.meanings import name_scores
from edgewise.inspect.trial_run import Tried
from edgewise.plugins import Item

PICTURES = 48
T = 2.0  # standard errors by which a less common way must be better
FLOOR = 1e-3  # under probabilities, so that no single picture decides
SURE, GUESSED = "the best of all tried", "a guess"
VALUES: tuple[Mapping[str, Any], ...] = (  # most common first
    {"range": [0, 1]},
    {"range": [0, 255]},
    {"range": [-1, 1]},
    {"range": [0, 1], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},  # ImageNet's, as torchvision
    {"range": [0, 255], "mean": [103.939, 116.779, 123.68]},  # ImageNet's, as Caffe
)


def read_spread(settings: image_folder.Settings) -> list[Item]:
    """Pictures from all over the data set, with their labels."""
    found = image_folder.list_pictures(settings)
    chosen = found[:: max(1, -(-len(found) // PICTURES))]
    return list(read_items(chosen))


def read_items(pictures: Sequence[Any]) -> Iterator[Item]:
    for picture in pictures:
        try:
            sha256, value = read_picture(picture.path)
        except (OSError, ValueError):
            continue
        yield Item(picture.name, picture.label, None, sha256, value)


def list_ways(spec: Mapping[str, Any]) -> list[Way]:
    orders = ("rgb", "bgr") if spec["channels"] == 3 else ("rgb",)
    return [
        Way(
            {**values, **({"channel_order": order} if spec["channels"] == 3 else {})},
            {**spec, **scaling(values, spec), "order": order.upper()},
        )
        for values in VALUES
        for order in orders
        if len(values.get("mean", ())) <= spec["channels"]
    ]


def scaling(values: Mapping[str, Any], spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return preprocess.scaling_spec(values["range"], values.get("mean", (0.0,)), values.get("std", (1.0,)), spec["channels"])


def decide(targets: np.ndarray, classes: int, ways: Sequence[Way], runs: Sequence[Tried]) -> Choice | None:
    """The first way, unless a later one gives the true classes clearly more probability.

    targets: int [n]. None without an output of as many scores as there are classes.
    """
    scores = [next((array for array in run.outputs.values() if array.shape[1:] == (classes,)), None) for run in runs]
    known = [array for array in scores if array is not None]
    if len(known) < len(ways):
        return None
    losses = [find_losses(array, targets) for array in known]
    best = 0
    for place in range(1, len(ways)):
        if is_lower(losses[place], losses[best]):
            best = place
    right = [int((array.argmax(axis=1) == targets).sum()) for array in known]
    return Choice({}, ways[best].data, say_why(ways, right, best, len(targets)), sure=True)


def say_why(ways: Sequence[Way], right: Sequence[int], best: int, pictures: int) -> str:
    """How many pictures the best way gets right, and which other ways get as many."""
    sure = SURE if right[best] > pictures / 2 else GUESSED
    equal = [say_way(way) for place, way in enumerate(ways) if place != best and right[place] >= right[best]]
    also = (
        f"; {', '.join(equal[:SHOWN])} {'is' if len(equal) == 1 else 'are'} right as often: take the one of your training" if equal else ""
    )
    return f"{sure}, right on {right[best]} of {pictures} labelled pictures; {len(ways)} usual ways were tried{also}"


def say_way(way: Way) -> str:
    """Its settings as `data` takes them: range [0, 255], mean [0.485, 0.456, 0.406], channel_order bgr."""
    return " ".join(f"{key} {value}" for key, value in way.data.items())


def find_losses(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Cross entropy of each sample, of probabilities or logits [n, k], with a floor under the probability."""
    given = scores.astype(np.float64)
    if not name_scores(given).startswith("probabilities"):
        given = np.exp(given - given.max(axis=1, keepdims=True))
    shares = given / np.maximum(given.sum(axis=1, keepdims=True), FLOOR)
    losses: np.ndarray = -np.log(np.maximum(shares[np.arange(len(targets)), targets], FLOOR))
    return losses


def is_lower(losses: np.ndarray, others: np.ndarray) -> bool:
    """Whether the mean is lower by more than T standard errors of the paired differences."""
    gain = others - losses
    return bool(gain.mean() > T * gain.std() / np.sqrt(len(gain)))
