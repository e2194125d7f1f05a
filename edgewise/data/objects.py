"""Objects in pictures: checked against their picture and the names of the classes, and made into boxes or drawn as a mask."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewise.artifacts.targets import BOXES, MASKS, NONE
from edgewise.config.settings import option
from edgewise.data.common import BACKGROUND, make_unique
from edgewise.data.pictures import PictureFile, PictureFileSettings, Problems, read_items
from edgewise.errors import DataError
from edgewise.plugins import Boxes, Item, Label, Mask, Unreadable

UNKNOWN = "objects of classes that the data set does not name, left out"
OUTSIDE = "boxes outside of their picture, left out"
CUT = "boxes that reach out of their picture, cut at its edge"
FLAT = "boxes of no area, left out"
SHORT = "outlines of fewer than 3 points, left out"
TOLERANCE = 1.0  # pixels that a box may reach out by rounding
LEAST_POINTS = 3  # of an outline
MAX_NAMED = 5


@dataclass(frozen=True)
class Shape:
    """One object. number: of its class, in the data set's own names. corners: x0, y0, x1, y1 in pixels. outline: polygons [points, 2] of x
    and y, or a region, bool [height, width]. area: in pixels, if the data set knows it. called: its class as the file has it, where number
    does not tell."""

    number: int
    corners: tuple[float, float, float, float]
    outline: tuple[np.ndarray, ...] = ()
    region: np.ndarray | None = None
    area: float | None = None
    crowd: bool = False
    called: str | None = None

    @classmethod
    def of_polygons(cls, number: int, polygons: Sequence[np.ndarray], **known: Any) -> "Shape":
        """A shape with the box around its polygons, and their area unless that is known."""
        points = np.concatenate(polygons)
        box = (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())
        return cls(number, box, tuple(polygons), **{"area": sum(map(polygon_area, polygons)), **known})


def polygon_area(points: np.ndarray) -> float:
    """The area of a polygon that does not cross itself, by the shoelace formula."""
    x, y = points.T.astype(np.float64)
    return float(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)


@dataclass(frozen=True, kw_only=True)
class ObjectSettings(PictureFileSettings):
    """Settings that every data set of pictures with objects has."""

    targets: str = option(
        BOXES,
        "boxes; masks: the class of each pixel, drawn from the outlines, with a background class; none: labels are not read",
        choices=(BOXES, MASKS, NONE),
    )
    pooled: bool = option(False, "the data set's own splits are put together and split again, by data.splits and data.groups")

    def names(self) -> Sequence[str]:
        """The names of the classes, in the data set's own order. DataError if the files that name them cannot be read."""
        raise NotImplementedError

    def class_names(self) -> Sequence[str]:
        """What the numbers in boxes and masks stand for: the classes, in masks after the background."""
        return make_unique([BACKGROUND, *self.names()] if self.targets == MASKS else self.names())

    def sort_labels(self, labels: Any) -> list[str]:
        return list(labels)


def read_objects(
    found: Sequence[PictureFile], settings: ObjectSettings, shapes: Callable[[PictureFile, tuple[int, int]], Sequence[Shape]]
) -> Iterator[Item | Unreadable]:
    """The pictures with their objects. DataError at the end if too many pictures cannot be read, or too many objects have no class.

    shapes: of a picture and its height and width. ValueError if they cannot be read.
    """
    count, unknown, total = len(settings.names()), list[str](), 0

    def label(picture: PictureFile, size: tuple[int, int]) -> tuple[Label, Problems]:
        nonlocal total
        if settings.targets == NONE:
            return None, ()
        given = shapes(picture, size)
        total += len(given)
        unknown.extend(shape.called or str(shape.number) for shape in given if not 0 <= shape.number < count)
        kept, problems = check_shapes(given, size, count, picture.name)
        return (to_boxes(kept) if settings.targets == BOXES else Mask.pack(draw(kept, size))), problems

    yield from read_items(found, settings, label)
    if len(unknown) > settings.max_unreadable_share * total:
        numbers = ", ".join(sorted(set(unknown), key=lambda name: (len(name), name))[:MAX_NAMED])
        raise DataError(
            f"data.path: {len(unknown)} of {total} objects have a class that is not among the {count} names, such as {numbers}; are these "
            f"the labels of another data set? name all classes, or raise data.max_unreadable_share above {settings.max_unreadable_share}"
        )


def check_shapes(given: Sequence[Shape], size: tuple[int, int], count: int, where: str) -> tuple[list[Shape], Problems]:
    """The objects that have a class, lie in the picture and cover some of it, cut at its edges; and what was wrong with the others.

    size: height and width. count: number of classes. where: name of the picture. ValueError for coordinates that are no finite numbers.
    """
    kept, problems = [], []
    for shape in given:
        cut, problem = cut_shape(shape, size)
        if not 0 <= shape.number < count:
            problems.append((UNKNOWN, f"{where} (class {shape.called or shape.number})"))
            continue
        if problem is not None:
            problems.append((problem, where))
        if cut is not None:
            kept.append(cut)
            short = any(len(polygon) < LEAST_POINTS for polygon in shape.outline)
            problems += [(SHORT, where)] if short else []
    return kept, tuple(problems)


def cut_shape(shape: Shape, size: tuple[int, int]) -> tuple[Shape | None, str | None]:
    """The object within its picture, None if nothing of it is left; and what was wrong, if anything was."""
    corners = np.array(shape.corners, np.float64)
    if not np.isfinite(corners).all():
        raise ValueError(f"coordinates that are not finite numbers: {corners.tolist()}")
    limits = np.array([size[1], size[0]] * 2, np.float64)
    if (corners[2:] <= corners[:2]).any():
        return None, FLAT
    if (corners[2:] <= 0).any() or (corners[:2] >= limits[:2]).any():
        return None, OUTSIDE
    inside = np.clip(corners, 0, limits)
    far = bool((np.abs(inside - corners) > TOLERANCE).any())
    x0, y0, x1, y1 = inside.tolist()
    return replace(shape, corners=(x0, y0, x1, y1)), CUT if far else None


def to_boxes(shapes: Sequence[Shape]) -> Boxes:
    """Areas are those of the outlines where the data set has them, else of the boxes."""
    boxes = Boxes.of([shape.corners for shape in shapes], [shape.number for shape in shapes], crowd=[shape.crowd for shape in shapes])
    areas = [own if shape.area is None else shape.area for shape, own in zip(shapes, boxes.areas.tolist(), strict=True)]
    return replace(boxes, areas=np.asarray(areas, np.float32))


def draw(shapes: Sequence[Shape], size: tuple[int, int]) -> np.ndarray:
    """The class of each pixel, uint8 [height, width]: 0 for the background, else the number of the class and 1; small objects over large
    ones. ValueError for an object without an outline."""
    canvas = np.zeros(size, np.uint8)
    for shape in sorted(shapes, key=lambda shape: -(shape.area or 0)):
        if shape.region is None and not shape.outline:
            raise ValueError("a box without an outline, from which no mask can be drawn; set data.targets=boxes")
        for region in [fill(polygon, size) for polygon in shape.outline] if shape.region is None else [shape.region]:
            canvas[region] = shape.number + 1
    return canvas


def fill(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The pixels whose centers lie within a polygon [points, 2] of x and y, by the even-odd rule: bool [height, width]."""
    crossings = np.zeros((size[0], size[1] + 1), np.int64)  # edges that a row meets left of each center
    for (x0, y0), (x1, y1) in zip(points.tolist(), np.roll(points, -1, axis=0).tolist(), strict=True):
        first, last = (int(np.clip(np.ceil(y - 0.5), 0, size[0])) for y in sorted((y0, y1)))
        rows = np.arange(first, last)
        meets = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0 or 1)
        np.add.at(crossings, (rows, np.clip(np.ceil(meets - 0.5), 0, size[1]).astype(np.int64)), 1)
    inside: np.ndarray = np.cumsum(crossings[:, :-1], axis=1) % 2 == 1
    return inside
