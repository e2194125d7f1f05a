"""How samples are stored in models/data: arrays and pictures, one inputs/NAME.npy for each input of the model, one row per sample."""

import hashlib
import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np
from numpy.lib import format as npy

from edgewise.agent import preprocess, ragged
from edgewise.artifacts.artifact import Port
from edgewise.config.settings import option
from edgewise.data.common import DataSettings, versions
from edgewise.errors import ConfigError, DataError

STORED = "stored"
PORT_TYPES = ("float32", "float16", "int8", "uint8", "int16", "int32", "int64", "bool")  # of inputs, as the formats have them
NEAREST = {
    "float64": "float32",
    "longdouble": "float32",
    "uint16": "int32",
    "uint32": "int64",
    "uint64": "int64",
}  # of types that they lack
DTYPE = option(STORED, "type of the model's inputs; stored: that of each array, float32 for float64", choices=(STORED, *PORT_TYPES))
LONGEST_NAME_BYTES = 200  # most file systems take 255, with the ending
SIZES_FILE, SHAPES_FILE = "sizes.npy", "shapes.npy"
SIDE_RANGE = (8, 2048)  # pixels
LETTERBOX_GREY = 114  # of YOLOX, Ultralytics and those before them
PADDED = ("letterbox", ragged.AS_IS)  # ways to resize that have bars


@dataclass(frozen=True, kw_only=True)
class PictureSettings(DataSettings):
    """Settings that every data set of pictures has."""

    OWN_SIZES: ClassVar[str] = ragged.AS_IS  # of `resize`: pictures go into the model at their own sizes

    image_size: Any = option(
        64, "size of the model's input in pixels: an integer for a square, or [height, width]; with as_is that of the timed input"
    )
    channels: int = option(3, "1: grayscale, 3: RGB", choices=(1, 3))
    resize: str = option(
        "stretch",
        "crop keeps the center, pad adds black bars, letterbox bars of pad_value, stretch ignores the aspect ratio, as_is changes no size",
        choices=("crop", "stretch", "pad", *PADDED),
    )
    pad_value: Any = option(None, "with letterbox and as_is: pixel value of the bars, 0 to 255, or [red, green, blue]; null: 114")
    pad_anchor: str | None = option(
        None,
        "with letterbox and as_is: center puts bars on both sides, corner at the right and the bottom; null: center",
        choices=("center", "corner"),
    )
    pad_stride: int | None = option(
        None,
        "with letterbox and as_is: pad only to a multiple of so many pixels, 1 not at all; null: letterbox to all of image_size,"
        " as_is not at all",
        low=1,
        high=256,
    )
    interpolation: str = option("bilinear", choices=("nearest", "bilinear", "bicubic", "lanczos"))
    crop_share: float = option(
        1.0, "with crop: share of each side that the center crop keeps; 0.875 is the usual 224 of 256", low=0.1, high=1.0
    )
    channels_last: bool = option(False, "true: the model takes [n, height, width, channels], as Keras and TFLite models do")
    channel_order: str = option("rgb", "bgr: blue first, as OpenCV reads images", choices=("rgb", "bgr"))
    dtype: str = option("float32", "uint8: the model takes the unscaled pixel values", choices=("float32", "uint8"))
    range: tuple[float, ...] | None = option(
        None, "values of black and white: [0, 255], [0, 1] or [-1, 1]; null: [0, 1] if mean or std is given, else [-1, 1]"
    )
    mean: tuple[float, ...] | None = option(
        None, "subtracted after scaling to range; one number, or one per channel in the model's order (bgr: blue first); null: 0"
    )
    std: tuple[float, ...] | None = option(None, "divisor after mean is subtracted; one number, or one per channel, as mean; null: 1")

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.size) != 2 or not all(type(side) is int and SIDE_RANGE[0] <= side <= SIDE_RANGE[1] for side in self.size):
            raise ConfigError(
                f"data.image_size: {self.image_size!r} must be an integer or [height, width], "
                f"at least {SIDE_RANGE[0]} and at most {SIDE_RANGE[1]} pixels"
            )
        self._check_values()
        self._check_padding()
        if self.crop_share < 1 and self.resize != "crop":
            raise ConfigError(f"data.crop_share: {self.crop_share} needs data.resize=crop, but it is {self.resize}")
        if self.channel_order != "rgb" and self.channels == 1:
            raise ConfigError(f"data.channel_order: {self.channel_order!r} needs data.channels=3, but it is {self.channels}")

    def _check_values(self) -> None:
        if self.range is not None and (len(self.range) != 2 or self.range[0] == self.range[1]):
            raise ConfigError(f"data.range: {list(self.range)} must be two different numbers, for example [0, 255], [0, 1] or [-1, 1]")
        for key in ("mean", "std"):
            if len(getattr(self, key) or (0,)) not in (1, self.channels):
                raise ConfigError(f"data.{key}: {list(getattr(self, key))} must be 1 number, or {self.channels}, one per channel")
        if min(self.std or (1,)) <= 0:
            raise ConfigError(f"data.std: {list(self.std or ())} must be above 0")
        if self.dtype == "uint8" and (self.range != (0, 255) or self.mean or self.std):
            raise ConfigError("data.dtype: uint8 takes unscaled pixel values: set data.range=[0,255], and remove data.mean and data.std")

    def _check_padding(self) -> None:
        for key in ("pad_value", "pad_anchor", "pad_stride"):
            if getattr(self, key) is not None and self.resize not in PADDED:
                raise ConfigError(f"data.{key}: {getattr(self, key)} needs data.resize={' or '.join(PADDED)}, but it is {self.resize}")
        given = self.pad_value if isinstance(self.pad_value, (list, tuple)) else [self.pad_value or 0] * self.channels
        if len(given) != self.channels or not all(type(value) is int and 0 <= value <= 255 for value in given):
            raise ConfigError(
                f"data.pad_value: {self.pad_value!r} must be an integer from 0 to 255, or a list of {self.channels}, one per channel"
            )
        if self.pad_stride and any(side % self.pad_stride for side in self.size):
            raise ConfigError(
                f"data.pad_stride: {self.pad_stride} must divide both sides of data.image_size, {self.size}; change one of them"
            )

    @property
    def size(self) -> list[int]:
        """[height, width]"""
        return list(self.image_size) if isinstance(self.image_size, (list, tuple)) else [self.image_size] * 2

    @property
    def spec(self) -> dict[str, Any]:
        """The preprocessing as manifests record it; see edgewise.agent.preprocess."""
        limits = self.range or ((0.0, 1.0) if self.mean or self.std else (-1.0, 1.0))
        return {
            "kind": "image",
            "size": self.size,
            "channels": self.channels,
            "resize": self.resize,
            "interpolation": self.interpolation,
            "crop_share": self.crop_share,
            **self._padding,
            **preprocess.scaling_spec(limits, self.mean or (0.0,), self.std or (1.0,), self.channels),
            "order": self.channel_order.upper(),
            "layout": "NHWC" if self.channels_last else "NCHW",
            "dtype": self.dtype,
        }

    @property
    def _padding(self) -> dict[str, Any]:
        if self.resize not in PADDED:
            return {}
        value = self.pad_value if self.pad_value is not None else LETTERBOX_GREY
        listed = list(value) if isinstance(value, (list, tuple)) else value
        return {"pad_value": listed, "anchor": self.pad_anchor or "center", "stride": self.pad_stride}

    @property
    def notes(self) -> tuple[str, ...]:
        height, width = self.size
        told = (
            f"pictures go into the model at their own sizes (data.resize: {ragged.AS_IS}); latency and memory are those of one of"
            f" {height}x{width} (data.image_size)"
        )
        return (told,) if self.resize == ragged.AS_IS else ()


class PictureEncoder:
    """Resizes each picture and stores it: inputs/image.npy, uint8 [n, height, width, channels]. All come to the same size, unless they are
    left as they are: then it is uint8 [pixels of all pictures, channels], and shapes.npy, int32 [n, 2], has the height and width of each.

    sizes.npy, int32 [n, 2], keeps the height and width that each had.
    """

    def __init__(self, settings: PictureSettings, folder: Path):
        self.spec, self.folder = settings.spec, folder
        self.sizes: list[tuple[int, ...]] = []
        self.shapes: list[tuple[int, ...]] = []
        self.rows = ArrayFile(folder / "inputs" / "image.npy")

    def add(self, picture: np.ndarray) -> None:
        row = preprocess.resize_to_spec(picture, self.spec)
        if self.spec["resize"] == ragged.AS_IS:
            self._add_pixels(row)
        else:
            self._add_row(row, picture)
        self.sizes.append(picture.shape[:2])

    def _add_pixels(self, row: np.ndarray) -> None:
        self.rows.extend(row.reshape(-1, row.shape[2]))
        self.shapes.append(row.shape[:2])

    def _add_row(self, row: np.ndarray, picture: np.ndarray) -> None:
        if self.rows.shape not in ((), row.shape):
            raise DataError(
                f"data.pad_stride: {self.spec['stride']} makes {list(row.shape[:2])} of a picture of {list(picture.shape[:2])} "
                f"(height, width) and {list(self.rows.shape[:2])} of earlier ones; set data.pad_stride=none to pad all to data.image_size,"
                f" or data.resize={ragged.AS_IS} for pictures of any size"
            )
        self.rows.append(row)

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        self.rows.close()
        np.save(self.folder / SIZES_FILE, np.array(self.sizes, np.int32).reshape(-1, 2))
        if self.shapes:
            np.save(self.folder / SHAPES_FILE, np.array(self.shapes, np.int32))
        channels, size = self.spec["channels"], [None, None] if self.shapes else self.rows.shape[:2] or self.spec["size"]
        shape = (None, *size, channels) if self.spec["layout"] == "NHWC" else (None, channels, *size)
        return {
            "inputs": (Port("image", shape, self.spec["dtype"], self.spec["layout"], "image"),),
            "preprocessing": self.spec,
            "tools": versions("numpy", "pillow"),
        }


class ArrayEncoder:
    """Stores each array of a sample in inputs/NAME.npy: audio features, sensor windows, token ids. All samples have the same names and
    shapes."""

    def __init__(self, settings: Any, folder: Path):
        self.dtype, self.folder = settings.dtype, folder
        self.files: dict[str, ArrayFile] = {}
        self.count = 0

    def add(self, value: Mapping[str, np.ndarray]) -> None:
        if not self.count:
            self.files = {check_name(name): ArrayFile(self.folder / "inputs" / f"{name}.npy") for name in value}
        if set(value) != set(self.files):
            raise DataError(
                f"data: sample {self.count} has the arrays {sorted(value)}, earlier ones {sorted(self.files)}; make them the same"
            )
        for name, array in value.items():
            self._append(name, np.asarray(array))
        self.count += 1

    def _append(self, name: str, array: np.ndarray) -> None:
        where = f"data: sample {self.count}, array {name!r}"
        stored = cast(check_values(array, where), self.dtype, where)
        try:
            self.files[name].append(stored)
        except ValueError as error:
            raise DataError(f"{where}: {error}; crop or pad all samples to one shape") from None

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        for file in self.files.values():
            file.close()
        tensors = (Port(name, (None, *file.shape), file.dtype.name, None, "array") for name, file in self.files.items())
        return {"inputs": tuple(tensors), "preprocessing": {"kind": "none"}, "tools": versions("numpy")}


def check_name(name: str) -> str:
    """Names become files, those with / in folders. DataError for one that could lie elsewhere."""
    if not re.fullmatch(r"[\w:-][\w:.-]*(/[\w:-][\w:.-]*)*", name):
        raise DataError(f"data: {name!r} cannot be the name of an input; allowed: letters, digits and _ : - . /; rename the array")
    if max(len(part.encode()) for part in name.split("/")) > LONGEST_NAME_BYTES:
        raise DataError(
            f"data: the name of an input, {name[:20]}..., is {len(name)} characters long, more than a file's name can be; rename the array"
            " (arrays are taken in order where their names are not those of the model)"
        )
    return name


def cast(array: np.ndarray, dtype: str, where: str) -> np.ndarray:
    """The array in the type that a model takes. dtype: one of PORT_TYPES, or STORED. DataError where that changes integers or overflows."""
    kind = np.dtype(NEAREST.get(array.dtype.name, array.dtype.name) if dtype == STORED else dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        made = array.astype(kind)
        wrong = ~np.isfinite(made) if kind.kind == "f" else made != array
    if wrong.any():
        raise DataError(
            f"{where}: {array[wrong].flat[0]} does not fit into {kind}, the type of the model's inputs; set data.dtype to another one"
        )
    return made


def check_values(array: np.ndarray, where: str) -> np.ndarray:
    """DataError for values that are not finite numbers."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: values of type {array.dtype} are not numbers; give floats, integers or booleans of one shape")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: {np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN or infinite; impute or drop them")
    return array


def content_hash(value: Mapping[str, np.ndarray]) -> str:
    """sha256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(value.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


class ArrayFile:
    """An .npy file that is written row by row, so that the data set never has to fit in memory.

    with ArrayFile(path) as rows:
        rows.append(array)  # ValueError unless it has the shape and dtype of the first
    """

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("wb")
        weakref.finalize(self, self._stream.close)  # an error in a later sample drops the encoder without a word
        self._length = 0
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype = np.dtype(np.uint8)

    def append(self, row: np.ndarray) -> None:
        self.extend(row[None])

    def extend(self, rows: np.ndarray) -> None:
        """Append several rows at once."""
        if not self._length:
            self.shape, self.dtype = rows.shape[1:], rows.dtype
            self._write_header()
        if (rows.shape[1:], rows.dtype) != (self.shape, self.dtype):
            raise ValueError(f"{rows.dtype} {list(rows.shape[1:])} does not match earlier rows, {self.dtype} {list(self.shape)}")
        self._stream.write(np.ascontiguousarray(rows).tobytes())
        self._length += len(rows)

    def close(self) -> None:
        """Rewrite the header with the final length: numpy pads it so that the first axis may grow in place."""
        if not self._stream.closed:
            self._stream.seek(0)
            self._write_header()
            self._stream.close()

    def _write_header(self) -> None:
        shape = (self._length, *self.shape)
        npy.write_array_header_1_0(self._stream, {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
