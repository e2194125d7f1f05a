"""Test pictures for the report: those that a variant or the reference gets wrong, and those whose boxes or classes changed most, drawn."""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgewise.agent import drawing
from edgewise.agent.geometry import Geometry
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.plugins import DrawnTask, Predictions, Shown, Task
from edgewise.report.rows import read_decisions
from edgewise.tasks.predictions import read_predictions

MODELS = Path("models")
MOST_PICTURES = 24
MOST_DRAWN = 8
KINDS = ("lost", "gained", "both wrong")
SIDE_PX = 112  # pictures are scaled down to this
DRAWN_PX = 320  # and those that are drawn on, to this
JPEG_QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """One test sample that the variant or the reference gets wrong. kind: one of KINDS. source: a data: URL."""

    kind: str
    truth: str
    before: str
    after: str
    source: str


def pick_pictures(reference: str, variant: str, task: Task) -> list[Picture]:
    """At most MOST_PICTURES: samples that one of the two gets wrong, then those that both do; none where the data is not pictures."""
    before, after = read_decisions(reference, task), read_decisions(variant, task)
    if before is None or after is None or not (MODELS / "data" / artifact.MANIFEST).exists():
        return []
    data = Samples.open(MODELS / "data")
    if data.preprocessing.get("kind") != "image":
        return []
    kinds = picture_kinds(before.correct, after.correct)
    wrong = sorted(np.flatnonzero(kinds != ""), key=lambda i: (KINDS.index(kinds[i]), i))[:MOST_PICTURES]
    if not wrong:
        return []
    images = next(iter(data.raw(data.indices("test")[wrong]).values()))
    texts = [(after.truth[i], before.decided[i], after.decided[i]) for i in wrong]
    return [Picture(str(kinds[i]), *text, data_url(image)) for i, text, image in zip(wrong, texts, images, strict=True)]


def picture_kinds(right_before: np.ndarray, right: np.ndarray) -> np.ndarray:
    """One of KINDS for each sample, an empty string where both are right. Both arguments: bool [samples]."""
    return np.select([right_before & ~right, ~right_before & right, ~right_before], KINDS, "")


def data_url(image: np.ndarray) -> str:
    """A data: URL of a PNG, of an image uint8 [height, width, 1 or 3]."""
    from PIL import Image

    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    picture.thumbnail((SIDE_PX, SIDE_PX))
    return encode(picture, "PNG", optimize=True)


def encode(image: Any, kind: str, **options: Any) -> str:
    """A data: URL of an image of Pillow."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(stream.getvalue()).decode()


@dataclass(frozen=True)
class Drawn:
    """One test picture: the truth (where there is one), the reference's and the variant's answer drawn on it. views: (caption, image of
    Pillow)."""

    name: str
    note: str
    views: Sequence[tuple[str, Any]]

    def sources(self) -> list[tuple[str, str]]:
        """(caption, data: URL) of each view."""
        return [(caption, encode(image, "JPEG", quality=JPEG_QUALITY)) for caption, image in self.views]


def draw_changes(reference: str, variant: str, task: Task) -> list[Drawn]:
    """The pictures whose boxes or classes changed most, at most MOST_DRAWN; none where the task finds neither, or a variant failed."""
    if not task.DRAWN or not (MODELS / "data" / artifact.MANIFEST).exists():
        return []
    before, after = (read_predictions(MODELS / "evaluate" / name) for name in (reference, variant))
    if before is None or after is None:
        return []
    return draw_pictures(cast(DrawnTask, task), before, after, (reference, variant))


def draw_pictures(task: DrawnTask, before: Predictions, after: Predictions, names: tuple[str, str]) -> list[Drawn]:
    """The pictures that changed most, drawn. names: of the reference and of the variant."""
    data, changed = Samples.open(MODELS / "data"), task.changed(before, after)
    chosen = np.argsort(-changed, kind="stable")[:MOST_DRAWN]
    indices = data.indices("test")[chosen]
    pictures, sizes, files = next(iter(data.raw(indices).values())), data.sizes(indices), data.names(indices)
    found = []
    for i, picture, size, file in zip(chosen, pictures, sizes, files, strict=True):
        geometry = Geometry.of(data.preprocessing, *map(int, size))
        views = {"truth": task.truth(after, int(i)), names[0]: task.shown(before, int(i)), names[1]: task.shown(after, int(i))}
        drawn = [(caption, draw(picture, shown, geometry)) for caption, shown in views.items() if shown is not None]
        found.append(Drawn(file, task.describe_change(float(changed[i])), drawn))
    return found


def draw(picture: np.ndarray, shown: Shown, geometry: Geometry) -> Any:
    """A stored picture, uint8 [h, w, 1 or 3], with what is shown of it. geometry: how the original lies in the stored one."""
    if shown.class_map is not None:
        image = drawing.draw_map(picture, geometry.mask_to_input(shown.class_map))
    else:
        image = drawing.draw_boxes(picture, geometry.boxes_to_input(shown.corners), shown.classes.tolist(), shown.captions)
    image.thumbnail((DRAWN_PX, DRAWN_PX))
    return image
