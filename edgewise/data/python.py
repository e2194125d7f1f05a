"""The user's own data set: a callable that returns samples, such as a torch Dataset or a generator.

    def load(folder):                    # data.callable: my_project.data:load, data.arguments: {folder: /recordings}
        yield {"x": window, "label": "idle", "group": "machine-3"}

A sample is (x, label) or a mapping with x and optionally label, group, name and split. label is a class or, depending on data.targets,
one or several numbers; without labels the data is good for the task `none`. x is an array, a mapping of arrays for several inputs, or with
data.pictures: true a picture, uint8 [height, width, channels].
"""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.config.settings import option
from edgewise.data.common import TargetSettings, follow, sort_numerically
from edgewise.data.encoders import PORT_TYPES, STORED, ArrayEncoder, PictureEncoder, PictureSettings, content_hash
from edgewise.data.splitting import SPLITS
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Encoder, Item

KEYS = {"x", "label", "group", "name", "split"}
SAMPLE = "a sample is (x, label) or a mapping with x and optionally label, group, name and split"


@dataclass(frozen=True, kw_only=True)
class Settings(TargetSettings, PictureSettings):
    callable: str = option(help="package.module:function, importable from the project's folder")
    arguments: dict[str, Any] = option({}, "keyword arguments of the callable")
    watch: tuple[str, ...] = option((), "files, besides the callable's own module, whose change means that the data changed")
    pictures: bool = option(False, "x is a picture, to be resized and normalized")
    dtype: str = option(
        "float32",
        "type of the model's inputs; stored: that of each array, float32 for float64; of pictures float32, or uint8 for unscaled values",
        choices=(STORED, *PORT_TYPES),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pictures and self.dtype not in ("float32", "uint8"):
            raise ConfigError(f"data.dtype: {self.dtype!r} must be float32 or uint8 for pictures")

    def _check_values(self) -> None:
        if self.pictures:
            super()._check_values()

    def sort_labels(self, labels: Any) -> list[str]:
        return sort_numerically(labels)


def encoder(settings: Settings, folder: Path) -> Encoder:
    return PictureEncoder(settings, folder) if settings.pictures else ArrayEncoder(settings, folder)


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of the callable's module and of the watched files."""
    paths = [
        Path(inspect.getfile(sys.modules[import_callable(settings).__module__])),
        *(Path(path).expanduser() for path in settings.watch),
    ]
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"data.watch: {path}: {error.strerror}; name files that exist") from None
    return {"digest": digest.hexdigest(), "files": len(paths), "bytes": sum(path.stat().st_size for path in paths)}


def import_callable(settings: Settings) -> Callable[..., Iterable[Any]]:
    """ConfigError if there is no such callable."""
    module, _, name = settings.callable.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"data.callable: {settings.callable!r}: {error}; write it as package.module:function") from None
    if not callable(found):
        raise ConfigError(f"data.callable: {settings.callable!r} is a {type(found).__name__}; name a function or class")
    function: Callable[..., Iterable[Any]] = found
    return function


def items(settings: Settings) -> Iterator[Item]:
    function = import_callable(settings)
    try:
        inspect.signature(function).bind(**settings.arguments)
    except TypeError as error:
        raise ConfigError(f"data.arguments: {settings.callable} {error}; it takes {inspect.signature(function)}") from None
    for number, sample in enumerate(follow(iterate(function(**settings.arguments)), "reading", "sample")):
        yield make_item(number, sample, settings)


def iterate(given: Any) -> Iterable[Any]:
    """Samples of what the callable returned. A torch Dataset never raises IndexError, so it is read by length and index."""
    if hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, Mapping):
        return (given[i] for i in range(len(given)))
    if not isinstance(given, Iterable) or isinstance(given, (str, Mapping)):
        raise DataError(f"data.callable: returned {type(given).__name__}, must return an iterable of samples; {SAMPLE}")
    return given


def make_item(number: int, sample: Any, settings: Settings) -> Item:
    """DataError, with the number of the sample, if it is not one."""
    if isinstance(sample, tuple) and len(sample) == 2:
        sample = dict(zip(("x", "label"), sample, strict=True))
    if not isinstance(sample, Mapping) or not {"x"} <= set(sample) <= KEYS:
        given = sorted(sample) if isinstance(sample, Mapping) else type(sample).__name__
        raise DataError(f"data.callable: sample {number} is {given}; {SAMPLE}")
    if sample.get("split") not in (None, *SPLITS):
        raise DataError(f"data.callable: sample {number}: split {sample['split']!r}; allowed: {', '.join(SPLITS)}")
    value: Any = to_picture(number, sample["x"]) if settings.pictures else to_arrays(sample["x"])
    group = None if sample.get("group") is None else str(sample["group"])
    digest = content_hash({"x": value} if settings.pictures else value)
    return Item(
        str(sample.get("name", f"{number:06d}")), settings.parse_label(sample.get("label")), group, digest, value, sample.get("split")
    )


def to_arrays(x: Any) -> dict[str, np.ndarray]:
    return {str(name): np.asarray(array) for name, array in x.items()} if isinstance(x, Mapping) else {"x": np.asarray(x)}


def to_picture(number: int, x: Any) -> np.ndarray:
    image = np.asarray(x)
    image = image[:, :, None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise DataError(f"data.callable: sample {number} is {image.dtype} {list(image.shape)}; a picture is uint8 [height, width, 1 or 3]")
    return image
