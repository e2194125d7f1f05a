"""Where a picture lies in the model's input, and the way back. Oracles: what YOLOX and Ultralytics do, written as plain scripts; Pillow."""

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgewise.agent import geometry, preprocess
from edgewise.agent.geometry import IGNORE, Geometry
from edgewise.config.settings import build
from edgewise.data.encoders import PictureEncoder, PictureSettings
from edgewise.errors import ConfigError, DataError

SIDES = st.integers(1, 900)


def spec(**changes):
    return {"size": [416, 416], "channels": 3, "resize": "letterbox", "pad_value": 114, "anchor": "center", "stride": None, **changes}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def yolox_preproc(image, size):
    """yolox/data/data_augment.py, `preproc`, with Pillow's bilinear filter in place of OpenCV's: (input, ratio)."""
    padded = np.ones((*size, 3), np.uint8) * 114
    r = min(size[0] / image.shape[0], size[1] / image.shape[1])
    height, width = int(image.shape[0] * r), int(image.shape[1] * r)
    padded[:height, :width] = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
    return padded, r


def ultralytics_letterbox(image, size, stride=None):
    """ultralytics/data/augment.py, `LetterBox` with center=True, auto where there is a stride: (input, gain, left, top)."""
    r = min(size[0] / image.shape[0], size[1] / image.shape[1])
    new_unpad = round(image.shape[1] * r), round(image.shape[0] * r)
    dw, dh = size[1] - new_unpad[0], size[0] - new_unpad[1]
    if stride:
        dw, dh = np.mod(dw, stride), np.mod(dh, stride)
    dw, dh = dw / 2, dh / 2
    resized = np.asarray(Image.fromarray(image).resize(new_unpad, Image.Resampling.BILINEAR))
    top, bottom = round(dh - 0.1), round(dh + 0.1)
    left, right = round(dw - 0.1), round(dw + 0.1)
    return np.pad(resized, ((top, bottom), (left, right), (0, 0)), constant_values=114), r, left, top


SHAPES = [(480, 640), (427, 640), (640, 427), (375, 500), (333, 500), (100, 37), (500, 500), (416, 416), (1080, 1920), (613, 409)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [(416, 416), (320, 640)], ids=str)
def test_the_corner_is_yolox(shape, size):
    image = noise(*shape)
    expected, ratio = yolox_preproc(image, size)
    made = spec(size=list(size), anchor="corner")
    assert np.array_equal(preprocess.resize_to_spec(image, made), expected)
    boxes = np.array([[0, 0, shape[1], shape[0]], [10, 20, shape[1] / 2, shape[0] / 3]])
    there = Geometry.of(made, *shape).boxes_to_input(boxes)
    np.testing.assert_allclose(there, boxes * ratio, rtol=1e-12)
    np.testing.assert_allclose(Geometry.of(made, *shape).boxes_to_picture(there), there / ratio, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("size", "stride"), [((416, 416), None), ((320, 640), None), ((640, 640), 32), ((416, 416), 1)], ids=str)
def test_the_center_is_ultralytics(shape, size, stride):
    image = noise(*shape)
    expected, gain, left, top = ultralytics_letterbox(image, size, stride)
    made = spec(size=list(size), stride=stride)
    assert np.array_equal(preprocess.resize_to_spec(image, made), expected)
    placed = preprocess.place(made, *shape)
    assert (placed.left, placed.top) == (left, top)
    answers = np.array([[left + 1.5, top + 2.5, left + 30.0, top + 20.0], [0, 0, size[1], size[0]]])
    expected = np.clip((answers - [left, top] * 2) / gain, 0, [shape[1], shape[0]] * 2)
    np.testing.assert_allclose(Geometry.of(made, *shape).boxes_to_picture(answers), expected, rtol=1e-12)


@settings(max_examples=100, deadline=None)
@given(SIDES, SIDES, st.sampled_from(["stretch", "crop", "pad", "letterbox"]), st.sampled_from(["corner", "center"]), st.data())
def test_boxes_return_to_where_they_were(height, width, resize, anchor, data):
    made = Geometry.of(spec(size=[320, 416], resize=resize, anchor=anchor, crop_share=0.875), height, width)
    left, top, right, bottom = made.placement.source
    x = sorted(data.draw(st.floats(left, right)) for _ in range(2))
    y = sorted(data.draw(st.floats(top, bottom)) for _ in range(2))
    box = np.array([[x[0], y[0], x[1], y[1]]])
    there = made.boxes_to_input(box)
    np.testing.assert_allclose(made.boxes_to_picture(there), box, atol=1e-8)
    assert (there >= 0).all() and (there[:, ::2] <= 416).all() and (there[:, 1::2] <= 320).all()
    assert made.boxes_to_picture(there.astype(np.float32)).dtype == np.float32


def test_boxes_are_clipped_to_the_picture():
    made = Geometry.of(spec(), 480, 640)
    whole = made.boxes_to_picture(np.array([[-50, -50, 900, 900], [0, 0, 416, 40]], np.float32))
    assert whole.tolist() == [[0, 0, 640, 480], [0, 0, 640, 0]], "a box on the bar alone has no height"
    assert made.boxes_to_picture(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "letterbox"])
@pytest.mark.parametrize("shape", [(90, 160), (160, 90)], ids=str)
def test_a_rectangle_lies_where_the_box_says(resize, shape):
    """A white rectangle on black: half-bright pixels of the resized picture are inside of the mapped box, to a pixel."""
    image = np.zeros((*shape, 1), np.uint8)
    image[40:60, 50:70] = 255
    made = spec(size=[64, 96], channels=1, resize=resize, pad_value=0)
    found = np.argwhere(preprocess.resize_to_spec(image, made)[:, :, 0] > 127)
    box = Geometry.of(made, *shape).boxes_to_input(np.array([[50, 40, 70, 60]], np.float32))[0]
    measured = [found[:, 1].min(), found[:, 0].min(), found[:, 1].max() + 1, found[:, 0].max() + 1]
    np.testing.assert_allclose(measured, box, atol=1)


@pytest.mark.parametrize("resize", ["stretch", "pad", "letterbox"])
def test_a_mask_comes_back_at_the_pictures_size(resize):
    image = np.repeat(np.repeat(np.arange(48, dtype=np.uint8).reshape(6, 8), 20, 0), 20, 1)
    made = Geometry.of(spec(size=[240, 240], resize=resize), *image.shape)
    there = made.mask_to_input(image)
    assert there.shape == (240, 240) and np.array_equal(made.mask_to_picture(there), image)
    assert np.count_nonzero(there == IGNORE) == (0 if resize == "stretch" else 240 * 60)


def test_a_mask_takes_the_values_that_pillows_nearest_does():
    image = noise(123, 77)[:, :, 0]
    made = Geometry.of(spec(size=[200, 200], resize="stretch"), *image.shape)
    assert np.array_equal(made.mask_to_input(image), np.asarray(Image.fromarray(image).resize((200, 200), Image.Resampling.NEAREST)))


def test_a_smaller_mask_covers_the_same_input():
    made = Geometry.of(spec(size=[240, 240]), 120, 160)
    small = np.zeros((60, 60), np.uint8)
    small[:, 30:] = 1
    back = made.mask_to_picture(small)
    assert back.shape == (120, 160) and not back[:, :80].any() and back[:, 80:].all()


def test_what_a_crop_cuts_off_has_no_class():
    made = Geometry.of(spec(size=[50, 50], resize="crop"), 100, 200)
    back = made.mask_to_picture(np.ones((50, 50), np.uint8))
    assert (back[:, 50:150] == 1).all() and (back[:, :50] == IGNORE).all() and (back[:, 150:] == IGNORE).all()


def test_bars_of_a_colour_and_of_grey():
    image = np.zeros((10, 40, 3), np.uint8)
    assert preprocess.resize_to_spec(image, spec(size=[40, 40], pad_value=[1, 2, 3]))[0, 0].tolist() == [1, 2, 3]
    assert preprocess.resize_to_spec(image, spec(size=[40, 40], channels=1, pad_value=9))[39, 0].tolist() == [9]


def made_spec(**given):
    return build(PictureSettings, {"image_size": 64, **given}, "data").spec


def test_settings_of_the_letterbox():
    assert not {"pad_value", "anchor", "stride"} & set(made_spec())
    plain = made_spec(resize="letterbox")
    assert (plain["pad_value"], plain["anchor"], plain["stride"]) == (114, "center", None)
    yolox = made_spec(resize="letterbox", pad_value=0, pad_anchor="corner", pad_stride=32)
    assert (yolox["pad_value"], yolox["anchor"], yolox["stride"]) == (0, "corner", 32)
    assert made_spec(resize="letterbox", pad_value=[124, 116, 104])["pad_value"] == [124, 116, 104]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"resize": "pad", "pad_value": 0}, r"data\.pad_value: 0 needs data\.resize=letterbox or as_is, but it is pad"),
        ({"pad_anchor": "corner"}, r"data\.pad_anchor: corner needs data\.resize=letterbox"),
        ({"pad_stride": 32}, r"data\.pad_stride: 32 needs data\.resize=letterbox"),
        ({"resize": "letterbox", "pad_value": 256}, r"data\.pad_value: 256 must be an integer from 0 to 255"),
        ({"resize": "letterbox", "pad_value": 0.5}, r"data\.pad_value: 0\.5 must be an integer"),
        ({"resize": "letterbox", "pad_value": [1, 2]}, r"data\.pad_value: \[1, 2\] must be .* a list of 3"),
        ({"resize": "letterbox", "pad_anchor": "left"}, r"data\.pad_anchor: 'left'.* allowed: center, corner"),
        ({"resize": "letterbox", "pad_stride": 48}, r"data\.pad_stride: 48 must divide both sides of data\.image_size, \[64, 64\]"),
        ({"resize": "letterbox", "pad_stride": 0}, r"data\.pad_stride: 0"),
    ],
)
def test_settings_that_do_not_fit(given, message):
    with pytest.raises(ConfigError, match=message):
        made_spec(**given)


def test_pictures_padded_to_a_multiple_are_stored_at_their_own_size(tmp_path):
    encoder = PictureEncoder(build(PictureSettings, {"image_size": 64, "resize": "letterbox", "pad_stride": 16}, "data"), tmp_path)
    encoder.add(noise(60, 100))
    encoder.add(noise(32, 50))
    assert encoder.finish(np.array([0]))["inputs"][0].shape == (None, 3, 48, 64)
    assert np.load(tmp_path / "inputs" / "image.npy").shape == (2, 48, 64, 3)


def test_pictures_that_come_to_two_sizes(tmp_path):
    encoder = PictureEncoder(build(PictureSettings, {"image_size": 64, "resize": "letterbox", "pad_stride": 16}, "data"), tmp_path)
    encoder.add(noise(60, 100))
    with pytest.raises(DataError, match=r"data\.pad_stride: 16 makes \[64, 48\] of a picture of \[100, 60\] .*pad_stride=none"):
        encoder.add(noise(100, 60))
    encoder.finish(np.array([0]))


def test_python_3_9_can_read_it():
    ast.parse(Path(geometry.__file__).read_text(encoding="utf-8"), feature_version=(3, 9))
