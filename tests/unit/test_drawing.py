"""Drawing of answers on pictures."""

import numpy as np

from edgewise.agent import drawing


def test_a_box_whose_sides_are_swapped_is_drawn_like_any_other():
    """A quantized detector may return a negative width."""
    picture = np.zeros((20, 30, 3), np.uint8)
    swapped, plain = (np.asarray(drawing.draw_boxes(picture, np.array([box]), [0], [""])) for box in ([20, 15, 5, 4], [5, 4, 20, 15]))
    assert plain.any() and np.array_equal(swapped, plain)
