"""The figure: the score against latency, better upwards, file size as area, 95 % intervals as bars.

Where the task judges nothing, the agreement with the reference stands for the score.

The same results give the same bytes. Labels stand beside their circles and never over a circle or another label.
"""

import itertools
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.plugins import PrimaryMetric
from edgewise.report.verdicts import MOST_DB, Rows, score_or_agreement

NAME = "accuracy-latency"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#6f5fb0", "#8c564b")  # Okabe and Ito, then two more
INK, GREY, PAPER = "#1f2328", "#8b949e", "#ffffff"
AREA_PER_MB = 9.0  # area of a circle in square points, per megabyte
STYLE = {"font.family": "DejaVu Sans", "font.size": 9, "svg.hashsalt": "edgewise", "axes.edgecolor": GREY, "text.color": INK}
LEGEND: dict[str, Any] = {"frameon": False, "alignment": "left", "title_fontproperties": {"weight": "bold"}, "handletextpad": 0.9}
DIRECTIONS = 16  # around a circle, tried at growing distances
STEP_PX = 3
DISTANCES_PX = (4, 12, 24, 40, 60, 85, 115, 150)
Spot = tuple[float, float]  # (x, y) in data units: milliseconds, per cent (or the unit of the score)


def draw_figure(summary: Summary, folder: Path) -> None:
    """Write NAME.png and NAME.svg into `folder`."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(10, 6.4), facecolor=PAPER)
        axes = figure.add_axes((0.075, 0.115, 0.75, 0.78))
        rows = {name: row for name, row in summary.variants.items() if row.ok and vertical_value(row, summary.primary_metric) is not None}
        if rows:
            draw_plot(axes, rows, summary)
        else:
            say_nothing_to_draw(axes, summary)
        write_failures(figure, summary)
        figure.savefig(folder / f"{NAME}.png", dpi=160, metadata={"Software": None})
        figure.savefig(folder / f"{NAME}.svg", metadata={"Date": None, "Creator": None})


def say_nothing_to_draw(axes: Any, summary: Summary) -> None:
    axes.set_axis_off()
    axes.text(0.0, 1.0, f"No variant could be compared with {summary.reference}.", transform=axes.transAxes, va="top")


def draw_plot(axes: Any, rows: Rows, summary: Summary) -> None:
    measured = {name: row for name, row in rows.items() if row.latency.p50_ms is not None}
    rows = measured or rows
    spots = {
        name: (horizontal_value(row, bool(measured)), vertical_value(row, summary.primary_metric) or 0.0) for name, row in rows.items()
    }
    colours = dict(zip(sorted({row.format for row in rows.values()}), PALETTE * 3, strict=False))
    style_axes(axes, summary, bool(measured))
    base = summary.variants[summary.reference].quality.score
    lines = [
        line for name, row in rows.items() for line in interval_lines(spots[name], row, colours[row.format], base, summary.primary_metric)
    ]
    upwards = summary.primary_metric is None or summary.primary_metric.higher_is_better
    lines += front_lines([spots[name] for name in summary.pareto if name in spots], 1 if upwards else -1)
    if not upwards:
        axes.invert_yaxis()
    for name in sorted(rows, key=lambda name: -(rows[name].file.size_bytes or 0)):  # small circles over large ones
        draw_circle(axes, spots[name], rows[name], colours[rows[name].format], name in summary.pareto)
    for line in lines:
        line.draw(axes)
    add_legends(axes, colours, rows)
    widen_limits(axes)
    write_labels(axes, spots, rows, lines, summary)


def vertical_value(row: VariantSummary, metric: PrimaryMetric | None) -> float | None:
    """The score, in per cent where it is a share; the SQNR where the task judges nothing. None: unknown."""
    value = score_or_agreement(row, metric)
    return 100 * value if metric and metric.share and value is not None else value


def horizontal_value(row: VariantSummary, measured: bool) -> float:
    """Milliseconds; megabytes where no latency was measured."""
    return row.latency.p50_ms if measured and row.latency.p50_ms else (row.file.size_bytes or 0) / 1e6


def style_axes(axes: Any, summary: Summary, measured: bool) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    metric = summary.primary_metric
    if metric and metric.share:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
    axes.set_xlabel(f"latency p50, ms on {summary.device['name']} (log)" if measured else "size, MB (log; latency was not measured)")
    axes.set_ylabel(metric.label if metric else f"SQNR to the reference, dB (at most {MOST_DB:g})")
    axes.grid(True, which="major", color="#eaeef2", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both", labelcolor="#57606a")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    what = metric.title if metric else "agreement"
    axes.set_title(f"{what[0].upper()}{what[1:]} against latency", loc="left", fontsize=13, fontweight="bold", pad=22)
    bars = f"95 % intervals{f' (vertical: paired difference to {summary.reference})' if metric else ''}"
    caption = f"area: size of the files; bars: {bars}; ringed: Pareto set"
    axes.text(0, 1.02, caption, transform=axes.transAxes, fontsize=8.5, color="#57606a")


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels."""

    left: float
    bottom: float
    right: float
    top: float

    def overlap(self, other: "Box") -> float:
        """The area that the two share, square pixels."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.top, other.top) - max(self.bottom, other.bottom)
        return max(0.0, width) * max(0.0, height)

    def outside(self, frame: "Box") -> float:
        """The area that lies outside of `frame`."""
        return (self.right - self.left) * (self.top - self.bottom) - self.overlap(frame)


@dataclass(frozen=True)
class LabelledCircle:
    """A circle and the size of its label, in pixels."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def box(self) -> Box:
        return Box(self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


@dataclass(frozen=True)
class Line:
    """A vertical or horizontal line, in data units."""

    start: Spot
    end: Spot
    colour: str
    width: float
    alpha: float
    style: Any = "-"

    def draw(self, axes: Any) -> None:
        xs, ys = zip(self.start, self.end, strict=True)
        axes.plot(xs, ys, color=self.colour, linewidth=self.width, alpha=self.alpha, linestyle=self.style, zorder=4)

    def box(self, axes: Any) -> Box:
        """The rectangle that labels avoid, in pixels."""
        (x0, y0), (x1, y1) = axes.transData.transform((self.start, self.end))
        return Box(min(x0, x1) - 3, min(y0, y1) - 3, max(x0, x1) + 3, max(y0, y1) + 3)


def front_lines(spots: list[Spot], good: int) -> list[Line]:
    """The staircase of the front in score and latency, ignoring size. good: 1 where more is better, else -1."""
    best: list[Spot] = []
    for spot in sorted(spots, key=lambda spot: (spot[0], -good * spot[1])):
        if not best or good * spot[1] > good * best[-1][1]:
            best.append(spot)
    corners = [(after[0], before[1]) for before, after in itertools.pairwise(best)]
    steps = [*itertools.chain.from_iterable(zip(best, corners, strict=False)), *best[-1:]]
    return [Line(a, b, INK, 1.1, 0.55, (0, (4, 3))) for a, b in itertools.pairwise(steps)]


def interval_lines(spot: Spot, row: VariantSummary, colour: str, base: float | None, metric: PrimaryMetric | None) -> list[Line]:
    """The 95 % intervals as bars. The vertical one is that of the difference, drawn around the reference's score `base`."""
    x, y = spot
    bars = []
    if row.quality.delta_ci95 and base is not None and metric:
        low, high = ((100 if metric.share else 1) * (base + bound) for bound in row.quality.delta_ci95)
        bars.append(Line((x, low), (x, high), colour, 1.2, 0.4))
    if row.latency.p50_ci95_ms:
        bars.append(Line((row.latency.p50_ci95_ms[0], y), (row.latency.p50_ci95_ms[1], y), colour, 1.2, 0.6))
    return bars


def draw_circle(axes: Any, spot: Spot, row: VariantSummary, colour: str, best: bool) -> None:
    area = AREA_PER_MB * (row.file.size_bytes or 0) / 1e6
    axes.scatter(*spot, s=area, color=colour, alpha=0.5 if best else 0.22, linewidths=0, zorder=3)
    axes.scatter(*spot, s=area, facecolors="none", edgecolors=INK if best else colour, linewidths=1.3 if best else 0.8, zorder=3)
    axes.scatter(*spot, s=7, color=colour, linewidths=0, zorder=5)


def add_legends(axes: Any, colours: Mapping[str, str], rows: Rows) -> None:
    from matplotlib.lines import Line2D

    def circle(colour: str, area: float, label: str) -> Any:
        return Line2D([], [], marker="o", linestyle="", color=colour, alpha=0.6, markersize=area**0.5, markeredgewidth=0, label=label)

    formats = [circle(colour, 70, name) for name, colour in colours.items()]
    axes.add_artist(axes.legend(handles=formats, title="format", loc="upper left", bbox_to_anchor=(1.02, 1.0), **LEGEND))
    largest = max((row.file.size_bytes or 0) for row in rows.values()) / 1e6
    sizes = [circle(GREY, AREA_PER_MB * mb, f"{mb:.2g} MB") for mb in (largest / 8, largest / 3, largest)]
    axes.legend(handles=sizes, title="size", loc="upper left", bbox_to_anchor=(1.02, 0.72), labelspacing=1.5, **LEGEND)


def widen_limits(axes: Any) -> None:
    """Make room for circles and labels at the edges."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    stretch = max(right / left, 1.5)
    axes.set_xlim(left / stretch**0.15, right * stretch**0.13)
    axes.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def write_labels(axes: Any, spots: Mapping[str, Spot], rows: Rows, lines: list[Line], summary: Summary) -> None:
    figure = axes.figure
    texts = {name: make_label(axes, name, summary) for name in spots}
    to_points = 72 / figure.dpi
    points = []
    for name, text in texts.items():
        extent = text.get_window_extent()
        x, y = axes.transData.transform(spots[name])
        radius = (AREA_PER_MB * (rows[name].file.size_bytes or 0) / 1e6) ** 0.5 / 2 / to_points
        points.append(LabelledCircle(x, y, radius, extent.width + 4, extent.height + 2))
    frame = axes.get_window_extent()
    boxes = place_labels(points, Box(frame.x0, frame.y0, frame.x1 + 10, frame.y1), [line.box(axes) for line in lines])
    for text, point, box in zip(texts.values(), points, boxes, strict=True):
        middle = ((box.left + box.right) / 2, (box.bottom + box.top) / 2)
        text.set_position(axes.transAxes.inverted().transform(middle))
        draw_leader(axes, point, box)


def make_label(axes: Any, name: str, summary: Summary) -> Any:
    best = name in summary.pareto
    words = [word for word, yes in (("reference", name == summary.reference), ("chosen", name == summary.chosen)) if yes]
    label = f"{name} ({', '.join(words)})" if words else name
    colour, weight = (INK, "bold") if best else ("#57606a", "normal")
    ground = {"facecolor": PAPER, "alpha": 0.7, "linewidth": 0, "pad": 0.6}
    place = {"transform": axes.transAxes, "ha": "center", "va": "center", "zorder": 6, "bbox": ground}
    return axes.text(0.5, 0.5, label, fontsize=8, color=colour, weight=weight, **place)


def draw_leader(axes: Any, point: LabelledCircle, box: Box) -> None:
    """Draw a thin line from the circle to a label that is not right beside it."""
    x, y = min(max(point.x, box.left), box.right), min(max(point.y, box.bottom), box.top)
    distance = ((x - point.x) ** 2 + (y - point.y) ** 2) ** 0.5
    if distance > point.radius + 9:
        start = axes.transData.inverted().transform((point.x, point.y))
        end = axes.transData.inverted().transform((x, y))
        axes.plot((start[0], end[0]), (start[1], end[1]), color=GREY, linewidth=0.6, zorder=2.5)


def write_failures(figure: Any, summary: Summary) -> None:
    lines = [textwrap.shorten(f"{name}: {row.reason}", 56, placeholder=" ...") for name, row in summary.failed.items()]
    if lines:
        wrapped = "\n".join("\n".join(textwrap.wrap(line, 24, subsequent_indent="  ")) for line in lines)
        figure.text(0.842, 0.115, "failed\n" + wrapped, fontsize=7.5, color="#cf222e", va="bottom", linespacing=1.35)


def place_labels(points: Sequence[LabelledCircle], frame: Box, taken: Sequence[Box] = ()) -> list[Box]:
    """A box for each label: the nearest that touches nothing, else the one that covers least. Crowded circles choose first."""
    obstacles = [*taken, *(point.box for point in points)]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: crowding(points, i), reverse=True):
        options = list(candidate_boxes(points[index]))
        others = [other for other in points if other is not points[index]]
        costs = [
            100 * box.outside(frame) + sum(box.overlap(other) for other in obstacles) + 20 * count_crossings(points[index], box, others)
            for box in options
        ]
        placed[index] = options[min(range(len(options)), key=lambda i: (costs[i] > 1, costs[i], i))]
        obstacles.append(placed[index])
    return [placed[index] for index in range(len(points))]


def count_crossings(point: LabelledCircle, box: Box, others: Sequence[LabelledCircle]) -> int:
    """How often a line from the circle to its label runs through other circles, counted at steps along it."""
    x, y = min(max(point.x, box.left), box.right), min(max(point.y, box.bottom), box.top)
    length = math.hypot(x - point.x, y - point.y)
    steps = [point.radius + i * STEP_PX for i in range(1, int((length - point.radius) / STEP_PX) + 1)]
    line = [(point.x + (x - point.x) * step / length, point.y + (y - point.y) * step / length) for step in steps]
    return sum(math.hypot(other.x - a, other.y - b) < other.radius for other in others for a, b in line)


def crowding(points: Sequence[LabelledCircle], index: int) -> tuple[int, int]:
    """Sort key: how many other circles are near; the index breaks ties."""
    me = points[index]
    return sum(math.hypot(me.x - other.x, me.y - other.y) < me.width for other in points), -index


def candidate_boxes(point: LabelledCircle) -> Iterator[Box]:
    """Boxes around the circle, nearest first; at equal distance right, left, above, below, then diagonals."""
    order = sorted(range(DIRECTIONS), key=lambda i: (min(i % 8, 8 - i % 8) if i % 8 in (0, 4) else 9, i % 4, i))
    for distance in DISTANCES_PX:
        for step in order:
            angle = 2 * math.pi * step / DIRECTIONS
            x = point.x + (point.radius + distance) * math.cos(angle)
            y = point.y + (point.radius + distance) * math.sin(angle)
            left = x - point.width * (1 - math.cos(angle)) / 2
            bottom = y - point.height * (1 - math.sin(angle)) / 2
            yield Box(left, bottom, left + point.width, bottom + point.height)
