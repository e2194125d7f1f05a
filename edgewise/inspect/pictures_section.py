"""The settings with which pictures become the image that a model takes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.inspect.meanings import Guess, picture_sides
from edgewise.sources.inspection import CHANNELS, Port

SIDE = 224  # pixels of an open height or width
RANGES = ((0, 255), (0, 1), (-1, 1))
DIGITS = 6  # of the limits of data.range
GUESSED = "a guess: add mean and std where it was trained so"


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
