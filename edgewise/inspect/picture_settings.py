"""The settings with which pictures become the image that a model takes.

What the file says comes first: sizes, channels, and how pixels are scaled, from its metadata or quantization. Where it does not tell the
scaling of a classifier, the usual way is taken with which it gives the most probability to the classes of labelled pictures.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.data import image_folder
from edgewise.data.pictures import read_picture
from edgewise.inspect.detectors_choice import SHOWN, Choice, Way
from edgewise.inspect.meanings import Guess, name_scores, picture_sides
from edgewise.inspect.trial_run import Tried
from edgewise.plugins import Item
from edgewise.sources.inspection import CHANNELS, Port

SIDE = 224  # pixels of an open height or width
RANGES = ((0, 255), (0, 1), (-1, 1))
DIGITS = 6  # of the limits of data.range
GUESSED = "a guess: add mean and std where it was trained so"
PICTURES = 48  # labelled ones that decide
T = 2.0  # standard errors by which a less common way must be better
FLOOR = 1e-3  # under probabilities, so that no single picture decides
SURE, UNCERTAIN = "the best of all tried", "a guess"
VALUES: tuple[Mapping[str, Any], ...] = (  # most common first
    {"range": [0, 1]},
    {"range": [0, 255]},
    {"range": [-1, 1]},
    {"range": [0, 1], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},  # ImageNet's, as torchvision
    {"range": [0, 255], "mean": [103.939, 116.779, 123.68]},  # ImageNet's, as Caffe
)


def describe_pictures(image: Guess, sides: Sequence[int] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings of data, and remarks on them by key. sides: height and width in the place of open ones."""
    port, open_sides = image.port, picture_sides(image)
    size = [given or side for given, side in zip(open_sides, sides or [SIDE, SIDE], strict=True)]
    last = bool(image.layout and image.layout.endswith("C"))
    channels = image.sizes[-1 if last else 0]
    scaling, sure = find_scaling(port)
    settings = {
        "image_size": size[0] if size[0] == size[1] else size,
        "channels": channels if channels in CHANNELS else 3,
        "channels_last": last,
        **scaling,
    }
    remarks = {next(iter(scaling)): sure} | ({"image_size": "a guess: the file leaves it open"} if None in open_sides else {})
    return settings | ({"dtype": "uint8"} if port.dtype == "uint8" and port.quantization is None else {}), remarks


def find_scaling(port: Port) -> tuple[dict[str, Any], str]:
    """Settings for the values of pictures, and how sure they are."""
    if port.mean and port.std:
        return scaling_of(port), "from the file's metadata"
    low, high = nearest_range(port)
    if port.dtype == "uint8" and port.quantization is None:
        return {"range": [low, high]}, "pixels as they are"
    return {"range": [low, high]}, "from the file's quantization" if port.quantization else GUESSED


def scaling_of(port: Port) -> dict[str, Any]:
    """(pixel - mean) / std as data.range where it is one number for all channels, else as it is."""
    if len({*port.mean}) == len({*port.std}) == 1:
        return {"range": [tidy((limit - port.mean[0]) / port.std[0]) for limit in (0, 255)]}
    return {"range": [0, 255], "mean": list(port.mean), "std": list(port.std)}


def nearest_range(port: Port) -> tuple[int, int]:
    """The usual range nearest to the real values of a quantized input; 0 to 255 for a plain uint8 input, else 0 to 1."""
    if port.quantization is None:
        return (0, 255) if port.dtype == "uint8" else (0, 1)
    low, high = real_limits(port)
    return min(RANGES, key=lambda usual: float(abs(low - usual[0]) + abs(high - usual[1])) / (usual[1] - usual[0]))


def real_limits(port: Port) -> tuple[float, float]:
    """Smallest and largest real value of a quantized port."""
    assert port.quantization is not None
    limits, (scale, zero_point) = np.iinfo(port.dtype), port.quantization
    return (int(limits.min) - zero_point) * scale, (int(limits.max) - zero_point) * scale


def limits_of(settings: Mapping[str, Any]) -> list[float]:
    """Smallest and largest value that pictures have behind these settings."""
    mean, std = (np.array(settings.get(key) or [default], float) for key, default in (("mean", 0), ("std", 1)))
    values = (np.array(settings["range"], float)[:, None] - mean) / std
    return [tidy(values.min()), tidy(values.max())]


def tidy(number: float) -> float:
    """Rounded, and an integer where it is one."""
    rounded = round(float(number), DIGITS)
    return int(rounded) if rounded.is_integer() else rounded


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


def list_scalings(spec: Mapping[str, Any]) -> list[Way]:
    orders = ("rgb", "bgr") if spec["channels"] == 3 else ("rgb",)
    return [
        Way(
            {**values, **({"channel_order": order} if spec["channels"] == 3 else {})},
            {**spec, **describe_scaling(values, spec), "order": order.upper()},
        )
        for values in VALUES
        for order in orders
        if len(values.get("mean", ())) <= spec["channels"]
    ]


def describe_scaling(values: Mapping[str, Any], spec: Mapping[str, Any]) -> Mapping[str, Any]:
    return preprocess.scaling_spec(values["range"], values.get("mean", (0.0,)), values.get("std", (1.0,)), spec["channels"])


def decide_scaling(targets: np.ndarray, classes: int, ways: Sequence[Way], runs: Sequence[Tried]) -> Choice | None:
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
    """A remark on range that names the other settings found with it: how many pictures they get right, and which other ways get as many."""
    others = ", ".join(key for key in ways[best].data if key != "range")
    sure = SURE if right[best] > pictures / 2 else UNCERTAIN
    equal = [say_way(way) for place, way in enumerate(ways) if place != best and right[place] >= right[best]]
    also = (
        f"; {', '.join(equal[:SHOWN])} {'is' if len(equal) == 1 else 'are'} right as often: take the one of your training" if equal else ""
    )
    found = f"with {others} {sure}" if others else sure
    return f"{found}, right on {right[best]} of {pictures} labelled pictures; {len(ways)} usual ways were tried{also}"


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
