"""Augmentation, against scipy's shift and Pillow's brightness and contrast."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from edgewise.agent.preprocess import normalize
from edgewise.config.schema import Train
from edgewise.errors import ConfigError
from edgewise.sources.training import Pixels, adjust_light, augment_images, check_augmentations, flip_half, shift

SPEC = {"kind": "image", "scale": 1 / 255, "mean": [0.48, 0.45, 0.4], "std": [0.22, 0.23, 0.25], "layout": "NCHW", "dtype": "float32"}
PIXELS = Pixels.of(SPEC)


def pictures(count: int = 6, grey: bool = False) -> np.ndarray:
    """uint8 [count, 12, 10, 3]; far from black and white, so that nothing is cut off."""
    images = np.random.default_rng(0).integers(80, 150, (count, 12, 10, 3), dtype=np.uint8)
    return images[..., :1].repeat(3, 3) if grey else images


def to_bytes(batch: np.ndarray) -> np.ndarray:
    mean, std = (np.array(SPEC[key], np.float32)[:, None, None] for key in ("mean", "std"))
    return ((batch * std + mean) * 255).transpose(0, 2, 3, 1)


def test_black_and_white_are_what_preprocessing_makes_of_them() -> None:
    extremes = normalize(np.array([0, 255], np.uint8)[:, None, None, None].repeat(3, 3), SPEC)
    np.testing.assert_allclose(extremes[0], PIXELS.black, rtol=1e-6)
    np.testing.assert_allclose(extremes[1], PIXELS.white, rtol=1e-6)


def test_shift_is_that_of_scipy() -> None:
    batch = normalize(pictures(), SPEC)
    offsets = np.random.default_rng(1).integers(-14, 15, (2, len(batch)))
    moved = shift(batch, offsets)
    for i, (down, right) in enumerate(offsets.T):
        np.testing.assert_array_equal(moved[i], ndimage.shift(batch[i], (0, down, right), order=0, mode="nearest"))


@pytest.mark.parametrize("axis", [2, 3])
def test_flip_mirrors_about_half_of_the_pictures(axis: int) -> None:
    batch = normalize(pictures(200), SPEC)
    mirrored = flip_half(batch, axis, np.random.default_rng(0))
    turned = [bool((new != old).any()) for new, old in zip(mirrored, batch, strict=True)]
    assert 70 < sum(turned) < 130
    for new, old, changed in zip(mirrored, batch, turned, strict=True):
        np.testing.assert_array_equal(new, np.flip(old, axis - 1) if changed else old)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_brightness_is_that_of_pillow(factor: float) -> None:
    images, one = pictures(), np.ones((6, 1, 1, 1), np.float32)
    mine = to_bytes(adjust_light(normalize(images, SPEC), one * factor, one, PIXELS))
    theirs = np.stack([ImageEnhance.Brightness(Image.fromarray(image)).enhance(factor) for image in images])
    assert np.abs(mine - theirs).max() <= 1.01  # Pillow rounds down to whole levels


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_contrast_is_that_of_pillow_on_grey_pictures(factor: float) -> None:
    images, one = pictures(grey=True), np.ones((6, 1, 1, 1), np.float32)
    mine = to_bytes(adjust_light(normalize(images, SPEC), one, one * factor, PIXELS))
    theirs = np.stack([ImageEnhance.Contrast(Image.fromarray(image)).enhance(factor) for image in images])
    assert np.abs(mine - theirs).max() <= 1.5  # Pillow rounds the mean as well


def test_nothing_leaves_the_range_of_a_picture() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), dtype=np.uint8)
    train = Train("x", brightness=0.9, contrast=0.9, shift_pixels=3, flip_horizontal=True, flip_vertical=True)
    changed = augment_images(normalize(images, SPEC), train, PIXELS, np.random.default_rng(0))
    assert changed.dtype == np.float32 and changed.shape == (50, 3, 8, 8)
    assert (changed >= PIXELS.black).all() and (changed <= PIXELS.white).all()
    assert not np.isnan(changed).any()


def test_each_picture_has_its_own_change_and_the_seed_decides() -> None:
    batch = normalize(pictures(1).repeat(8, 0), SPEC)
    train = Train("x", brightness=0.5)
    first, again, other = (augment_images(batch, train, PIXELS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert len(np.unique(first[:, 0, 0, 0])) == 8
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_without_settings_nothing_changes() -> None:
    batch = normalize(pictures(), SPEC)
    np.testing.assert_array_equal(augment_images(batch, Train("x"), PIXELS, np.random.default_rng(0)), batch)


def test_only_pictures_can_be_changed() -> None:
    check_augmentations(Train("x", shift_pixels=2), SPEC)
    check_augmentations(Train("x"), {"kind": "text"})
    with pytest.raises(ConfigError, match=r"train\.shift_pixels: 2 changes pictures, but this data set has none"):
        check_augmentations(Train("x", shift_pixels=2), {"kind": "text"})
