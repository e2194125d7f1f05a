"""Run a file on the inputs that are suggested for it, in a process of its own: whether it takes them, and what it gives."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml

from edgewise.agent import preprocess
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import part
from edgewise.config.settings import build
from edgewise.data.encoders import PictureSettings
from edgewise.errors import EdgewiseError, ModelError
from edgewise.plugins import Item, Session
from edgewise.proof import isolation
from edgewise.sources.inspection import one_line
from edgewise.sources.oracle import Oracle, fit_ports

Arrays = dict[str, np.ndarray]
SAMPLES = 3  # with which the oracle finds out which axes of outputs count samples


@dataclass(frozen=True)
class Tried:
    """outputs: by their names in the pipeline, samples first. error: why it could not be run, in the words of what ran it."""

    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)
    error: str | None = None


def read_items(data: Mapping[str, Any], conf: Path, count: int = SAMPLES) -> tuple[list[Item], Any]:
    """The first samples of a data section, as often as it takes to have so many, and its settings. Raises ConfigError, DataError."""
    option = yaml.safe_load((conf / "data" / f"{data['name']}.yaml").read_text(encoding="utf-8"))
    package, _, name = option.pop("module").rpartition(".")
    module = part(package, name)
    given = {**option, **{key: value for key, value in data.items() if key != "name" and value is not None}}
    settings = build(module.Settings, given, "data")
    found = list(islice((item for item in module.items(settings) if isinstance(item, Item)), count))
    return [found[i % len(found)] for i in range(max(len(found), SAMPLES))] if found else [], settings


def make_feeds(items: Sequence[Item], settings: Any) -> Arrays:
    """[n, ...] as the model takes them. Nothing for sentences, whose tokenizer is made from all of them."""
    if items and isinstance(settings, PictureSettings):
        spec = settings.spec
        return {"image": preprocess.normalize(np.stack([preprocess.resize_to_spec(item.value, spec) for item in items]), spec)}
    arrays: Any = [item.value for item in items if isinstance(item.value, dict)]
    dtype = getattr(settings, "dtype", "stored")
    stacked = {name: np.stack([value[name] for value in arrays]) for name in (arrays[0] if arrays else ())}
    return {name: array if dtype == "stored" else array.astype(dtype) for name, array in stacked.items()}


def find_opener(importer: ModuleType) -> Callable[[Path], Session] | None:
    """What opens a file of this kind as a session; None where nothing does, as for weights alone."""
    return getattr(importer, "open_session", None) or getattr(importer, "FileSession", None)


def run(importer: str, path: Path, model: Mapping[str, Any], feeds: Sequence[Arrays], labels: Sequence[str] = ()) -> list[Tried]:
    """The outputs for each of the feeds. importer: dotted path of the source's module. model: its section of params.yaml."""

    def aborted(how: str) -> ModelError:
        return ModelError(f"it aborts the runtime ({how})")

    try:
        return isolation.call_isolated(_run, importer, path, dict(model), list(feeds), tuple(labels), aborted=aborted)
    except (EdgewiseError, ModuleNotFoundError, OSError) as error:
        return [Tried(error=one_line(error))] * len(feeds)


def _run(importer: str, path: Path, model: Mapping[str, Any], feeds: Sequence[Arrays], labels: Sequence[str]) -> list[Tried]:
    package, _, name = importer.rpartition(".")
    module = part(package, name)
    settings = build(module.Settings, {key: value for key, value in model.items() if key != "name"}, "model")
    inputs = tuple(Port(name, (None, *array.shape[1:]), str(array.dtype)) for name, array in feeds[0].items())
    manifest = Manifest(kind="data", inputs=inputs, labels=tuple(labels))
    try:
        opener = find_opener(module)
        if opener is None:
            return [Tried()] * len(feeds)
        session = opener(path)
        oracle = Oracle(session, fit_ports(path, settings, session, manifest, {name: array[:SAMPLES] for name, array in feeds[0].items()}))
        return [Tried(oracle.run(each)) for each in feeds]
    except EdgewiseError:
        raise
    except Exception as error:  # whatever the runtime raises: the suggestion is then printed without having been tried
        raise ModelError(f"{type(error).__name__}: {one_line(error)}") from error
