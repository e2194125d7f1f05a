"""What all data sets of pictures share: their settings, and how they are stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import preprocess
from edgewise.artifacts.artifact import Tensor
from edgewise.config.settings import option
from edgewise.data.array_encoder import ArrayFile
from edgewise.data.common import DataSettings, versions
from edgewise.errors import ConfigError

SIDES = (8, 2048)  # pixels


@dataclass(frozen=True, kw_only=True)
class PictureSettings(DataSettings):
    image_size: Any = option(64, "what pictures are resized to, pixels: a number for a square, or [height, width]")
    channels: int = option(3, "1: grey, 3: RGB", choices=(1, 3))
    resize: str = option(
        "stretch", "crop keeps the middle, pad adds black bars, stretch ignores the proportions", choices=("crop", "stretch", "pad")
    )
    interpolation: str = option("bilinear", choices=("nearest", "bilinear", "bicubic", "lanczos"))
    crop_share: float = option(1.0, "with crop: the share of the middle that is kept; 0.875 is the usual 224 of 256", low=0.1, high=1.0)
    channels_last: bool = option(False, "true: the model takes [n, height, width, channels], as Keras and TFLite models do")
    channel_order: str = option("rgb", "bgr: blue first, as OpenCV reads pictures", choices=("rgb", "bgr"))
    dtype: str = option("float32", "uint8: the model takes the picture's own bytes", choices=("float32", "uint8"))
    range: tuple[float, ...] | None = option(
        None, "what black and white become: [0, 255], [0, 1] or [-1, 1]; null: [0, 1] where mean or std is given, else [-1, 1]"
    )
    mean: tuple[float, ...] | None = option(None, "subtracted after that; one number, or one a channel in the model's order; null: 0")
    std: tuple[float, ...] | None = option(None, "divided by after that; one number, or one a channel; null: 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) != 2 or not all(type(side) is int and SIDES[0] <= side <= SIDES[1] for side in self.size):
            raise ConfigError(
                f"data.image_size: {self.image_size!r} must be at least {SIDES[0]} and at most {SIDES[1]}, one number or [height, width]"
            )
        self._check_values()
        if self.crop_share < 1 and self.resize != "crop":
            raise ConfigError(f"data.crop_share: {self.crop_share} is for data.resize=crop, here it is {self.resize}")
        if self.channel_order != "rgb" and self.channels == 1:
            raise ConfigError(f"data.channel_order: {self.channel_order!r} needs data.channels=3; a grey picture has one channel")

    def _check_values(self) -> None:
        if self.range is not None and (len(self.range) != 2 or self.range[0] == self.range[1]):
            raise ConfigError(f"data.range: {list(self.range)} must be two different numbers, for example [0, 255], [0, 1] or [-1, 1]")
        for key in ("mean", "std"):
            if len(getattr(self, key) or (0,)) not in (1, self.channels):
                raise ConfigError(f"data.{key}: {list(getattr(self, key))} must be 1 number, or {self.channels}, one a channel")
        if min(self.std or (1,)) <= 0:
            raise ConfigError(f"data.std: {list(self.std or ())} must be above 0")
        if self.dtype == "uint8" and (self.range != (0, 255) or self.mean or self.std):
            raise ConfigError("data.dtype: uint8 takes pictures as they are: set data.range=[0,255], and leave data.mean and data.std out")

    @property
    def size(self) -> list[int]:
        """[height, width]"""
        return list(self.image_size) if isinstance(self.image_size, (list, tuple)) else [self.image_size] * 2

    @property
    def spec(self) -> dict[str, Any]:
        """The preprocessing as manifests hold it; see payload/preprocess."""
        limits = self.range or ((0.0, 1.0) if self.mean or self.std else (-1.0, 1.0))
        return {
            "kind": "image",
            "size": self.size,
            "channels": self.channels,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "crop_share": self.crop_share,
            **preprocess.values(limits, self.mean or (0.0,), self.std or (1.0,), self.channels),
            "order": self.channel_order.upper(),
            "layout": "NHWC" if self.channels_last else "NCHW",
            "dtype": self.dtype,
        }


class PictureEncoder:
    """Resizes each picture as it comes and stores it: inputs/image.npy, uint8 [n, height, width, channels]."""

    def __init__(self, settings: PictureSettings, folder: Path):
        self.spec = settings.spec
        self.rows = ArrayFile(folder / "inputs" / "image.npy")

    def add(self, picture: np.ndarray) -> None:
        self.rows.append(preprocess.fit(picture, self.spec))

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        self.rows.close()
        channels, size = self.spec["channels"], self.spec["size"]
        shape = (None, *size, channels) if self.spec["layout"] == "NHWC" else (None, channels, *size)
        return {
            "inputs": (Tensor("image", shape, self.spec["dtype"], self.spec["layout"], "image"),),
            "preprocessing": self.spec,
            "tools": versions("numpy", "pillow"),
        }


encoder = PictureEncoder
