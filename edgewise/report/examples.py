"""Samples behind the figures: what changed in each class, and pictures that one model gets right and the other wrong."""

import base64
import io
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.plugins import Decisions, Task
from edgewise.report import rows

MODELS = Path("models")
MOST_PICTURES = 24
MOST_CLASSES = 20
KINDS = ("lost", "gained", "both wrong")
SIDE_PX = 112  # pictures are made no larger than this


@dataclass(frozen=True)
class ClassChange:
    """Recall of one class, shares; None for a class without test samples."""

    label: str
    samples: int
    before: float | None
    after: float | None

    @property
    def delta(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)


@dataclass(frozen=True)
class Picture:
    """One test sample that the variant or the reference gets wrong. kind: one of KINDS."""

    kind: str
    truth: str
    before: str
    after: str
    source: str  # a data: address


def classes(reference: str, variant: str) -> list[ClassChange]:
    """The classes whose recall changed most first; at most MOST_CLASSES."""
    before, after = recalls(reference), recalls(variant)
    if before is None or after is None:
        return []
    counts = occurrences(np.load(MODELS / "evaluate" / variant / "targets.npy"), len(after))
    found = [ClassChange(label, int(counts[i]), before[label], after[label]) for i, label in enumerate(after)]
    return sorted(found, key=lambda change: (-abs(change.delta), change.label))[:MOST_CLASSES]


def occurrences(targets: np.ndarray, labels: int) -> np.ndarray:
    """Samples of each label, int [labels], from targets [n] or [n, labels]."""
    return np.bincount(targets, minlength=labels) if targets.ndim == 1 else (targets > 0).sum(axis=0)


def recalls(name: str) -> dict[str, float | None] | None:
    """Recall by label, in the order of the labels; None where there is no such thing."""
    folder = MODELS / "evaluate" / name
    made = artifact.read(folder)
    if not made.ok:
        return None
    found = json.loads((folder / "details.json").read_text(encoding="utf-8")).get("recall_per_class")
    return {label: found[label] for label in made.labels} if found else None


def decisions(name: str, task: Task) -> Decisions | None:
    """None where the variant failed, or an answer is neither right nor wrong."""
    found = rows.answers(name)
    return task.decide(found) if found else None


def pictures(reference: str, variant: str, task: Task) -> list[Picture]:
    """Flips first, then what both get wrong; at most MOST_PICTURES; none where the data are no pictures or not there."""
    before, after = decisions(reference, task), decisions(variant, task)
    if before is None or after is None or not (MODELS / "data" / artifact.MANIFEST).exists():
        return []
    data = Samples.open(MODELS / "data")
    if data.preprocessing.get("kind") != "image":
        return []
    kinds = kinds_of(before.right, after.right)
    wrong = sorted(np.flatnonzero(kinds != ""), key=lambda i: (KINDS.index(kinds[i]), i))[:MOST_PICTURES]
    if not wrong:
        return []
    images = next(iter(data.raw(data.indices("test")[wrong]).values()))
    named = [(after.truth[i], before.said[i], after.said[i]) for i in wrong]
    return [Picture(str(kinds[i]), *names, address(image)) for i, names, image in zip(wrong, named, images, strict=True)]


def kinds_of(right_before: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One of KINDS for each sample, or an empty text where both are right."""
    return np.select([right_before & ~right, ~right_before & right, ~right_before], KINDS, "")


def address(image: np.ndarray) -> str:
    """A data: address of a PNG, from uint8 [h, w, 1 or 3]."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((SIDE_PX, SIDE_PX))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()
