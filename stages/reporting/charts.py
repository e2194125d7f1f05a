"""Small lines over the minutes of a sustained run, as points of an SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.core.results import Sustained

WIDTH, HEIGHT, EDGE = 220, 46, 3
SERIES = {"median_ms": "median, ms", "temperature_degc": "temperature, \N{DEGREE SIGN}C", "frequency_mhz": "frequency, MHz"}


@dataclass(frozen=True)
class Chart:
    """One quantity. points: of an SVG polyline; mark: x of the minute in which throttling set in."""

    title: str
    points: str
    first: float
    last: float
    low: float
    high: float
    mark: float | None


def of(minutes: Sequence[Mapping[str, Any]], sustained: Sustained | None) -> list[Chart]:
    """A chart for each quantity that was read in every minute."""
    known = [key for key in SERIES if minutes and all(entry[key] is not None for entry in minutes)]
    throttled = sustained.throttled_from_minute if sustained else None
    return [chart(SERIES[key], [(entry["minute"], entry[key]) for entry in minutes], throttled) for key in known]


def chart(title: str, values: Sequence[tuple[int, float]], throttled: int | None) -> Chart:
    """values: (minute, value). A line that hardly moves is drawn as such: the scale spans at least a tenth of the value."""
    low, high = min(value for _, value in values), max(value for _, value in values)
    middle, span = (low + high) / 2, max(high - low, 0.1 * abs(high)) or 1.0
    start, length = values[0][0], max(values[-1][0] - values[0][0], 1)

    def across(minute: int) -> float:
        return EDGE + (WIDTH - 2 * EDGE) * (minute - start) / length

    points = [(across(minute), HEIGHT / 2 - (HEIGHT - 2 * EDGE) * (value - middle) / span) for minute, value in values]
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return Chart(title, text, values[0][1], values[-1][1], low, high, None if throttled is None else across(throttled))
