"""What all data sets of pictures share: their settings, and how they are stored."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.artifact import Tensor
from stages.core.errors import ConfigError
from stages.core.settings import option
from stages.data.array_file import ArrayFile
from stages.data.common import DataSettings, versions
from stages.payload import preprocess

SIDES = (8, 2048)  # pixels


@dataclass(frozen=True, kw_only=True)
class PictureSettings(DataSettings):
    image_size: Any = option(64, "what pictures are resized to, pixels: a number for a square, or [height, width]")
    channels: int = option(3, "1: grey, 3: RGB", choices=(1, 3))
    resize: str = option(
        "stretch", "crop keeps the middle, pad adds black bars, stretch ignores the proportions", choices=("crop", "stretch", "pad")
    )
    interpolation: str = option("bilinear", choices=("nearest", "bilinear", "bicubic", "lanczos"))
    scale: float = option(1 / 255, "factor before mean and std: 1/255 gives 0..1, 1 keeps 0..255", low=1e-6, high=1.0)
    channels_last: bool = option(False, "true: the model takes [n, height, width, channels], as Keras and TFLite models do")
    mean: tuple[float, ...] = option((0.5,), "subtracted after the scale; one number, or one a channel")
    std: tuple[float, ...] = option((0.5,), "divided by after that; one number, or one a channel")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) != 2 or not all(type(side) is int and SIDES[0] <= side <= SIDES[1] for side in self.size):
            raise ConfigError(
                f"data.image_size: {self.image_size!r} must be at least {SIDES[0]} and at most {SIDES[1]}, one number or [height, width]"
            )
        for key in ("mean", "std"):
            if len(getattr(self, key)) not in (1, self.channels):
                raise ConfigError(f"data.{key}: {list(getattr(self, key))} must be 1 number, or {self.channels}, one a channel")
        if min(self.std) <= 0:
            raise ConfigError(f"data.std: {list(self.std)} must be above 0")

    @property
    def size(self) -> list[int]:
        """[height, width]"""
        return list(self.image_size) if isinstance(self.image_size, (list, tuple)) else [self.image_size] * 2

    @property
    def spec(self) -> dict[str, Any]:
        """The preprocessing as manifests hold it; see payload/preprocess."""
        return {
            "kind": "image",
            "size": self.size,
            "channels": self.channels,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "scale": self.scale,
            "mean": list(self.mean) * (self.channels // len(self.mean)),
            "std": list(self.std) * (self.channels // len(self.std)),
            "layout": "NHWC" if self.channels_last else "NCHW",
            "dtype": "float32",
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
