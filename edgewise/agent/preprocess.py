"""Turn picture files into the inputs of a model. The one implementation, used in training, in evaluation and on the device.

    spec = {"kind": "image", "size": [h, w], "channels": 1 | 3, "resize": "crop" | "stretch" | "pad", "interpolation": "bilinear",
            "crop_share": 1.0, "scale": 1 / 255, "mean": [...], "std": [...], "order": "RGB" | "BGR", "layout": "NCHW" | "NHWC",
            "dtype": "float32" | "uint8"}
    feeds = {"image": normalize(resize_to_spec(decode_picture("picture.jpg"), spec)[None], spec)}

Python 3.9; Pillow is imported only where a file is decoded or resized.
"""

from __future__ import annotations

import warnings
from typing import Any, BinaryIO, Mapping, Sequence, Union

import numpy as np

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


def resize_to_spec(image: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The picture with the channels and size of the spec: uint8 [height, width, channels].

    spec["resize"]: stretch ignores the aspect ratio; crop keeps it and cuts off the edges; pad keeps it and adds black bars.
    Pillow 11 and 12 give the same bytes; 13 rounds differently, by one grey level in about a fifth of the pixels when it shrinks.
    """
    from PIL import Image, ImageOps

    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    picture = picture.convert("L" if spec["channels"] == 1 else "RGB")
    height, width = spec["size"]
    resample = getattr(Image.Resampling, spec.get("interpolation", "bilinear").upper())
    if spec["resize"] == "crop":
        picture = ImageOps.fit(picture, (width, height), resample, bleed=(1 - spec.get("crop_share", 1.0)) / 2)
    elif spec["resize"] == "pad":
        picture = _pad(picture, width, height, resample)
    else:
        picture = picture.resize((width, height), resample)
    return np.asarray(picture).reshape(height, width, spec["channels"])


def _pad(picture: Any, width: int, height: int, resample: Any) -> Any:
    """Like ImageOps.pad, which fails on a picture so thin that its short side would have no pixels."""
    from PIL import Image

    scale = min(width / picture.width, height / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    canvas = Image.new(picture.mode, (width, height))
    canvas.paste(picture.resize(inner, resample), ((width - inner[0]) // 2, (height - inner[1]) // 2))
    return canvas


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
