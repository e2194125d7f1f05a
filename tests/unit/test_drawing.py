"""Drawing of answers on pictures."""

import numpy as np
import pytest

from edgewise.agent import drawing


def test_a_box_whose_sides_are_swapped_is_drawn_like_any_other():
    """A quantized detector may return a negative width."""
    picture = np.zeros((20, 30, 3), np.uint8)
    swapped, plain = (np.asarray(drawing.draw_boxes(picture, np.array([box]), [0], [""])) for box in ([20, 15, 5, 4], [5, 4, 20, 15]))
    assert plain.any() and np.array_equal(swapped, plain)


@pytest.mark.parametrize(
    ("color", "ink"),
    [
        ((204, 255, 0), drawing.BLACK),  # lime
        ((255, 255, 0), drawing.BLACK),
        ((36, 36, 242), drawing.WHITE),
        ((120, 0, 0), drawing.WHITE),
    ],
)
def test_captions_are_black_on_bright_colours_and_white_on_dark_ones(color, ink):
    assert drawing.ink_on(color) == ink


def contrast(one, other) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio, written out anew."""

    def luminance(color):
        red, green, blue = ((c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4) for c in (v / 255 for v in color))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_the_caption_of_every_class_can_be_read():
    """At least 4.5, as accessible text has it."""
    assert min(contrast(color, drawing.ink_on(color)) for color in map(drawing.color_of, range(256))) >= 4.5


PICTURE, SIZE = (100, 60), (30, 10)


@pytest.mark.parametrize(
    ("box", "taken", "place"),
    [
        ((20, 30, 60, 50), [], (20, 20)),  # above its box
        ((20, 2, 60, 50), [], (20, 0)),  # at the upper edge
        ((90, 30, 99, 50), [], (70, 20)),  # at the right edge
        ((-5, 30, 60, 50), [], (0, 20)),
        ((20, 30, 60, 50), [(25, 15, 55, 25)], (20, 30)),  # in its box, where another caption stands above
        ((20, 0, 60, 40), [(20, 0, 50, 10)], (20, 40)),  # below it
        ((0, 0, 300, 300), [], (0, 0)),
    ],
)
def test_captions_stay_in_the_picture_and_beside_each_other(box, taken, place):
    found = drawing.place_caption(box, SIZE, PICTURE, taken)
    assert found == (*place, place[0] + SIZE[0], place[1] + SIZE[1])


def test_a_caption_at_the_corner_is_drawn_whole():
    """As many pixels of ink as in the middle of the picture."""

    def inked(box):
        drawn = np.asarray(drawing.draw_boxes(np.full((80, 120, 3), 128, np.uint8), np.array([box]), [0], ["person 0.34"]))
        return (drawn.max(axis=2) < 100).sum()  # of the black letters alone

    assert inked([100, 1, 118, 30]) == inked([40, 40, 58, 69]) > 50


def test_no_box_is_drawn_over_a_caption():
    def inked(*boxes):
        drawn = np.asarray(drawing.draw_boxes(np.full((80, 120, 3), 128, np.uint8), np.array(boxes), [0, 0], ["person 0.34", ""]))
        return (drawn.max(axis=2) < 100).sum()

    assert inked([40, 40, 58, 69]) == inked([40, 40, 58, 69], [50, 10, 90, 75])
