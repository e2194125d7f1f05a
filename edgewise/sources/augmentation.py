"""Random changes of training pictures: mirrored, shifted, zoomed, relit; boxes and masks move with them.

moves = Moves.draw(train, len(images), rng)
images = relight(moves.pictures(images), train, Pixels.of(preprocessing), rng)
corners, seen = moves.corners(0, corners, images.shape[2:])
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.config.schema import Train
from edgewise.errors import ConfigError

AUGMENTATIONS = ("flip_horizontal", "flip_vertical", "shift_pixels", "zoom", "brightness", "contrast")
MIN_VISIBLE = 0.25  # a box of which less than this share of its area is left in the picture is dropped
DOWN, ACROSS = 2, 3  # axes of [n, channels, height, width]


@dataclass(frozen=True)
class Pixels:
    """The model's input values for black and white, [channels, 1, 1] each.

    With them, brightness 1.2 of a normalized batch is brightness 1.2 of the picture file, and no value leaves the valid range.
    """

    black: np.ndarray
    white: np.ndarray

    @classmethod
    def of(cls, preprocessing: Mapping[str, Any]) -> "Pixels":
        mean, std = (np.asarray(preprocessing[key], np.float32)[:, None, None] for key in ("mean", "std"))
        return cls((0 - mean) / std, (255 * preprocessing["scale"] - mean) / std)


def check_augmentations(train: Train, preprocessing: Mapping[str, Any] | None) -> None:
    """ConfigError if the settings ask for changes of pictures and the inputs are none."""
    wanted = [name for name in AUGMENTATIONS if getattr(train, name)]
    if wanted and (preprocessing or {}).get("kind") != "image":
        raise ConfigError(f"train.{wanted[0]}: {getattr(train, wanted[0])!r} changes pictures, but this data set has none; remove it")


@dataclass(frozen=True)
class Moves:
    """Where each of n pictures is moved to: first mirrored, then shifted, then zoomed about a point of it. None: no picture is.

    mirrored: bool [n] by axis; offsets: int [2, n], rows and columns; zooms: float [n], above 1 is larger; fixed: float [2, n], the point
    that stays in place, as shares of height and width.
    """

    mirrored: Mapping[int, np.ndarray]
    offsets: np.ndarray | None = None
    zooms: np.ndarray | None = None
    fixed: np.ndarray | None = None

    @classmethod
    def draw(cls, train: Train, count: int, rng: np.random.Generator) -> "Moves":
        axes = [axis for axis, wanted in ((ACROSS, train.flip_horizontal), (DOWN, train.flip_vertical)) if wanted]
        mirrored = {axis: rng.random(count) < 0.5 for axis in axes}
        reach = train.shift_pixels
        offsets = rng.integers(-reach, reach + 1, (2, count)) if reach else None
        if not train.zoom:
            return cls(mirrored, offsets)
        return cls(mirrored, offsets, rng.uniform(1 - train.zoom, 1 + train.zoom, count), rng.random((2, count)))

    def pictures(self, images: np.ndarray) -> np.ndarray:
        """The moved copies of [n, channels, height, width]; border pixels fill the gaps."""
        for axis, chosen in self.mirrored.items():
            images = mirror(images, axis, chosen)
        if self.offsets is not None:
            images = shift(images, self.offsets)
        return images if self.zooms is None or self.fixed is None else zoom(images, self.zooms, self.fixed)

    def mask(self, index: int, mask: np.ndarray) -> np.ndarray:
        """The mask of picture `index`, integers [height, width], moved as its picture is, without values in between."""
        for axis, chosen in self.mirrored.items():
            mask = np.flip(mask, axis - DOWN) if chosen[index] else mask
        for axis, size in enumerate(mask.shape):
            mask = np.take(mask, np.rint(self._origins(index, axis, size)).astype(np.int64), axis)
        return mask

    def corners(self, index: int, corners: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The boxes of picture `index`, [k, 4] x0, y0, x1, y1 in its pixels, moved and cut at its border; and which are still to be seen,
        bool [k]. size: height and width."""
        sides = [self._place(index, axis, size[axis], corners[:, 1 - axis :: 2]) for axis in (0, 1)]
        moved = np.stack([sides[1][:, 0], sides[0][:, 0], sides[1][:, 1], sides[0][:, 1]], 1)
        inside = np.clip(moved, 0, np.array([*size[::-1], *size[::-1]]))
        whole, left = ((box[:, 2:] - box[:, :2]).prod(1) for box in (moved, inside))
        return inside.astype(np.float32), (left > 0) & (left >= MIN_VISIBLE * whole)

    def _place(self, index: int, axis: int, size: int, at: np.ndarray) -> np.ndarray:
        """Where starts and ends along one axis, [k, 2] in pixels, come to."""
        mirrored = self.mirrored.get(axis + DOWN)
        if mirrored is not None and mirrored[index]:
            at = size - at[:, ::-1]
        if self.offsets is not None:
            at = at + self.offsets[axis][index]
        if self.zooms is None or self.fixed is None:
            return at
        fixed = self.fixed[axis][index] * size
        moved: np.ndarray = fixed + self.zooms[index] * (at - fixed)
        return moved

    def _origins(self, index: int, axis: int, size: int) -> np.ndarray:
        """For each pixel along an axis of a mirrored picture the one that it shows, float [size]."""
        at = np.arange(size, dtype=np.float64)
        if self.zooms is not None and self.fixed is not None:
            at = origins(size, self.zooms[index : index + 1], self.fixed[axis][index : index + 1])[0]
        if self.offsets is not None:
            at = np.clip(at, 0, size - 1) - self.offsets[axis][index]
        return np.clip(at, 0, size - 1)


def augment_images(images: np.ndarray, train: Train, pixels: Pixels, rng: np.random.Generator) -> np.ndarray:
    """A changed copy of normalized float32 [n, channels, height, width]; each picture is changed at random."""
    return relight(Moves.draw(train, len(images), rng).pictures(images), train, pixels, rng)


def relight(images: np.ndarray, train: Train, pixels: Pixels, rng: np.random.Generator) -> np.ndarray:
    """A copy of normalized float32 [n, channels, height, width], each picture with its own brightness and contrast."""
    if not (train.brightness or train.contrast):
        return images
    brightness, contrast = (random_factors(spread, len(images), rng) for spread in (train.brightness, train.contrast))
    return adjust_light(images, brightness, contrast, pixels)


def mirror(images: np.ndarray, axis: int, chosen: np.ndarray) -> np.ndarray:
    """Mirror the chosen pictures, bool [n], along `axis`."""
    return np.where(chosen[:, None, None, None], np.flip(images, axis), images)


def shift(images: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Move picture i by offsets[0][i] rows and offsets[1][i] columns; border pixels fill the gap."""
    height, width = images.shape[2:]
    rows = np.clip(np.arange(height) - offsets[0][:, None], 0, height - 1)
    columns = np.clip(np.arange(width) - offsets[1][:, None], 0, width - 1)
    images = np.take_along_axis(images, rows[:, None, :, None], axis=2)
    return np.take_along_axis(images, columns[:, None, None, :], axis=3)


def zoom(images: np.ndarray, factors: np.ndarray, fixed: np.ndarray) -> np.ndarray:
    """Enlarge picture i by factors[i] about its point fixed[:, i], interpolating linearly; border pixels fill the gaps."""
    for axis, shares in zip((DOWN, ACROSS), fixed, strict=True):
        size = images.shape[axis]
        at = np.clip(origins(size, factors, shares), 0, size - 1)
        lower = at.astype(np.int64)
        shape = (-1, 1, size, 1) if axis == DOWN else (-1, 1, 1, size)
        first, second = (
            np.take_along_axis(images, places.reshape(shape), axis=axis) for places in (lower, np.minimum(lower + 1, size - 1))
        )
        images = first + (at - lower).astype(np.float32).reshape(shape) * (second - first)
    return images


def origins(size: int, factors: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Where along an axis of `size` pixels the value of each pixel of a zoomed picture comes from, float [n, size]."""
    fixed = (shares * size)[:, None]
    places: np.ndarray = (np.arange(size) + 0.5 - fixed) / factors[:, None] + fixed - 0.5
    return places


def random_factors(spread: float, count: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(1 - spread, 1 + spread, (count, 1, 1, 1)).astype(np.float32)


def adjust_light(images: np.ndarray, brightness: np.ndarray, contrast: np.ndarray, pixels: Pixels) -> np.ndarray:
    """Scale the distance from black (brightness), then the distance from each channel's mean (contrast)."""
    images = pixels.black + brightness * (images - pixels.black)
    mean = images.mean(axis=(2, 3), keepdims=True)
    lowest, highest = np.minimum(pixels.black, pixels.white), np.maximum(pixels.black, pixels.white)  # data.range may be the negative
    relit: np.ndarray = np.clip(mean + contrast * (images - mean), lowest, highest)
    return relit
