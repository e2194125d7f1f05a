"""Maps of classes at the picture's size: against torch's bilinear interpolation, a plain loop, and what must be."""

import numpy as np
import pytest

from edgewise.agent import class_maps
from edgewise.agent.class_maps import make_class_map
from edgewise.agent.geometry import IGNORE, Geometry

STRETCH = {"size": [32, 48], "resize": "stretch"}
LETTERBOX = {"size": [32, 32], "resize": "letterbox", "anchor": "center", "stride": None}
FIRST = {"channels": "first"}


def smooth(channels: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, height, width)).astype(np.float32)


@pytest.mark.framework
@pytest.mark.parametrize(("height", "width"), [(32, 48), (75, 101), (20, 20), (1, 200)])
@pytest.mark.parametrize("shape", [(32, 48), (8, 12)], ids=str)
def test_a_stretched_map_is_that_of_torch(height, width, shape):
    import torch

    scores = smooth(5, *shape)
    resized = torch.nn.functional.interpolate(torch.tensor(scores)[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    expected, margin = resized.argmax(dim=0).numpy(), np.diff(np.sort(resized.numpy(), axis=0)[-2:], axis=0)[0]
    made = make_class_map(scores, FIRST, Geometry.of(STRETCH, height, width))
    assert made.dtype == np.uint8 and made.shape == (height, width)
    assert (made == expected)[margin > 1e-4].all() and (margin > 1e-4).mean() > 0.99


def by_hand(scores: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Pixel by pixel, by way of the boxes of Geometry: shares nothing with the code."""
    made = np.full((geometry.height, geometry.width), IGNORE, np.uint8)
    rows, columns = geometry.placement.size
    for y in range(geometry.height):
        for x in range(geometry.width):
            u, v = geometry.boxes_to_input(np.array([[x + 0.5, y + 0.5, x + 0.5, y + 0.5]]))[0, :2]
            back = geometry.boxes_to_picture(np.array([[u, v, u, v]]))[0, :2]
            if np.abs(back - (x + 0.5, y + 0.5)).max() > 1e-6:
                continue  # outside of what the input shows
            i = np.clip(v * scores.shape[1] / rows - 0.5, 0, scores.shape[1] - 1)
            j = np.clip(u * scores.shape[2] / columns - 0.5, 0, scores.shape[2] - 1)
            near = [(int(i), int(j)), (int(i), int(np.ceil(j))), (int(np.ceil(i)), int(j)), (int(np.ceil(i)), int(np.ceil(j)))]
            shares = [(1 - i % 1) * (1 - j % 1), (1 - i % 1) * (j % 1), (i % 1) * (1 - j % 1), (i % 1) * (j % 1)]
            made[y, x] = np.argmax(sum(share * scores[:, a, b] for share, (a, b) in zip(shares, near, strict=True)))
    return made


@pytest.mark.parametrize(
    "spec", [LETTERBOX, {**LETTERBOX, "anchor": "corner"}, {"size": [32, 32], "resize": "crop"}], ids=lambda s: s["resize"]
)
@pytest.mark.parametrize(("height", "width"), [(40, 64), (64, 40)])
def test_bars_are_cut_off_and_what_a_crop_hides_is_ignored(spec, height, width):
    scores, geometry = smooth(4, 16, 16), Geometry.of(spec, height, width)
    made = make_class_map(scores, FIRST, geometry)
    assert (made == by_hand(scores, geometry)).mean() > 0.999
    assert (IGNORE in made) == (spec["resize"] == "crop")


def test_all_forms_of_a_map_give_the_same():
    geometry, scores = Geometry.of(STRETCH, 60, 90), smooth(2, 32, 48)
    made = make_class_map(scores, FIRST, geometry)
    np.testing.assert_array_equal(made, make_class_map(scores.transpose(1, 2, 0), {"channels": "last"}, geometry))
    odds = scores[1] - scores[0]
    for one in (odds, odds[None], odds[:, :, None]):
        given = make_class_map(one, {"channels": "one", "threshold": 0.0}, geometry)
        assert (given == made).mean() > 0.999  # but for rounding
    assert not make_class_map(odds, {"channels": "one", "threshold": 100.0}, geometry).any()


def test_a_map_of_classes_is_not_blended():
    classes = np.random.default_rng(0).choice([0, 7], (32, 48)).astype(np.float32)
    made = make_class_map(classes[None], {"channels": "none"}, Geometry.of(STRETCH, 64, 96))
    np.testing.assert_array_equal(made, np.kron(classes, np.ones((2, 2))))


def test_a_large_picture_is_made_in_blocks(monkeypatch):
    geometry, scores = Geometry.of(LETTERBOX, 300, 200), smooth(3, 32, 32)
    whole = make_class_map(scores, FIRST, geometry)
    monkeypatch.setattr(class_maps, "MAX_CELLS", 5000)
    np.testing.assert_array_equal(make_class_map(scores, FIRST, geometry), whole)


@pytest.mark.parametrize(
    ("shape", "channels"), [((3, 8, 8), "one"), ((8, 8), "first"), ((8,), "none"), ((1, 2, 8, 8), "last"), ((0, 8, 8), "first")]
)
def test_an_output_of_another_form_is_named(shape, channels):
    with pytest.raises(ValueError, match="cannot be read with channels"):
        make_class_map(np.zeros(shape, np.float32), {"channels": channels, "threshold": 0.0}, Geometry.of(STRETCH, 8, 8))
