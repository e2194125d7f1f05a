"""The picture: parallel coordinates, an axis for each swept key and each objective, the front over the rest."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.report.figure import GREY, INK, PALETTE, PAPER, STYLE
from edgewise.sweep.effects import order
from edgewise.sweep.plan import MAXIMIZE, MINIMIZE
from edgewise.sweep.summary import Row, SweepSummary

UNITS = {"size_bytes": ("size, MB", 1e-6), "latency_p50_ms": ("p50, ms", 1.0), "accuracy_top1": ("accuracy, %", 100.0)}
NAMES = {"latency_ratio_to_reference": "latency / reference"}
BETTER = {MAXIMIZE: "↑", MINIMIZE: "↓"}
SPREAD = 0.035  # lines of one category are drawn this far apart, so that none hides another


@dataclass(frozen=True)
class Axis:
    """heights: of each row, 0 to 1. ticks: what is written at which height."""

    title: str
    heights: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def draw(summary: SweepSummary, path: Path) -> None:
    """Write the picture; nothing where no row has all objectives. The same results give the same bytes."""
    rows = [row for row in summary.rows if row.values is not None]
    if not rows:
        return
    import matplotlib
    from matplotlib.figure import Figure

    axes = [
        *(choices(key, rows) for key in key_names(summary, rows)),
        *(numbers(i, name, rows, BETTER[direction]) for i, (name, direction) in enumerate(summary.objectives.items())),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.0, 2.1 * len(axes)), 5.2), facecolor=PAPER)
        plot = figure.add_axes((0.07, 0.08, 0.86, 0.72))
        lines(plot, rows, axes)
        for place, axis in enumerate(axes):
            write_axis(plot, place, axis)
        dress(plot, summary, len(axes))
        figure.savefig(path, dpi=150, metadata={"Software": None})


def key_names(summary: SweepSummary, rows: Sequence[Row]) -> list[str]:
    return [*summary.keys, *(["variant"] if len({row.variant for row in rows}) > 1 else [])]


def choices(key: str, rows: Sequence[Row]) -> Axis:
    """One height for each value, evenly, and the rows that share it a little apart."""
    values = [row.variant if key == "variant" else row.settings.get(key, "") for row in rows]
    names = sorted(set(values), key=order)
    places = {name: (number + 0.5) / len(names) for number, name in enumerate(names)}
    room = min(SPREAD, 0.8 / len(rows) / len(names))
    heights = [places[value] + room * (values[: i + 1].count(value) - (values.count(value) + 1) / 2) for i, value in enumerate(values)]
    return Axis(key.rpartition(".")[2], heights, [(height, name) for name, height in places.items()])


def numbers(index: int, name: str, rows: Sequence[Row], better: str) -> Axis:
    title, factor = UNITS.get(name, (NAMES.get(name, name), 1.0))
    values = [factor * row.values[index] for row in rows if row.values]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    heights = [0.5 if high == low else 0.04 + 0.92 * (value - low) / span for value in values]
    ends = [(0.5, low)] if high == low else [(0.04 + 0.92 * share, low + share * span) for share in (0.0, 0.5, 1.0)]
    return Axis(f"{title} {better}", heights, [(height, f"{value:.4g}") for height, value in ends])


def lines(plot: Any, rows: Sequence[Row], axes: Sequence[Axis]) -> None:
    front = [i for i, row in enumerate(rows) if row.front]
    for i in range(len(rows)):
        if i not in front:
            plot.plot(range(len(axes)), [axis.heights[i] for axis in axes], color=GREY, linewidth=0.9, alpha=0.45)
    for number, i in enumerate(front):
        colour = PALETTE[number % len(PALETTE)]
        plot.plot(
            range(len(axes)), [axis.heights[i] for axis in axes], color=colour, linewidth=2.0, marker="o", markersize=4, label=rows[i].point
        )


def write_axis(plot: Any, place: int, axis: Axis) -> None:
    plot.axvline(place, color=INK, linewidth=0.8, zorder=0)
    plot.text(place, 1.03, axis.title, ha="center", va="bottom", fontsize=9, fontweight="bold")
    for height, text in axis.ticks:
        label = plot.text(place + 0.03, height, text, fontsize=8, va="center", zorder=6)
        label.set_bbox({"facecolor": PAPER, "alpha": 0.75, "linewidth": 0, "pad": 1})


def dress(plot: Any, summary: SweepSummary, axes: int) -> None:
    plot.set_xlim(-0.15, axes - 0.7)
    plot.set_ylim(0, 1)
    plot.axis("off")
    plot.text(0, 1.2, f"Sweep {summary.name}", transform=plot.transAxes, fontsize=13, fontweight="bold")
    drawn, left_out = sum(row.values is not None for row in summary.rows), sum(row.values is None for row in summary.rows)
    caption = f"{drawn} rows{f', without {left_out} that failed' if left_out else ''}; in colour: the Pareto front ({len(summary.front)}); "
    caption += "↑ more is better, ↓ less is better"
    plot.text(0, 1.135, caption, transform=plot.transAxes, fontsize=8.5, color="#57606a")
    if len(summary.front) <= len(PALETTE):
        plot.legend(loc="upper right", bbox_to_anchor=(1.0, 1.27), ncols=3, frameon=False, fontsize=7.5)
