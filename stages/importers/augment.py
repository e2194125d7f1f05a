"""Random changes to training pictures, on the normalized batch that the model gets.

The arithmetic is that of the picture: `Pixels` knows what black and white became in preprocessing, so brightness 1.2 here
is brightness 1.2 of the file, and nothing leaves the range that a picture can have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from stages.core.config import Train
from stages.core.errors import ConfigError

SETTINGS = ("flip_horizontal", "flip_vertical", "shift_pixels", "brightness", "contrast")


@dataclass(frozen=True)
class Pixels:
    """The model's values for black and white, [channels, 1, 1] each."""

    black: np.ndarray
    white: np.ndarray

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any]) -> "Pixels":
        mean, std = (np.asarray(preprocessing[key], np.float32)[:, None, None] for key in ("mean", "std"))
        return cls((0 - mean) / std, (255 * preprocessing["scale"] - mean) / std)


def check(train: Train, preprocessing: Mapping[str, Any] | None) -> None:
    """ConfigError where the settings ask for a change that only a picture can have."""
    wanted = [name for name in SETTINGS if getattr(train, name)]
    if wanted and (preprocessing or {}).get("kind") != "image":
        raise ConfigError(f"train.{wanted[0]}: {getattr(train, wanted[0])!r} is for pictures only, this data set has none; leave it out")


def augment(images: np.ndarray, train: Train, pixels: Pixels, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of float32 [n, channels, height, width]; every picture gets its own random change."""
    if train.flip_horizontal:
        images = flip(images, 3, rng)
    if train.flip_vertical:
        images = flip(images, 2, rng)
    if train.shift_pixels:
        images = shift(images, rng.integers(-train.shift_pixels, train.shift_pixels + 1, (2, len(images))))
    if train.brightness or train.contrast:
        images = relight(images, factors(train.brightness, len(images), rng), factors(train.contrast, len(images), rng), pixels)
    return images


def flip(images: np.ndarray, axis: int, rng: np.random.Generator) -> np.ndarray:
    chosen = rng.random(len(images)) < 0.5
    return np.where(chosen[:, None, None, None], np.flip(images, axis), images)


def shift(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move picture i by offsets[0][i] rows and offsets[1][i] columns; the border is repeated into the gap."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) - offsets[0][:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - offsets[1][:, None], 0, width - 1)
    images = np.take_along_axis(images, rows[:, None, :, None], axis=2)
    return np.take_along_axis(images, columns[:, None, None, :], axis=3)


def factors(spread: float, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(1 - spread, 1 + spread, (count, 1, 1, 1)).astype(np.float32)


def relight(images: np.ndarray, brightness: np.ndarray, contrast: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Scale the distance from black (brightness), then the distance from each channel's mean (contrast)."""
    images = pixels.black + brightness * (images - pixels.black)
    mean = images.mean(axis=(2, 3), keepdims=True)
    lowest, highest = np.minimum(pixels.black, pixels.white), np.maximum(pixels.black, pixels.white)  # data.range may be the negative
    return np.clip(mean + contrast * (images - mean), lowest, highest)
