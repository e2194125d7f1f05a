"""One section of the configuration: the chosen option, the user's settings over it, checked against a dataclass."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

from stages.composition.options import Options
from stages.core.config import Plugin, to_plain
from stages.core.errors import ConfigError
from stages.core.settings import build

T = TypeVar("T")


def overlay(option: Mapping[str, Any], choice: Mapping[str, Any]) -> dict[str, Any]:
    """`choice` over `option`, mapping by mapping; null in the choice keeps the option's value."""
    joined = dict(option)
    for key, value in choice.items():
        if isinstance(value, Mapping) and isinstance(joined.get(key), Mapping):
            joined[key] = overlay(joined[key], value)
        elif value is not None:
            joined[key] = {k: v for k, v in value.items() if v is not None} if isinstance(value, Mapping) else value
    return joined


def section(cls: type[T], group: str, choice: Any, options: Options) -> T:
    """A section that core.config knows itself: train, bench, budget."""
    name, given = _join(group, choice, options)
    return _build(cls, {"name": name, **given}, group, choice, f"conf/{group}/{name}.yaml")


def plugin(group: str, choice: Any, options: Options) -> Plugin:
    """A section whose option names a module: data, model, device. The module's Settings checks the rest."""
    name, given = _join(group, choice, options)
    file = f"conf/{group}/{name}.yaml"
    path = given.pop("module", None)
    module = load_module(path, file)
    settings = _build(module.Settings, given, group, choice, file)
    return Plugin(name=name, module=path, settings=to_plain(settings))


def load_module(path: Any, file: str) -> ModuleType:
    if not isinstance(path, str):
        raise ConfigError(f"{file}: module: missing; it names the python module of this option, for example stages.data.digits")
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        raise ConfigError(f"{file}: module: {path!r} cannot be imported ({error}); check the spelling of the dotted path") from None


def _join(group: str, choice: Any, options: Options) -> tuple[str, dict[str, Any]]:
    if not isinstance(choice, dict) or not isinstance(choice.get("name"), str):
        raise ConfigError(
            f"params.yaml: {group}: {choice!r} must be a mapping with a name, for example {group}: {{name: {options.names(group)[0]}}}"
        )
    name = choice["name"]
    option = options.load(group, name, f"{group}.name")
    return name, overlay(option, {key: value for key, value in choice.items() if key != "name"})


def _build(cls: type[T], given: Mapping[str, Any], group: str, choice: Mapping[str, Any], file: str) -> T:
    """Build, and say in which file the value stands that is wrong."""
    try:
        return build(cls, given, group)
    except ConfigError as error:
        users = was_chosen(str(error), group, choice) or ": missing;" in str(error)
        raise ConfigError(f"{'params.yaml' if users else file}: {error}") from None


def was_chosen(message: str, group: str, choice: Mapping[str, Any]) -> bool:
    """Whether the key that an error message begins with (group.key.key: ...) has its value from the user's choice."""
    value: Any = choice
    for key in message.split(":", 1)[0].removeprefix(f"{group}.").split("."):
        value = value.get(key.split("[")[0]) if isinstance(value, Mapping) else None
    return value is not None
