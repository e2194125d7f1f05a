"""Build a frozen dataclass from a mapping, or raise a ConfigError that names the key, the bad value and what is allowed.

    @dataclass(frozen=True)
    class Settings:
        image_size: int = option(64, "side of the square that pictures are resized to, in pixels", low=8, high=2048)

    settings = build(Settings, {"image_size": 96}, "data")

Fields may have the types int, float, str, bool, X | None, tuple[X, ...], dict[str, X], Literal, and other such dataclasses.

In params.yaml null keeps the value of the option's yaml. The word `none` sets a field of type X | None to None, unless X is str, for which
it is an ordinary string.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

from edgewise.errors import ConfigError

T = TypeVar("T")
REQUIRED = dataclasses.MISSING
NONE = "none"  # removes a number or a list that an option's yaml sets


def option(
    default: Any = REQUIRED,
    help: str = "",
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    """A dataclass field with a help text and the values that are allowed: an inclusive range, or a list of choices."""
    metadata = {"help": help, "low": low, "high": high, "choices": choices}
    if isinstance(default, (dict, list)):
        return dataclasses.field(default_factory=lambda: type(default)(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def nearest(word: object, allowed: Iterable[str]) -> str:
    """'allowed: a, b', preceded by 'did you mean' if the word looks like a typo of one of them."""
    names = sorted("null" if a is None else str(a) for a in allowed)
    close = difflib.get_close_matches(str(word), names, n=1)
    hint = f"did you mean '{close[0]}'? " if close else ""
    return f"{hint}allowed: {', '.join(names) or 'nothing'}"


def build(cls: type[T], given: Mapping[str, Any], where: str) -> T:
    """Check `given` against the fields of `cls`. ConfigError names `where`.key, the bad value and what is allowed."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"{where}: {given!r} is a {type(given).__name__}, must be a mapping of settings")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in given:
        if key not in fields:
            raise ConfigError(f"{where}.{key}: unknown setting; {nearest(key, fields)}")
    values = {}
    for name, field in fields.items():
        place = f"{where}.{name}"
        if name in given:
            values[name] = _check_limits(_convert(hints[name], given[name], place), field, place)
        elif field.default is REQUIRED and field.default_factory is REQUIRED:
            raise ConfigError(f"{place}: missing; give it as {place}=VALUE ({field.metadata.get('help') or hints[name]})")
    return cls(**values)


def _convert(kind: Any, value: Any, place: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return value
    if value == "???":
        raise ConfigError(f"{place}: missing; give it as {place}=VALUE")
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return _optional(next(a for a in arguments if a is not type(None)), value, place)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{place}: {value!r}; {nearest(value, arguments)}")
        return value
    if dataclasses.is_dataclass(kind):
        return build(typing.cast(type, kind), value, place)
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Iterable) or isinstance(value, Mapping):
            raise ConfigError(f"{place}: {value!r} must be a list")
        return tuple(_convert(arguments[0], v, f"{place}[{i}]") for i, v in enumerate(value))
    if origin is dict or kind is dict:
        if not isinstance(value, Mapping):
            raise ConfigError(f"{place}: {value!r} must be a mapping")
        inner = arguments[1] if arguments else Any
        return {str(k): _convert(inner, v, f"{place}.{k}") for k, v in value.items()}
    return _scalar(kind, value, place)


def _optional(kind: Any, value: Any, place: str) -> Any:
    if kind is str or not isinstance(value, str):
        return _convert(kind, value, place)
    if value == NONE:
        return None
    try:
        return _convert(kind, value, place)
    except ConfigError as error:
        raise ConfigError(f"{error}, or {NONE} to remove the value of the option's yaml") from None


def _scalar(kind: Any, value: Any, place: str) -> Any:
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:  # an integer of more than 308 digits
            number = math.inf
        if not math.isfinite(number):
            raise ConfigError(f"{place}: {str(value)[:20]} must be a finite number")
        return number
    if kind is float and isinstance(value, str):
        try:  # YAML 1.1 reads 1e-3 as a string, Hydra as a number
            return _scalar(float, float(value), place)
        except ValueError:
            pass
    if isinstance(value, bool) != (kind is bool) or not isinstance(value, kind):
        names = {int: "an integer", float: "a number", str: "a string", bool: "true or false"}
        raise ConfigError(f"{place}: {value!r} must be {names.get(kind, kind)}")
    return value


def _check_limits(value: Any, field: dataclasses.Field[Any], place: str) -> Any:
    low, high, choices = (field.metadata.get(k) for k in ("low", "high", "choices"))
    if value is None:
        return value
    if choices and value not in choices:
        raise ConfigError(f"{place}: {value!r}; {nearest(value, choices)}")
    if low is not None and value < low or high is not None and value > high:
        limits = " and ".join(
            part for part in (f"at least {low}" if low is not None else "", f"at most {high}" if high is not None else "") if part
        )
        raise ConfigError(f"{place}: {value!r} must be {limits}")
    return value
