"""Where the names stand in a figure: beside their points, never over a point or another name."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

DIRECTIONS = 16  # tried around a point, at growing distances
STEP_PX = 3
DISTANCES_PX = (4, 12, 24, 40, 60, 85, 115, 150)


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
class Point:
    """A circle with the width and height of its name, pixels."""

    x: float
    y: float
    radius: float
    width: float
    height: float

    @property
    def box(self) -> Box:
        return Box(self.x - self.radius, self.y - self.radius, self.x + self.radius, self.y + self.radius)


def place(points: Sequence[Point], frame: Box, taken: Sequence[Box] = ()) -> list[Box]:
    """A box for the name of each point: the nearest one that touches nothing, else the one that covers least."""
    obstacles = [*taken, *(point.box for point in points)]
    placed: dict[int, Box] = {}
    for index in sorted(range(len(points)), key=lambda i: crowd(points, i), reverse=True):
        options = list(candidates(points[index]))
        others = [other for other in points if other is not points[index]]
        costs = [
            100 * box.outside(frame) + sum(box.overlap(other) for other in obstacles) + 20 * crossings(points[index], box, others)
            for box in options
        ]
        placed[index] = options[min(range(len(options)), key=lambda i: (costs[i] > 1, costs[i], i))]
        obstacles.append(placed[index])
    return [placed[index] for index in range(len(points))]


def crossings(point: Point, box: Box, others: Sequence[Point]) -> int:
    """How often a line from the circle to its name would run through other circles, at points along it."""
    x, y = min(max(point.x, box.left), box.right), min(max(point.y, box.bottom), box.top)
    length = math.hypot(x - point.x, y - point.y)
    steps = [point.radius + i * STEP_PX for i in range(1, int((length - point.radius) / STEP_PX) + 1)]
    line = [(point.x + (x - point.x) * step / length, point.y + (y - point.y) * step / length) for step in steps]
    return sum(math.hypot(other.x - a, other.y - b) < other.radius for other in others for a, b in line)


def crowd(points: Sequence[Point], index: int) -> tuple[int, int]:
    """How many other points are near: the crowded ones choose first. The index makes it an order without ties."""
    me = points[index]
    return sum(math.hypot(me.x - other.x, me.y - other.y) < me.width for other in points), -index


def candidates(point: Point) -> Iterator[Box]:
    """Boxes around the circle, the nearest first; of equally near ones right, then left, above, below, diagonals."""
    order = sorted(range(DIRECTIONS), key=lambda i: (min(i % 8, 8 - i % 8) if i % 8 in (0, 4) else 9, i % 4, i))
    for distance in DISTANCES_PX:
        for step in order:
            angle = 2 * math.pi * step / DIRECTIONS
            x = point.x + (point.radius + distance) * math.cos(angle)
            y = point.y + (point.radius + distance) * math.sin(angle)
            left = x - point.width * (1 - math.cos(angle)) / 2
            bottom = y - point.height * (1 - math.sin(angle)) / 2
            yield Box(left, bottom, left + point.width, bottom + point.height)
