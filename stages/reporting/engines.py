"""The grids of `engine: auto`: one table for each variant that looked for its engine settings on the device."""

from collections.abc import Iterator, Mapping
from typing import Any

from stages.core.results import EngineAuto, EnginePoint, Summary

TITLES = ("setting", "ratio to the plain settings", "outputs, dB", "verdict")
WHAT = {"latency": "latency", "memory": "peak memory above the baseline"}


def grids(summary: Summary) -> dict[str, EngineAuto]:
    """What each such variant found, as in its record."""
    return {name: row.engine_auto for name, row in summary.variants.items() if row.engine_auto}


def lines(summary: Summary) -> list[str]:
    return [f"Engine of {name} (auto, by {WHAT[found.goal]}): {found.reason}" for name, found in grids(summary).items()]


def markdown(summary: Summary) -> list[str]:
    """The tables of report.md; nothing where no grid was tried."""
    text: list[str] = []
    for name, found in grids(summary).items():
        if len(found.points) > 1:
            text += ["", f"Engine settings of {name}, tried on the device by {WHAT[found.goal]}:", ""]
            text += ["| " + " | ".join(TITLES) + " |", "|---" * len(TITLES) + "|"]
            text += ["| " + " | ".join(cells) + " |" for cells in rows(found)]
    return text


def rows(found: EngineAuto) -> Iterator[tuple[str, ...]]:
    """A line for each point; in the same words in Markdown and on the page."""
    for point in found.points:
        yield settings(point.settings), ratio(point), decibels(point), verdict(point)


def settings(chosen: Mapping[str, Any]) -> str:
    shown = (f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in chosen.items())
    return ", ".join(shown) or "plain settings"


def ratio(point: EnginePoint) -> str:
    if point.ratio is None or point.ratio_ci95 is None:
        return "" if point.refusal else "1"
    return f"{point.ratio:.3f} [{point.ratio_ci95[0]:.3f}, {point.ratio_ci95[1]:.3f}]"


def decibels(point: EnginePoint) -> str:
    return f"{point.sqnr_db:.0f}" if point.sqnr_db is not None else ""


def verdict(point: EnginePoint) -> str:
    """A refusal with its reason, on one line that breaks no table."""
    return f"refused: {' '.join(point.refusal.split())}".replace("|", "/") if point.refusal else point.verdict
