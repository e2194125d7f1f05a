"""Augmentation, against scipy's shift and Pillow's brightness and contrast."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import ndimage

from edgewise.agent.preprocess import normalize
from edgewise.config.schema import Train
from edgewise.errors import ConfigError
from edgewise.sources.augmentation import Moves, Pixels, adjust_light, augment_images, check_augmentations, shift, zoom

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
    train = Train("x", flip_vertical=axis == 2, flip_horizontal=axis == 3)
    mirrored = augment_images(batch, train, PIXELS, np.random.default_rng(0))
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


EVERYTHING = Train("x", flip_horizontal=True, flip_vertical=True, shift_pixels=5, zoom=0.5)


def bounds(mask: np.ndarray) -> list[int]:
    """x0, y0, x1, y1 of what is not 0."""
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def test_boxes_and_masks_move_as_their_pictures_do() -> None:
    """A white rectangle, moved as a picture, as a mask and as a box, ends in the same place."""
    moves = Moves.draw(EVERYTHING, 100, np.random.default_rng(0))
    pictures = np.zeros((100, 1, 80, 60), np.float32)
    pictures[:, :, 20:44, 14:36] = 1
    for i, moved in enumerate(moves.pictures(pictures)[:, 0]):
        (corners,), (seen,) = moves.corners(i, np.array([[14, 20, 36, 44]], np.float32), (80, 60))
        assert seen
        np.testing.assert_allclose(bounds(moved > 0.5), corners, atol=0.51)
        np.testing.assert_allclose(bounds(moves.mask(i, pictures[i, 0].astype(np.uint8))), corners, atol=0.51)
    assert {tuple(moves.mirrored[axis]) != tuple([False] * 100) for axis in (2, 3)} == {True}


def test_zoom_is_that_of_scipy() -> None:
    image = np.random.default_rng(0).normal(size=(1, 1, 30, 40)).astype(np.float32)
    factor, fixed = np.array([0.7]), np.array([[0.2], [0.9]])
    offset = [(size * share - 0.5) * (1 - 1 / 0.7) for size, share in ((30, 0.2), (40, 0.9))]
    expected = ndimage.affine_transform(image[0, 0], [1 / 0.7, 1 / 0.7], offset, order=1, mode="nearest")
    np.testing.assert_allclose(zoom(image, factor, fixed)[0, 0], expected, atol=1e-5)


def test_a_box_that_leaves_the_picture_is_cut_and_then_dropped() -> None:
    moves = Moves({}, offsets=np.array([[0, 0, 0], [0, 7, 9]]))
    found = [moves.corners(i, np.array([[0, 2, 10, 8]], np.float32), (10, 10)) for i in range(3)]
    assert [corners[0].tolist() for corners, _ in found] == [[0, 2, 10, 8], [7, 2, 10, 8], [9, 2, 10, 8]]
    assert [bool(seen[0]) for _, seen in found] == [True, True, False]
