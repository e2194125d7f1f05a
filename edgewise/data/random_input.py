"""Random inputs for a first look at a model's speed and size, where there is no data yet. Everything that is made of them is marked so.

data.inputs: {audio: {shape: [512], range: [-1, 1]}, ids: {shape: [64], dtype: int64, range: [0, 30521]}}
"""

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from edgewise.artifacts.targets import NONE
from edgewise.config.settings import option
from edgewise.data.common import DataSettings
from edgewise.data.encoders import PORT_TYPES, STORED, ArrayEncoder, check_name, content_hash
from edgewise.data.splitting import RANDOM
from edgewise.errors import ConfigError
from edgewise.plugins import Item

__all__ = ["Settings", "encoder", "items", "probe"]

encoder = ArrayEncoder
EXAMPLE = "data.inputs={image: {shape: [3, 224, 224], range: [0, 1]}}"


@dataclass(frozen=True, kw_only=True)
class RandomInput:
    """One input of the model: numbers drawn alike from a range; of integers both ends are drawn, too."""

    shape: tuple[int, ...] = option(help="sizes without the number of samples: [3, 224, 224]; [] for one number")
    dtype: str = option("float32", choices=PORT_TYPES)
    range: tuple[float, ...] | None = option(None, "smallest and largest value; null: 0 to 1, for integers 0 to 1")

    def check(self, where: str) -> None:
        """ConfigError for sizes below one, and for limits that the type cannot hold."""
        if any(size < 1 for size in self.shape):
            raise ConfigError(f"{where}.shape: {list(self.shape)} must be sizes of at least 1, without the number of samples")
        if len(self.limits) != 2 or self.limits[0] > self.limits[1]:
            raise ConfigError(f"{where}.range: {list(self.limits)} must be a smallest and a largest number, for example [0, 1]")
        if (kind := np.dtype(self.dtype)).kind == "f":
            return
        low, high = (0, 1) if kind.kind == "b" else (np.iinfo(kind).min, np.iinfo(kind).max)
        if not all(float(limit).is_integer() and low <= limit <= high for limit in self.limits):
            raise ConfigError(f"{where}.range: {list(self.limits)} must be integers from {low} to {high}, which {self.dtype} holds")

    @property
    def limits(self) -> tuple[float, ...]:
        return (0, 1) if self.range is None else self.range

    def draw(self, generator: np.random.Generator) -> np.ndarray:
        """One sample."""
        low, high = self.limits
        if np.dtype(self.dtype).kind == "f":
            return np.asarray(generator.uniform(low, high, self.shape), self.dtype)
        return np.asarray(generator.integers(int(low), int(high), self.shape, endpoint=True), self.dtype)


@dataclass(frozen=True, kw_only=True)
class Settings(DataSettings):
    declared: ClassVar[str | None] = RANDOM
    targets: str = option(NONE, "random inputs have no labels", choices=(NONE,))
    inputs: dict[str, RandomInput] = option({}, f"the inputs of the model by name: {EXAMPLE}")
    samples: int = option(64, "number of samples", low=10, high=1_000_000)
    seed: int = option(0, "seed of the values", low=0)
    dtype: ClassVar[str] = STORED

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.inputs:
            raise ConfigError(f"data.inputs: empty; name the model's inputs with their shapes, for example {EXAMPLE}")
        for name, given in self.inputs.items():
            check_name(name)
            given.check(f"data.inputs.{name}")


def probe(settings: Settings) -> Mapping[str, Any]:
    """The values depend on the settings, which are parameters of the stage, and on numpy's generators."""
    return {"digest": hashlib.sha256(np.__version__.encode()).hexdigest(), "files": 0, "bytes": 0, "targets": NONE}


def items(settings: Settings) -> Iterator[Item]:
    """Each input has values of its own, whatever other inputs there are."""
    for number in range(settings.samples):
        value = {
            name: given.draw(np.random.default_rng([settings.seed, number, zlib.crc32(name.encode())]))
            for name, given in settings.inputs.items()
        }
        yield Item(f"{number:06d}", None, f"{number:06d}", content_hash(value), value)
