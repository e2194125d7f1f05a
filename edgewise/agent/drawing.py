"""Draw what a model found on the picture: boxes with names and scores, or the class of each pixel. Python 3.9, numpy and Pillow."""

from __future__ import annotations

import colorsys
from typing import Any, Mapping, Sequence, Tuple

import numpy as np

GOLDEN_ANGLE = 0.381966  # of a turn: neighbouring numbers get hues far apart
OPACITY = 0.5  # of the colours over a picture
IGNORE = 255  # the class number of pixels that have no class, see agent.geometry
Color = Tuple[int, int, int]


def color_of(number: int) -> Color:
    """A colour for a class, the same for each run."""
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN_ANGLE % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(picture: np.ndarray, corners: np.ndarray, classes: Sequence[int], captions: Sequence[str]) -> Any:
    """The picture, uint8 [h, w, 1 or 3], with boxes: a PIL image. corners: [k, 4] of x0, y0, x1, y1 in its pixels."""
    from PIL import ImageDraw, ImageFont

    image = to_image(picture)
    pencil, font = ImageDraw.Draw(image), ImageFont.load_default()
    width = max(1, round(min(image.size) / 200))
    for box, number, caption in zip(corners, classes, captions):
        color = color_of(int(number))
        left, right = sorted((float(box[0]), float(box[2])))  # Pillow refuses a box whose sides are swapped
        top, bottom = sorted((float(box[1]), float(box[3])))
        pencil.rectangle([left, top, right, bottom], outline=color, width=width)
        if caption:
            place = (left + width, max(0.0, top - 12))
            pencil.rectangle(pencil.textbbox(place, caption, font=font), fill=color)
            pencil.text(place, caption, fill=(255, 255, 255), font=font)
    return image


def draw_objects(picture: np.ndarray, objects: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> Any:
    """As `draw_boxes`, for objects of an answer: {"label", "score", "box"}."""
    corners = np.array([found["box"] for found in objects], np.float32).reshape(-1, 4)
    captions = [f"{found['label']} {found['score']:.2f}" for found in objects]
    return draw_boxes(picture, corners, [labels.index(found["label"]) for found in objects], captions)


def draw_map(picture: np.ndarray, class_map: np.ndarray) -> Any:
    """The picture, uint8 [h, w, 1 or 3], under the colours of its classes: a PIL image. class_map: uint8 [h, w]; IGNORE is left clear."""
    from PIL import Image

    base = np.asarray(to_image(picture), np.float32)
    colors = np.array([color_of(number) for number in range(256)], np.float32)[class_map]
    weight = np.where(class_map == IGNORE, 0.0, OPACITY)[..., None]
    return Image.fromarray(np.rint(base * (1 - weight) + colors * weight).astype(np.uint8))


def to_image(picture: np.ndarray) -> Any:
    """An RGB image of Pillow."""
    from PIL import Image

    return Image.fromarray(picture[..., 0] if picture.shape[-1] == 1 else picture).convert("RGB")
