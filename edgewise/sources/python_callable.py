"""The user's own model: any callable, by dotted path, that returns a torch module. Modules in the project's folder are found too."""

import importlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Train
from edgewise.config.settings import nearest, option
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import checkpoint, torch_source
from edgewise.sources.inspection import Inspection, one_line

FORMAT = "torch"
REQUIRES = torch_source.REQUIRES
ISOLATED = False
RECOGNIZED = (".safetensors", ".pt (weights)")  # files that `edgewise inspect` reads with it
CLASSES_ARGUMENTS = ("num_classes", "num_labels", "n_classes", "classes")


@dataclass(frozen=True, kw_only=True)
class Settings(torch_source.Settings):
    callable: str = option(help="dotted path: my_models.RegNet, timm.create_model ...")
    arguments: dict[str, Any] = option({}, "keyword arguments of the callable")
    classes_argument: str | None = option(
        None, f"argument for the number of labels; null: the first that it has of {', '.join(CLASSES_ARGUMENTS)}"
    )


def recognizes(path: Path) -> bool:
    """Whether it is a checkpoint, which needs a model."""
    return path.is_file() and path.suffix in (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


def inspect(path: Path) -> Inspection:
    return checkpoint.inspect(path)


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    return torch_source.obtain(lambda manifest: create(settings, manifest), settings, data, train, seed, folder)


def create(settings: Settings, data: Manifest) -> Any:
    """Build the module. ConfigError if there is no such callable, ModelError if it fails or does not return a torch module."""
    import torch

    make = import_callable(settings.callable)
    name = settings.classes_argument or find_classes_argument(make)
    arguments = {**({name: len(data.labels)} if name else {}), **settings.arguments}
    try:
        module = make(**arguments)
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(
            f"model.callable: {settings.callable}({_format_arguments(arguments)}) failed: {one_line(error)}; fix model.arguments"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise ModelError(f"model.callable: {settings.callable} returned a {type(module).__name__}; it must return a torch.nn.Module")
    return module


def import_callable(path: str) -> Callable[..., Any]:
    """The callable at a dotted path; modules in the current folder, the project's, are found too. ConfigError if there is none."""
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


def find_classes_argument(make: Callable[..., Any]) -> str | None:
    """The parameter for the number of classes, if the signature has one with a usual name."""
    parameters = signature(make).parameters
    return next((name for name in CLASSES_ARGUMENTS if name in parameters), None)


def _format_arguments(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
