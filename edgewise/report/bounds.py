"""Bounds as text. "At least" is rounded down and "at most" up, so that what a reader sees still holds."""

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal


def round_down(value: float, places: int) -> str:
    """1.0904 with one decimal place: 1.0."""
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-places), ROUND_FLOOR))


def round_up(value: float, places: int) -> str:
    """0.0911 with two decimal places: 0.10."""
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-places), ROUND_CEILING))


def count_places(value: float, digits: int = 2) -> int:
    """How many decimal places show that many significant digits; 0 for a value of 0."""
    return max(digits - 1 - math.floor(math.log10(abs(value))), 0) if value else 0
