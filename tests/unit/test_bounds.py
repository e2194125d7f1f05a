"""Bounds in text hold after rounding."""

import pytest

from edgewise.report import bounds


@pytest.mark.parametrize(
    ("value", "places", "down", "up"),
    [
        (1.0905, 2, "1.09", "1.10"),
        (1.15, 2, "1.15", "1.15"),  # 100 * 1.15 is 114.99999999999999
        (2.0, 1, "2.0", "2.0"),
        (60.2, 0, "60", "61"),
        (0.0, 2, "0.00", "0.00"),
    ],
)
def test_bounds_are_rounded_to_the_safe_side(value, places, down, up):
    assert (bounds.round_down(value, places), bounds.round_up(value, places)) == (down, up)


@pytest.mark.parametrize(("value", "places"), [(0.521, 2), (0.0406, 3), (4.06, 1), (41.3, 0), (0.0, 0)])
def test_two_significant_digits_need_so_many_places(value, places):
    assert bounds.count_places(value) == places
