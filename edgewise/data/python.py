"""The user's own data set: a dotted path to a callable that gives samples, such as a torch Dataset or a generator.

    def load(folder):                    # data.callable: my_project.data:load, data.arguments: {folder: /recordings}
        yield {"x": window, "label": "idle", "group": "machine-3"}

A sample is (x, label) or a mapping with x, label and, if wanted, group, name and split. label is a class, or with data.targets one
number or several. x is an array, a picture (uint8
[height, width, channels], with data.pictures: true) or a mapping of arrays for several inputs.
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
from edgewise.data.array_encoder import ArrayEncoder, content_hash
from edgewise.data.common import TargetSettings, numeric_order
from edgewise.data.pictures import PictureEncoder, PictureSettings
from edgewise.data.splitting import SPLITS
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Encoder, Item

KEYS = {"x", "label", "group", "name", "split"}
SAMPLE = "a sample is (x, label) or a mapping with x, label and, if wanted, group, name and split"


@dataclass(frozen=True, kw_only=True)
class Settings(TargetSettings, PictureSettings):
    callable: str = option(help="dotted path, package.module:function, importable from the project's folder")
    arguments: dict[str, Any] = option({}, "keyword arguments of the callable")
    watch: tuple[str, ...] = option((), "files whose change makes the data new, besides the callable's own module")
    pictures: bool = option(False, "x is a picture: resized and normalized as all pictures are")
    dtype: str = option(
        "float32", "what the model takes: float32, int64 for ids, uint8 for pictures as they are", choices=("float32", "int64", "uint8")
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.dtype == ("int64" if self.pictures else "uint8"):
            allowed = "float32 or uint8 for pictures" if self.pictures else "float32 or int64 for what is no picture"
            raise ConfigError(f"data.dtype: {self.dtype!r} must be {allowed}")

    def order(self, labels: Any) -> list[str]:
        return numeric_order(labels)


def encoder(settings: Settings, folder: Path) -> Encoder:
    return PictureEncoder(settings, folder) if settings.pictures else ArrayEncoder(settings, folder)


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of the callable's module and of the watched files."""
    paths = [Path(inspect.getfile(sys.modules[find(settings).__module__])), *(Path(path).expanduser() for path in settings.watch)]
    digest = hashlib.sha256()
    for path in paths:
        try:
            digest.update(path.read_bytes())
        except OSError as error:
            raise DataError(f"data.watch: {path}: {error.strerror}; name files that exist") from None
    return {"digest": digest.hexdigest(), "files": len(paths), "bytes": sum(path.stat().st_size for path in paths)}


def find(settings: Settings) -> Callable[..., Iterable[Any]]:
    module, _, name = settings.callable.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"data.callable: {settings.callable!r}: {error}; write it as package.module:function") from None
    if not callable(found):
        raise ConfigError(f"data.callable: {settings.callable!r} is a {type(found).__name__}; it must be callable")
    return found


def items(settings: Settings) -> Iterator[Item]:
    from tqdm import tqdm

    function = find(settings)
    try:
        inspect.signature(function).bind(**settings.arguments)
    except TypeError as error:
        raise ConfigError(f"data.arguments: {settings.callable} {error}; it takes {inspect.signature(function)}") from None
    for number, sample in enumerate(tqdm(samples(function(**settings.arguments)), desc="reading", unit="sample", delay=3, disable=None)):
        yield make_item(number, sample, settings)


def samples(given: Any) -> Iterable[Any]:
    """A torch Dataset has only length and index: it never raises IndexError, so it cannot simply be iterated."""
    if hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, Mapping):
        return (given[i] for i in range(len(given)))
    if not isinstance(given, Iterable) or isinstance(given, (str, Mapping)):
        raise DataError(f"data.callable: gave a {type(given).__name__}; it must give samples one after the other; {SAMPLE}")
    return given


def make_item(number: int, sample: Any, settings: Settings) -> Item:
    if isinstance(sample, tuple) and len(sample) == 2:
        sample = dict(zip(("x", "label"), sample, strict=True))
    if not isinstance(sample, Mapping) or not {"x", "label"} <= set(sample) <= KEYS:
        told = sorted(sample) if isinstance(sample, Mapping) else type(sample).__name__
        raise DataError(f"data.callable: sample {number} is {told}; {SAMPLE}")
    if sample.get("split") not in (None, *SPLITS):
        raise DataError(f"data.callable: sample {number}: split {sample['split']!r}; allowed: {', '.join(SPLITS)}")
    value: Any = to_picture(number, sample["x"]) if settings.pictures else to_arrays(sample["x"])
    group = None if sample.get("group") is None else str(sample["group"])
    digest = content_hash({"x": value} if settings.pictures else value)
    return Item(str(sample.get("name", f"{number:06d}")), settings.label(sample["label"]), group, digest, value, sample.get("split"))


def to_arrays(x: Any) -> dict[str, np.ndarray]:
    return {str(name): np.asarray(array) for name, array in x.items()} if isinstance(x, Mapping) else {"x": np.asarray(x)}


def to_picture(number: int, x: Any) -> np.ndarray:
    image = np.asarray(x)
    image = image[:, :, None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3):
        raise DataError(f"data.callable: sample {number} is {image.dtype} {list(image.shape)}; a picture is uint8 [height, width, 1 or 3]")
    return image
