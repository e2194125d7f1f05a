"""Pictures of bright and dark rectangles on noise, with their boxes or masks, as samples in memory and as models/data."""

from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact, targets
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.artifacts.samples import Samples
from edgewise.plugins import Boxes, Mask
from tests.support.training_project import preprocessing

LABELS = ("dark", "bright")
SPLITS = {"train": 64, "validation": 24, "calibration": 8, "test": 24}


def draw(count: int, side: int, seed: int = 0) -> tuple[np.ndarray, list[Boxes]]:
    """uint8 [count, side, side, 1] with up to two rectangles each, and their boxes."""
    rng = np.random.default_rng(seed)
    pictures, boxes = rng.integers(100, 156, (count, side, side, 1)).astype(np.uint8), []
    for picture in pictures:
        corners, classes = [], []
        for _ in range(rng.integers(0, 3)):
            height, width = rng.integers(side // 6, side // 2, 2)
            top, left = rng.integers(0, side - height), rng.integers(0, side - width)
            label = int(rng.integers(0, 2))
            picture[top : top + height, left : left + width] = (20, 235)[label]
            corners.append([left, top, left + width, top + height])
            classes.append(label)
        boxes.append(Boxes.of(corners, classes))
    return pictures, boxes


def masks_of(boxes: list[Boxes], side: int) -> list[np.ndarray]:
    """0: background, 1: dark, 2: bright; the first row of each picture has no class."""
    masks = []
    for each in boxes:
        mask = np.zeros((side, side), np.uint8)
        for (x0, y0, x1, y1), label in zip(each.corners.astype(int), each.classes, strict=True):
            mask[y0:y1, x0:x1] = label + 1
        mask[0] = 255
        masks.append(mask)
    return masks


def make_samples(kind: str, side: int = 32) -> Samples:
    """Samples in memory. kind: boxes or masks."""
    count = sum(SPLITS.values())
    pictures, boxes = draw(count, side)
    parts = np.split(np.arange(count), np.cumsum(list(SPLITS.values()))[:-1])
    stored: Any = targets.BoxTable.of(boxes)
    if kind == targets.MASKS:
        stored = targets.MaskTable(tuple(map(Mask.pack, masks_of(boxes, side))))
    return Samples(
        labels=LABELS if kind == targets.BOXES else ("background", *LABELS),
        preprocessing=preprocessing(side, 1),
        arrays={"image": pictures},
        stored_targets=stored,
        splits={name: part.tolist() for name, part in zip(SPLITS, parts, strict=True)},
        kind=kind,
        stored_sizes=np.full((count, 2), side, np.int32),
    )


def make_manifest(samples: Samples) -> Manifest:
    """The manifest of models/data."""
    side = samples.preprocessing["size"][0]
    image = Port("image", (None, 1, side, side), "float32", "NCHW", "image")
    return Manifest("data", inputs=(image,), labels=samples.labels, preprocessing=samples.preprocessing, details={"targets": samples.kind})


def make_data(root: Path, kind: str, side: int = 32) -> Path:
    """Write root/models/data by the contract of prepare-data; returns it."""
    samples, folder = make_samples(kind, side), root / "models/data"
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/image.npy", samples.arrays["image"])
    np.save(folder / "sizes.npy", samples.stored_sizes)
    targets.store(folder, samples.stored_targets)
    artifact.write_json(folder / "splits.json", samples.splits)
    artifact.write(folder, make_manifest(samples))
    return folder
