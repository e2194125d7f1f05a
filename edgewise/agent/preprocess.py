"""Turn picture files into the inputs of a model. The one implementation, used in training, in evaluation and on the device.

    spec = {"kind": "image", "size": [h, w], "channels": 1 | 3, "resize": "crop" | "stretch" | "pad" | "letterbox" | "as_is",
            "interpolation": "bilinear", "crop_share": 1.0, "scale": 1 / 255, "mean": [...], "std": [...], "order": "RGB" | "BGR",
            "layout": "NCHW" | "NHWC", "dtype": "float32" | "uint8"}
    letterbox and as_is: "pad_value": 0 ... 255 or [R, G, B], "anchor": "corner" | "center", "stride": null | pixels
    feeds = {"image": normalize(resize_to_spec(decode_picture("picture.jpg"), spec)[None], spec)}

Python 3.9; Pillow is imported only where a file is decoded or resized.
"""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edgewise.agent.ragged import AS_IS

MAX_PIXELS = 89_478_485  # Pillow's own limit against decompression bombs: 256 MB in 24 bits
WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")  # grey, 16 bits; "I" is what Pillow before 11 makes of a 16-bit PNG


def decode_picture(source: Union[str, BinaryIO]) -> np.ndarray:
    """The first frame of a picture, rotated as its EXIF tag says: uint8 [height, width, 1 (grey) or 3 (RGB)].

    16 bits are scaled by their full range; alpha is dropped, as torchvision and Keras do. ValueError if it cannot be read.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes and tags; the size is checked here
            with Image.open(source) as picture:
                _check_size(*picture.size)
                return _to_array(ImageOps.exif_transpose(picture))
    except Exception as error:  # Pillow's readers raise almost any exception on a broken file
        raise ValueError(_reason(error)) from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width}x{height} is over {MAX_PIXELS} pixels")


def _reason(error: Exception) -> str:
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture format that Pillow can read"
    return str(error) or type(error).__name__


def _to_array(picture: Any) -> np.ndarray:
    if picture.mode == "F":
        raise ValueError("float pictures have no fixed range: save them with 8 or 16 bits")
    if picture.mode in WIDE_MODES:
        return _narrow(np.asarray(picture))[:, :, None]
    grey = picture.mode in ("1", "L", "LA", "La")
    array = np.asarray(picture.convert("L" if grey else "RGB"))
    return array[:, :, None] if grey else array


def _narrow(wide: np.ndarray) -> np.ndarray:
    """16 bits to 8, rounded: 65535 / 257 = 255. ValueError if a 32-bit picture has values of more than 16 bits."""
    if wide.min() < 0 or wide.max() > 65_535:
        raise ValueError("more than 16 bits a pixel: save it with 8 or 16")
    return ((wide.astype(np.uint32) + 128) // 257).astype(np.uint8)


class Placement(NamedTuple):
    """Which part of a picture becomes which part of the model's input.

    source: left, top, right, bottom in pixels of the picture. inner: height and width that this part is resized to. left, top: where it
    begins in the input. size: height and width of the input. scale: pixels of the input for one of the picture, across and down, before the
    sides are rounded to whole pixels.
    """

    source: Tuple[float, float, float, float]
    inner: Tuple[int, int]
    left: int
    top: int
    size: Tuple[int, int]
    scale: Tuple[float, float]


def place(spec: Mapping[str, Any], height: int, width: int) -> Placement:
    """Where a picture of this size comes to lie in the model's input; see resize_to_spec."""
    rows, columns = spec["size"]
    if spec["resize"] == AS_IS:
        return _letterbox(height, width, (height, width), spec["anchor"], spec["stride"] or 1)
    if spec["resize"] == "pad":
        return _letterbox(height, width, (rows, columns), "center", None)
    if spec["resize"] == "letterbox":
        return _letterbox(height, width, (rows, columns), spec["anchor"], spec["stride"])
    source = _center_crop(spec, height, width) if spec["resize"] == "crop" else (0.0, 0.0, float(width), float(height))
    scale = (columns / (source[2] - source[0]), rows / (source[3] - source[1]))
    return Placement(source, (rows, columns), 0, 0, (rows, columns), scale)


def _center_crop(spec: Mapping[str, Any], height: int, width: int) -> Tuple[float, float, float, float]:
    """As ImageOps.fit: the largest part of the input's aspect ratio, around the center, of crop_share of each side."""
    ratio = spec["size"][1] / spec["size"][0]
    bleed = (1 - spec.get("crop_share", 1.0)) / 2
    live_width, live_height = width - bleed * width * 2, height - bleed * height * 2
    crop_width, crop_height = live_width, live_height
    if live_width / live_height > ratio:
        crop_width = ratio * live_height
    elif live_width / live_height < ratio:
        crop_height = live_width / ratio
    left, top = bleed * width + (live_width - crop_width) * 0.5, bleed * height + (live_height - crop_height) * 0.5
    return left, top, left + crop_width, top + crop_height


def _letterbox(height: int, width: int, size: Tuple[int, int], anchor: str, stride: Optional[int]) -> Placement:
    """The whole picture at its own aspect ratio, with bars. A side is rounded down where the picture lies in the corner, as YOLOX does, and
    to the nearest pixel in the center, as Ultralytics does; it has at least one pixel. Of an odd bar the smaller part comes first.

    size: that the picture has to fit into. stride: pad to a multiple of it only; None: to all of `size`.
    """
    scale = min(size[0] / height, size[1] / width)
    to_pixels = int if anchor == "corner" else round
    inner = (max(1, to_pixels(height * scale)), max(1, to_pixels(width * scale)))
    bars = [outer - own if stride is None else -own % stride for outer, own in zip(size, inner)]
    top, left = (0, 0) if anchor == "corner" else (bars[0] // 2, bars[1] // 2)
    source = (0.0, 0.0, float(width), float(height))
    return Placement(source, inner, left, top, (inner[0] + bars[0], inner[1] + bars[1]), (scale, scale))


def resize_to_spec(image: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The picture with the channels and size of the spec: uint8 [height, width, channels].

    spec["resize"]: stretch ignores the aspect ratio; crop keeps it and cuts off the edges; pad keeps it and adds black bars on both sides;
    letterbox keeps it and adds bars of pad_value, on both sides or (anchor: corner) at the right and the bottom; with a stride only up to
    its next multiple, so that the input may be smaller than the spec's size. as_is leaves the picture at its own size, with bars up to the
    next multiple of a stride.
    Pillow 11 and 12 give the same bytes, on x86-64 and arm64. 13 resizes the height first where that is cheaper, as in
    tall pictures: a fifth of their pixels differ by one or two grey levels.
    """
    from PIL import Image

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture = picture.convert("L" if spec["channels"] == 1 else "RGB")
    placed = place(spec, picture.height, picture.width)
    resample = getattr(Image.Resampling, spec.get("interpolation", "bilinear").upper())
    resized = picture.resize(placed.inner[::-1], resample, box=placed.source)
    if placed.inner != placed.size:
        canvas = Image.new(picture.mode, placed.size[::-1], _colour(spec))
        canvas.paste(resized, (placed.left, placed.top))
        resized = canvas
    return np.asarray(resized).reshape(*placed.size, spec["channels"])


def _colour(spec: Mapping[str, Any]) -> Tuple[int, ...]:
    """The colour of the bars, one number for each channel."""
    value = spec.get("pad_value", 0)
    return tuple(value) if isinstance(value, (list, tuple)) else (value,) * spec["channels"]


def scaling_spec(limits: Sequence[float], mean: Sequence[float], std: Sequence[float], channels: int) -> dict[str, Any]:
    """The part of a spec that scales bytes. limits: the values of black and white, to which mean and std (one number, or one for each
    channel) apply."""
    low, high = limits
    means, stds = (list(given) * (channels // len(given)) for given in (mean, std))
    return {"scale": (high - low) / 255, "mean": [m - low for m in means], "std": stds}


def normalize(batch: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The model's input (x * scale - mean) / std from uint8 [n, height, width, channels]; [n, channels, height, width] for NCHW.

    mean and std are in the model's order of channels.
    """
    if spec.get("order") == "BGR":
        batch = batch[..., ::-1]
    array = batch if spec["dtype"] == "uint8" else _standardize(batch, spec)
    if spec["layout"] == "NCHW":
        array = array.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(array, dtype=spec["dtype"])


def _standardize(batch: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    mean, std = (np.asarray(spec[key], np.float32) for key in ("mean", "std"))
    return (batch.astype(np.float32) * np.float32(spec["scale"]) - mean) / std
