"""The end of a sweep: its summary as a file, a table and a picture, its runs in MLflow, and what failed with the place of its log.

The picture shows parallel coordinates: an axis for each swept key and each objective, the Pareto front in colour over the rest.
"""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import write_json
from edgewise.config.schema import to_plain
from edgewise.errors import InfrastructureError
from edgewise.report.figure import GREY, INK, PALETTE, PAPER, STYLE
from edgewise.report.table import format_digits
from edgewise.sweep.clone import environment
from edgewise.sweep.effects import Effect, importances, level_order
from edgewise.sweep.execution import Outcome, read_outcomes
from edgewise.sweep.plan import MAXIMIZE, MINIMIZE, Plan
from edgewise.sweep.points import settings_by_key
from edgewise.sweep.summary import FOLDER, Row, SweepSummary, row_cost, say_too_short, summarize

MOST_ROWS = 40  # in the terminal; the file has all
UNITS = {"size_bytes": ("size, MB", 1e-6), "latency_p50_ms": ("p50, ms", 1.0), "accuracy_top1": ("accuracy, %", 100.0)}
NAMES = {"latency_ratio_to_reference": "latency / reference", "sqnr_db": "SQNR, dB"}
BETTER = {MAXIMIZE: "↑", MINIMIZE: "↓"}
SPREAD = 0.035  # distance between lines of one category, so that none hides another


def conclude(plan: Plan) -> int:
    """Write, print and track the sweep. Returns the exit code: 1 if a point failed. InfrastructureError where no point came to an end."""
    outcomes = read_outcomes(plan.folder / "points")
    if not outcomes:
        raise InfrastructureError(f"no point of the sweep {plan.name} finished: the launcher started none; see {plan.folder}")
    summary = summarize(plan, outcomes, compute_importances(plan, outcomes))
    write_json(FOLDER / f"{plan.name}.json", to_plain(summary))
    draw_picture(summary, FOLDER / f"{plan.name}.png")
    print_summary(summary)
    track_in_mlflow(plan.name)
    failed = [done for done in outcomes if not done.ok]
    for done in outcomes:
        for reason in [done.reason] if not done.ok else [f"{name}: {why}" for name, why in done.failed_subjects.items()]:
            print(f"failed: {' '.join(done.overrides)}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def count_finished(folder: Path) -> int:
    """How many points of an interrupted sweep the next run restores. folder: of the sweep."""
    return sum(done.ok for done in read_outcomes(folder / "points"))


def compute_importances(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """{objective: {key: importance}} of a search; empty for a grid, where the shares of the effects say the same exactly."""
    if not plan.searched:
        return {}
    summary = summarize(plan, outcomes, {})
    rows = [row for row in summary.rows if row.values is not None]
    points = [row.settings for row in rows]
    ranked = ((i, name) for i, name in enumerate(plan.objectives) if name not in summary.unranked)
    return {name: importances(points, [row.values[i] for row in rows if row.values], plan.keys) for i, name in ranked}


def track_in_mlflow(name: str) -> None:
    """Write all points to MLflow, from one process. A store that is down does not fail the sweep: the command can be repeated."""
    command = [sys.executable, "-m", "edgewise.cli.main", "track", "--sweep", name]
    if subprocess.run(command, env=environment(Path.cwd())).returncode:
        print(f"not in MLflow yet: run `edgewise track --sweep {name}` when the store is there", file=sys.stderr)


def print_summary(summary: SweepSummary) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)
    console.print(make_table(summary))
    for line in [*describe_effects(summary), *summary.warnings, *apply_commands(summary)]:
        console.print(line, markup=False, soft_wrap=True)


def make_table(summary: SweepSummary) -> Any:
    """The rows, front first, then the best by the first objective. Headings may wrap, values may not."""
    from rich import box
    from rich.table import Table

    names = sorted({row.variant for row in summary.rows if row.variant})
    several = len(names) > 1
    of = f" of {names[0]}" if len(names) == 1 else ""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{len(summary.points)} points{of}; *: Pareto front", title_justify="left")
    made.add_column("point", no_wrap=True)
    for heading in [*(key.rpartition(".")[2] for key in summary.keys), *(["variant"] if several else [])]:
        made.add_column(heading.replace("_", " "))
    for name in summary.objectives:
        made.add_column(unit_of(name)[0], justify="right")
    rows = sorted(summary.rows, key=lambda row: (not row.front, row_cost(row.values, summary.objectives, summary.unranked)))
    for row in rows[:MOST_ROWS]:
        style = "bold" if row.front else "red" if row.values is None else None
        made.add_row(*row_cells(row, summary, several), style=style)
    if len(rows) > MOST_ROWS:
        made.caption = f"{len(rows) - MOST_ROWS} more in {FOLDER}/{summary.name}.json"
    return made


def row_cells(row: Row, summary: SweepSummary, several: bool) -> list[str]:
    """The cells of one row. several: whether the rows are about more than one variant."""
    from rich.markup import escape  # [classifier] is a value, not a style

    factors = [unit_of(name)[1] for name in summary.objectives]
    known = [format_digits(factor * value, 4) for factor, value in zip(factors, row.values or (), strict=False)]
    values = known or ["failed" if row.status != "ok" else "not measured"]
    chosen = [escape(row.settings.get(key, "")) for key in summary.keys]
    return [row.point + (" *" if row.front else ""), *chosen, *([row.variant] if several else []), *values]


def describe_effects(summary: SweepSummary) -> list[str]:
    """A line for each objective: its keys, the largest share of the variance first, with the effect of each level."""
    lines = []
    for objective, effects in summary.effects.items():
        known = {key: effect for key, effect in effects.items() if effect.share is not None}
        ranked = sorted(known.items(), key=lambda item: -(item[1].share or 0))
        factor = unit_of(objective)[1]
        shares = [f"{key.rpartition('.')[2]} {effect.share:.0%} ({describe_levels(effect, factor)})" for key, effect in ranked]
        lines += [f"{unit_of(objective)[0]}: share of the variance by key: {'; '.join(shares)}"] if shares else []
        weights = ", ".join(f"{key.rpartition('.')[2]} {share:.0%}" for key, share in summary.importances.get(objective, {}).items())
        lines += [f"{unit_of(objective)[0]}: importance in a forest of trees (Optuna): {weights}"] if weights else []
    if not lines and len(summary.points) > 1:
        lines.append(f"which choice matters: {len(summary.points)} points are too few or too similar to tell")
    return lines


def unit_of(objective: str) -> tuple[str, float]:
    """How an objective is shown: its title, and the factor to the unit in it. Bytes are megabytes."""
    if objective in UNITS:
        return UNITS[objective]
    if objective.endswith("_bytes"):
        return f"{objective.removesuffix('_bytes').replace('_', ' ')}, MB", 1e-6
    return NAMES.get(objective, objective.replace("_", " ")), 1.0


def describe_levels(effect: Effect, factor: float) -> str:
    """factor: to the unit in which the objective is shown."""

    def signed(value: float) -> str:
        return f"{'-' if value < 0 else '+'}{format_digits(factor * abs(value), 2)}"

    def text(name: str) -> str:
        level = effect.levels[name]
        interval = f" [{', '.join(map(signed, level.ci95))}]" if level.ci95 else ""
        return f"{name} {'not known' if level.effect is None else signed(level.effect)}{interval}"

    return ", ".join(text(name) for name in effect.levels)


def apply_commands(summary: SweepSummary) -> list[str]:
    """The command that brings each point of the front into the workspace."""
    points = {point["name"]: point for point in summary.points}
    names = list(dict.fromkeys(row.point for row in summary.front))
    given = {name: settings_by_key(points[name]["overrides"]) for name in names}
    commands = [
        f"  {points[name]['apply']}    # {', '.join(f'{k.rpartition(chr(46))[2]}={given[name].get(k)}' for k in summary.keys)}"
        for name in names
    ]
    return (
        ["to bring a point of the front into your workspace (`edgewise report` shows it; `dvc repro` before you commit it):", *commands]
        if commands
        else []
    )


@dataclass(frozen=True)
class Axis:
    """One axis of the picture. heights: of each row, 0 to 1. ticks: (height, label)."""

    title: str
    heights: Sequence[float]
    ticks: Sequence[tuple[float, str]]


def draw_picture(summary: SweepSummary, path: Path) -> None:
    """Write the picture as PNG; nothing where no row has all objectives. The same results give the same bytes."""
    rows = [row for row in summary.rows if row.values is not None]
    if not rows:
        return
    import matplotlib
    from matplotlib.figure import Figure

    axes = [
        *(key_axis(key, rows) for key in key_names(summary, rows)),
        *(objective_axis(i, name, rows, BETTER[direction]) for i, (name, direction) in enumerate(summary.objectives.items())),
    ]
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(max(7.0, 2.1 * len(axes)), 5.2), facecolor=PAPER)
        plot = figure.add_axes((0.07, 0.08, 0.86, 0.72))
        draw_lines(plot, rows, axes)
        for place, axis in enumerate(axes):
            draw_axis(plot, place, axis)
        draw_frame(plot, summary, len(axes))
        figure.savefig(path, dpi=150, metadata={"Software": None})


def key_names(summary: SweepSummary, rows: Sequence[Row]) -> list[str]:
    return [*summary.keys, *(["variant"] if len({row.variant for row in rows}) > 1 else [])]


def key_axis(key: str, rows: Sequence[Row]) -> Axis:
    """The axis of a key: its values at even heights, rows with the same value slightly apart."""
    values = [row.variant if key == "variant" else row.settings.get(key, "") for row in rows]
    names = sorted(set(values), key=level_order)
    places = {name: (number + 0.5) / len(names) for number, name in enumerate(names)}
    room = min(SPREAD, 0.8 / len(rows) / len(names))
    heights = [places[value] + room * (values[: i + 1].count(value) - (values.count(value) + 1) / 2) for i, value in enumerate(values)]
    return Axis(key.rpartition(".")[2], heights, [(height, name) for name, height in places.items()])


def objective_axis(index: int, name: str, rows: Sequence[Row], better: str) -> Axis:
    """The axis of an objective, linear from its least to its largest value. better: an arrow."""
    title, factor = unit_of(name)
    values = [factor * row.values[index] for row in rows if row.values]
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    heights = [0.5 if high == low else 0.04 + 0.92 * (value - low) / span for value in values]
    ends = [(0.5, low)] if high == low else [(0.04 + 0.92 * share, low + share * span) for share in (0.0, 0.5, 1.0)]
    return Axis(f"{title} {better}", heights, [(height, format_digits(value, 4)) for height, value in ends])


def draw_lines(plot: Any, rows: Sequence[Row], axes: Sequence[Axis]) -> None:
    front = [i for i, row in enumerate(rows) if row.front]
    for i in range(len(rows)):
        if i not in front:
            plot.plot(range(len(axes)), [axis.heights[i] for axis in axes], color=GREY, linewidth=0.9, alpha=0.45)
    for number, i in enumerate(front):
        colour = PALETTE[number % len(PALETTE)]
        plot.plot(
            range(len(axes)), [axis.heights[i] for axis in axes], color=colour, linewidth=2.0, marker="o", markersize=4, label=rows[i].point
        )


def draw_axis(plot: Any, place: int, axis: Axis) -> None:
    plot.axvline(place, color=INK, linewidth=0.8, zorder=0)
    plot.text(place, 1.03, axis.title, ha="center", va="bottom", fontsize=9, fontweight="bold")
    for height, text in axis.ticks:
        label = plot.text(place + 0.03, height, text, fontsize=8, va="center", zorder=6)
        label.set_bbox({"facecolor": PAPER, "alpha": 0.75, "linewidth": 0, "pad": 1})


def draw_frame(plot: Any, summary: SweepSummary, axes: int) -> None:
    plot.set_xlim(-0.15, axes - 0.7)
    plot.set_ylim(0, 1)
    plot.axis("off")
    plot.text(0, 1.2, f"Sweep {summary.name}", transform=plot.transAxes, fontsize=13, fontweight="bold")
    drawn, left_out = sum(row.values is not None for row in summary.rows), sum(row.values is None for row in summary.rows)
    caption = f"{drawn} rows{f', without {left_out} that failed' if left_out else ''}; in colour: the Pareto front ({len(summary.front)}); "
    caption += "↑ more is better, ↓ less is better"
    plot.text(0, 1.135, caption, transform=plot.transAxes, fontsize=8.5, color="#57606a")
    if summary.unranked:
        noise = f"{say_too_short(summary.rows)}: latency does not count for the front"
        plot.text(0, 1.085, noise, transform=plot.transAxes, fontsize=8.5, color="#57606a")
    if len(summary.front) <= len(PALETTE):
        plot.legend(loc="upper right", bbox_to_anchor=(1.0, 1.27), ncols=3, frameon=False, fontsize=7.5)
