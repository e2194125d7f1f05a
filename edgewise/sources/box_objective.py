"""How a detector on grids is trained: which points of its grids stand for which object, focal loss for scores, GIoU for boxes.

The detector returns scores, logits [n, classes, points], and boxes, [n, 4, points]: of each point of grids of some strides the offset of
the object's center from the point and the logarithm of its width and height, in strides. This is the box of YOLOX (Ge et al. 2021), which
agent.decoding decodes; the logarithm keeps the relative error of 8 bits the same for small boxes and large ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.agent.anchors import grid_cells
from edgewise.agent.decoding import Decoder
from edgewise.agent.geometry import Geometry
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.errors import DataError
from edgewise.plugins import Boxes
from edgewise.sources.augmentation import Moves, Pixels, relight
from edgewise.stats.average_precision import AP50, mean_precision
from edgewise.stats.box_matching import Detected, Objects, match

BACKGROUND, IGNORED = -1, -2  # classes of points without an object, and of those in a crowd
REACH = 8  # an object belongs to the finest grid of which it spans at most so many strides
RADIUS = 1.5  # points that stand for an object lie within so many strides of its center
FOCAL_ALPHA, FOCAL_GAMMA = 0.5, 2.0  # Lin et al. 2017, who took an alpha of 0.25: it left rare classes of surface with low scores
DETECTED, OBJECTS = ("corners", "scores", "classes"), ("corners", "classes", "areas", "crowd")
LARGEST = 8.0  # logarithm of a side in strides: in the first steps some outputs would overflow
BOX_WEIGHT = 2.0  # of the GIoU loss beside the focal loss


@dataclass(frozen=True)
class Grid:
    """All points of the grids, finest first, row by row. at: float32 [points, 2], x and y in pixels of the input; strides: [points]."""

    at: np.ndarray
    strides: np.ndarray

    @classmethod
    def of(cls, size: Sequence[int], strides: Sequence[int]) -> "Grid":
        """size: height and width of the input. The point of a cell is its upper left corner, as agent.decoding has it."""
        cells, widths = grid_cells(size, strides)
        return cls((cells * widths).astype(np.float32), widths[:, 0].astype(np.float32))


def assign(objects: Boxes, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """For each point its class, int64 [points], or BACKGROUND or IGNORED, and the box of its object, float32 [points, 4].

    An object is given to the points in the middle of it (FCOS, Tian et al. 2019): within RADIUS strides and inside of it, at least the
    nearest one. Where two objects claim a point, the smaller has it.
    """
    classes, boxes = np.full(len(grid.at), BACKGROUND, np.int64), np.zeros((len(grid.at), 4), np.float32)
    middles = grid.at + grid.strides[:, None] / 2
    for x0, y0, x1, y1 in objects.corners[objects.crowd]:
        classes[((middles > (x0, y0)) & (middles < (x1, y1))).all(1)] = IGNORED
    kept = objects.take(~objects.crowd)
    sides = kept.corners[:, 2:] - kept.corners[:, :2]
    levels = np.unique(grid.strides)
    for i in np.argsort(-sides.prod(1), kind="stable"):
        stride = levels[min(np.searchsorted(levels * REACH, sides[i].max()), len(levels) - 1)]
        reach = np.clip(sides[i] / 2, stride / 2, RADIUS * stride)
        away = np.abs(middles - (kept.corners[i, :2] + kept.corners[i, 2:]) / 2)
        chosen = (away <= reach).all(1) & (grid.strides == stride)
        classes[chosen], boxes[chosen] = kept.classes[i], kept.corners[i]
    return classes, boxes


def to_corners(boxes: Any, grid: Grid) -> Any:
    """The corners in pixels of the input, a tensor [n, points, 4], of boxes [n, 4, points] as the detector gives them."""
    import torch

    at, strides = torch.from_numpy(grid.at).T, torch.from_numpy(grid.strides)
    centers, halves = at + boxes[:, :2] * strides, boxes[:, 2:].clamp(max=LARGEST).exp() * strides / 2
    return torch.cat([centers - halves, centers + halves], 1).transpose(1, 2)


def generalized_iou(one: Any, other: Any) -> Any:
    """GIoU (Rezatofighi et al. 2019) of boxes with an area: tensors [k, 4] of x0, y0, x1, y1; from -1 to 1, [k]."""
    import torch

    shared = (torch.minimum(one[:, 2:], other[:, 2:]) - torch.maximum(one[:, :2], other[:, :2])).clamp(min=0).prod(1)
    hull = (torch.maximum(one[:, 2:], other[:, 2:]) - torch.minimum(one[:, :2], other[:, :2])).prod(1)
    union = sum((boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (one, other)) - shared
    return shared / union - (hull - union) / hull


def focal_loss(logits: Any, targets: Any) -> Any:
    """Sigmoid focal loss of each logit; targets: 0 or 1, of the same shape."""
    import torch

    p = logits.sigmoid()
    wrong = torch.where(targets > 0, 1 - p, p)
    weights = torch.where(targets > 0, FOCAL_ALPHA, 1 - FOCAL_ALPHA) * wrong**FOCAL_GAMMA
    return weights * torch.nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")


class BoxObjective:
    """plugins as objectives.Objective. decoding: how the outputs become boxes, with the `strides` of the grids; see agent.decoding."""

    outputs: tuple[str, ...] = ("scores", "boxes")
    score: str | None = "ap50_validation"
    chance = 0.0
    monitors: tuple[str, ...] = ("ap50", "loss", "last")
    validation_batch = 64

    def __init__(self, samples: Samples, train: Train, decoding: Mapping[str, Any]):
        self.samples, self.train, self.decode = samples, train, Decoder(decoding)
        height, width = decoding["size"]
        self.size = (height, width)
        self.grid, self.pixels = Grid.of(self.size, decoding["strides"]), Pixels.of(samples.preprocessing)

    def check(self, shapes: Sequence[Sequence[int]]) -> str | None:
        count, points = shapes[0][0], len(self.grid.at)
        expected = [[count, len(self.samples.labels), points], [count, 4, points]]
        if [[*shape] for shape in shapes] == expected:
            return None
        return f"the data has {len(self.samples.labels)} labels and the grids {points} points, so it must return {expected}"

    def epoch(self, rng: np.random.Generator) -> np.ndarray:
        """All pictures with objects, and of those without at most as many, others in each epoch."""
        indices = self.samples.indices("train")
        shown = np.array([len(boxes) > 0 for boxes in self.samples.targets(indices)], bool)
        empty = rng.permutation(indices[~shown])[: max(1, shown.sum())]
        return rng.permutation(np.concatenate([indices[shown], empty]))

    def objects(self, indices: np.ndarray) -> list[Boxes]:
        """The objects of each picture, in pixels of the input."""
        sizes = self.samples.sizes(indices)
        pairs = zip(self.samples.targets(indices), sizes, strict=True)
        return [move(boxes, Geometry.of(self.samples.preprocessing, *size).boxes_to_input(boxes.corners)) for boxes, size in pairs]

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], Any]:
        ((name, images),) = self.samples.feeds(indices).items()
        moves = Moves.draw(self.train, len(images), rng)
        images = relight(moves.pictures(images), self.train, self.pixels, rng)
        return {name: images}, self.targets([self._moved(moves, i, found) for i, found in enumerate(self.objects(indices))])

    def _moved(self, moves: Moves, index: int, objects: Boxes) -> Boxes:
        corners, seen = moves.corners(index, objects.corners, self.size)
        return move(objects, corners).take(seen)

    def targets(self, objects: Sequence[Boxes]) -> tuple[Any, Any]:
        """For `loss`: classes [n, points] and corners [n, points, 4] of what each point stands for, as tensors."""
        import torch

        classes, boxes = zip(*(assign(each, self.grid) for each in objects), strict=True)
        return torch.from_numpy(np.stack(classes)), torch.from_numpy(np.stack(boxes))

    def loss(self, outputs: Sequence[Any], targets: tuple[Any, Any]) -> Any:
        """Both parts are sums over all points, divided by the number of points that stand for an object."""
        import torch

        (scores, boxes), (classes, corners) = outputs, targets
        standing = classes >= 0
        number = max(1, int(standing.sum()))
        wanted = torch.nn.functional.one_hot(classes.clamp(min=0), scores.shape[1]).transpose(1, 2) * standing[:, None]
        counted = (classes != IGNORED)[:, None]
        score_loss = (focal_loss(scores, wanted.to(scores.dtype)) * counted).sum()
        box_loss = (1 - generalized_iou(to_corners(boxes, self.grid)[standing], corners[standing])).sum()
        return (score_loss + BOX_WEIGHT * box_loss) / number

    def validate(self, answers: Iterable[tuple[np.ndarray, Sequence[Any]]]) -> dict[str, float]:
        """AP50 too. DataError if the validation split shows no object."""
        losses, found, truth = [], [], []
        for indices, outputs in answers:
            objects = self.objects(indices)
            losses.append(self.loss(outputs, self.targets(objects)).item() * len(indices))
            found += self.decode({name: output.numpy() for name, output in zip(self.outputs, outputs, strict=True)})
            truth += objects
        if not sum(map(len, truth)):
            raise DataError("data.splits: no picture of the validation split has an object; give the split a larger share")
        matches = match(Detected(*gather(found, DETECTED)), Objects(*gather(truth, OBJECTS)), len(truth), len(self.samples.labels))
        return {"loss_validation": sum(losses) / len(truth), "ap50_validation": float(mean_precision(matches)[0, AP50])}


def gather(parts: Sequence[Any], names: Sequence[str]) -> list[np.ndarray]:
    """For each row of the parts, one of each picture, the picture's position; then their arrays of these names."""
    pictures = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return [pictures, *(np.concatenate([getattr(part, name) for part in parts]) for name in names)]


def move(objects: Boxes, corners: np.ndarray) -> Boxes:
    """The same objects at other places."""
    return Boxes.of(corners, objects.classes, crowd=objects.crowd)
