"""How well maps of classes cover the true ones: intersection over union by class, from counts of each picture.

The mean is taken over the classes that occur in the truth: a class that only one of two models names by mistake costs it pixels of the
other classes, but does not change what the mean is taken over, so that two models are always compared on the same classes.
"""

from dataclasses import dataclass

import numpy as np

IGNORE = 255  # a pixel without a class: of the truth, it does not count; of the map, it is wrong


@dataclass(frozen=True)
class PixelCounts:
    """Pixels by picture and class, int64 [n, classes] each: shared: both the map and the truth; true: the truth; said: the map."""

    shared: np.ndarray
    true: np.ndarray
    said: np.ndarray

    @classmethod
    def of(cls, confusions: np.ndarray) -> "PixelCounts":
        """confusions: int [n, classes, classes + 1], see pixel_confusion."""
        said = confusions[:, :, :-1]
        return cls(np.diagonal(said, axis1=1, axis2=2), confusions.sum(axis=2), said.sum(axis=1))


def pixel_confusion(said: np.ndarray, truth: np.ndarray, labels: int) -> np.ndarray:
    """Pixels of one picture by true class (rows) and class of the map, int64 [labels, labels + 1]; the last column: those without one.

    said, truth: integers [height, width], below `labels` or IGNORE.
    """
    counts = truth != IGNORE
    columns = np.minimum(said[counts], labels)
    pairs = truth[counts].astype(np.int64) * (labels + 1) + columns
    return np.bincount(pairs, minlength=labels * (labels + 1)).reshape(labels, labels + 1)


def class_iou(pixels: PixelCounts, counts: np.ndarray | None = None) -> np.ndarray:
    """Intersection over union of each class over all pictures together, float64 [draws, classes], NaN for a class that is not in the truth.

    counts: how often each picture was drawn, [draws, pictures]; None: each of them once.
    """
    weights = np.ones((1, len(pixels.true))) if counts is None else counts.astype(np.float64)
    shared, true, said = (weights @ part for part in (pixels.shared, pixels.true, pixels.said))
    found: np.ndarray = np.divide(shared, true + said - shared, out=np.full(shared.shape, np.nan), where=true > 0)
    return found


def mean_iou(pixels: PixelCounts, counts: np.ndarray | None = None) -> np.ndarray:
    """The mean over the classes of the truth, [draws]; NaN for a draw of pictures without any class."""
    found = class_iou(pixels, counts)
    there = ~np.isnan(found)
    sums = np.where(there, found, 0.0).sum(axis=1)
    means: np.ndarray = np.divide(sums, there.sum(axis=1), out=np.full(len(found), np.nan), where=there.any(axis=1))
    return means


def pixel_accuracy(pixels: PixelCounts) -> float:
    """The share of pixels with the right class; NaN where no pixel has a true one."""
    total = pixels.true.sum()
    return float(pixels.shared.sum() / total) if total else float("nan")


def picture_iou(pixels: PixelCounts) -> np.ndarray:
    """The mean intersection over union of each picture by itself, over the classes that are true in it: [n], NaN where none is."""
    return mean_iou(pixels, np.eye(len(pixels.true)))
