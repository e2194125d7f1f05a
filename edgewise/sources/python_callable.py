"""The user's own model: any callable, by dotted path, that returns a torch module. Found from the project's top folder too."""

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Train
from edgewise.config.settings import nearest, option
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import checkpoint, trained
from edgewise.sources.inspection import Inspection
from edgewise.sources.torch_source import one_line

FORMAT = "torch"
REQUIRES = trained.REQUIRES
ISOLATED = False
RECOGNIZED = (".safetensors", ".pt (weights)")  # what edgewise.inspect.command shows it
CLASSES = ("num_classes", "num_labels", "n_classes", "classes")


@dataclass(frozen=True, kw_only=True)
class Settings(trained.Settings):
    callable: str = option(help="dotted path: torchvision.models.resnet18, my_models.make ...")
    arguments: dict[str, Any] = option({}, "its keyword arguments")
    classes_argument: str | None = option(None, f"argument that takes the number of labels; null: whichever it has of {', '.join(CLASSES)}")


def recognizes(path: Path) -> bool:
    """A checkpoint of weights, which a model of the user's own may continue from."""
    return path.is_file() and path.suffix in (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


def look(path: Path) -> Inspection:
    return checkpoint.describe(path)


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    return trained.obtain(lambda manifest: create(settings, manifest), settings, data, train, seed, folder)


def create(settings: Settings, data: Manifest) -> Any:
    """Call it. ConfigError or ModelError where there is no such callable, or it does not return a torch module."""
    import torch

    make = find(settings.callable)
    name = settings.classes_argument or classes_argument(make)
    arguments = {**({name: len(data.labels)} if name else {}), **settings.arguments}
    try:
        module = make(**arguments)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"model.callable: {settings.callable}({_call(arguments)}) failed: {one_line(error)}; mend model.arguments"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"model.callable: {settings.callable} returned a {type(module).__name__}; it must return a torch.nn.Module")
    return module


def find(path: str) -> Callable[..., Any]:
    """The object at a dotted path. The current folder, the project's, is where the user's own code is looked for."""
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise ConfigError(f"model.callable: {path!r} must be a dotted path: MODULE.FUNCTION")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(
            f"model.callable: {module_name!r} cannot be imported ({error}); check the path, or install what it needs"
        ) from error
    if not callable(getattr(module, name, None)):
        names = [n for n, value in vars(module).items() if callable(value) and not n.startswith("_")]
        raise ConfigError(f"model.callable: {module_name} has no callable {name!r}; {nearest(name, names)}")
    found: Callable[..., Any] = getattr(module, name)
    return found


def classes_argument(make: Callable[..., Any]) -> str | None:
    """The parameter for the number of classes, where the signature names one."""
    parameters = inspect.signature(make).parameters
    return next((name for name in CLASSES if name in parameters), None)


def _call(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
