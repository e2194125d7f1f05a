"""Draw what a model found on the picture: boxes with names and scores, or the class of each pixel. Python 3.9, numpy and Pillow."""

from __future__ import annotations

import colorsys
from typing import Any, List, Mapping, Sequence, Tuple

import numpy as np

GOLDEN_ANGLE = 0.381966  # of a turn: neighbouring numbers get hues far apart
OPACITY = 0.5  # of the colours over a picture
IGNORE = 255  # the class number of pixels that have no class, see agent.geometry
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
BRIGHT = 0.179  # relative luminance above which black has more contrast than white
PADDING = 1  # pixels around a caption
Color = Tuple[int, int, int]
Box = Tuple[float, float, float, float]  # x0, y0, x1, y1


def color_of(number: int) -> Color:
    """A colour for a class, the same for each run."""
    red, green, blue = colorsys.hsv_to_rgb(number * GOLDEN_ANGLE % 1, 0.85, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


def ink_on(color: Color) -> Color:
    """Black or white, whichever has more contrast on a colour: by relative luminance, https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (value / 255 for value in color)]
    return BLACK if float(np.dot(linear, (0.2126, 0.7152, 0.0722))) > BRIGHT else WHITE


def place_caption(box: Box, size: Tuple[float, float], picture: Tuple[int, int], taken: Sequence[Box]) -> Box:
    """Where a caption of this size stands: above its box, else in it, below it or at its right, the first that covers no other caption;
    always within the picture, as far as it fits. size, picture: width and height."""
    left, top, right, bottom = box
    wide, high = size
    tries = [(left, top - high), (left, top), (left, bottom), (right - wide, top - high), (right - wide, top)]
    spots = []
    for x, y in tries:
        x, y = max(0.0, min(x, picture[0] - wide)), max(0.0, min(y, picture[1] - high))
        spots.append((x, y, x + wide, y + high))
    return next((spot for spot in spots if not any(overlap(spot, other) for other in taken)), spots[0])


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def draw_boxes(picture: np.ndarray, corners: np.ndarray, classes: Sequence[int], captions: Sequence[str]) -> Any:
    """The picture, uint8 [h, w, 1 or 3], with boxes: a PIL image. corners: [k, 4] of x0, y0, x1, y1 in its pixels."""
    from PIL import ImageDraw, ImageFont

    image = to_image(picture)
    pencil, font = ImageDraw.Draw(image), ImageFont.load_default()
    width = max(1, round(min(image.size) / 200))
    boxes = [sort_sides(box) for box in corners]
    taken: List[Box] = []
    for box, number in zip(boxes, classes):
        pencil.rectangle(box, outline=color_of(int(number)), width=width)
    for box, number, caption in zip(boxes, classes, captions):
        if caption:
            color = color_of(int(number))
            x0, y0, x1, y1 = pencil.textbbox((0, 0), caption, font=font)
            size = (x1 - x0 + 2 * PADDING, y1 - y0 + 2 * PADDING)
            taken.append(place_caption(box, size, image.size, taken))
            pencil.rectangle(taken[-1], fill=color)
            pencil.text((taken[-1][0] + PADDING - x0, taken[-1][1] + PADDING - y0), caption, fill=ink_on(color), font=font)
    return image


def sort_sides(box: Sequence[float]) -> Box:
    """Pillow refuses a box whose sides are swapped."""
    left, right = sorted((float(box[0]), float(box[2])))
    top, bottom = sorted((float(box[1]), float(box[3])))
    return left, top, right, bottom


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
