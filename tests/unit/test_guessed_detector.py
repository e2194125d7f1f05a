"""Detectors without labelled pictures: pictures are prepared as a head that has a way of its own is trained."""

import numpy as np

from edgewise.inspect.detectors_choice import guess
from edgewise.inspect.trial_run import Tried


def rows(*shape: int) -> np.ndarray:
    random = np.random.default_rng(0)
    boxes = random.normal(size=(*shape[:2], 4))
    return np.concatenate([boxes, random.uniform(0, 1, (*shape[:2], shape[2] - 4))], axis=2).astype(np.float32)


def test_yolox_takes_pixels_as_they_are_blue_first_in_the_upper_left_corner():
    found = guess(Tried({"output": rows(3, 3549, 85)}), (416, 416))
    letterbox = {"resize": "letterbox", "pad_anchor": "corner", "pad_value": 114}
    assert found is not None and found.data == {"range": [0, 255], "channel_order": "bgr", **letterbox}
    assert found.words.startswith("a guess") and "YOLOX" in found.hints[0] and not found.decoding


def test_other_heads_have_no_way_of_their_own():
    boxes = np.random.default_rng(0).uniform(0, 640, (3, 84, 8400)).astype(np.float32)
    found = guess(Tried({"output0": boxes}), (640, 640))
    assert found is not None and not found.data
