"""Whether a module or an object has what a Protocol of edgewise/plugins.py asks for: names, types of values, parameters of functions."""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any


def violations(thing: Any, protocol: type) -> list[str]:
    """What `thing` lacks, one line each."""
    found = []
    for name, wanted in typing.get_type_hints(protocol).items():
        if not hasattr(thing, name):
            found.append(f"{name} is missing")
        elif not matches(getattr(thing, name), wanted):
            found.append(f"{name} is {getattr(thing, name)!r}, not {wanted}")
    for name, wanted in vars_of(protocol).items():
        given = getattr(thing, name, None)
        found += parameters(name, given, wanted) if callable(given) else [f"{name}() is missing"]
    return found


def members(protocol: type) -> list[str]:
    """The names of the values and methods that a Protocol declares."""
    return [*typing.get_type_hints(protocol), *vars_of(protocol)]


def vars_of(protocol: type) -> dict[str, Any]:
    """The methods that a Protocol declares, those of its bases too."""
    bases = [base for base in protocol.__mro__ if getattr(base, "_is_protocol", False)]
    return {name: member for base in reversed(bases) for name, member in vars(base).items() if own_method(name, member)}


def own_method(name: str, member: Any) -> bool:
    return inspect.isfunction(member) and not name.startswith("_")


def parameters(name: str, given: Any, wanted: Any) -> list[str]:
    """How the parameters of a function differ from the declared ones. Those with a default in the declaration may be absent, and a
    function may have more if they have a default."""
    declared = list(inspect.signature(wanted).parameters.values())[1:]
    have = list(inspect.signature(given).parameters.values())
    needed = [parameter.name for parameter in declared if parameter.default is parameter.empty]
    optional = {parameter.name for parameter in declared} - set(needed)
    asked = [parameter.name for parameter in have if parameter.default is parameter.empty and parameter.name not in optional]
    if all(parameter.kind is parameter.POSITIONAL_ONLY for parameter in declared):
        needed = asked if len(asked) == len(needed) else needed  # called by position: the names are the plugin's own
    takes = [parameter.name for parameter in have][: len(needed)]
    return [] if asked == needed == takes else [f"{name}{inspect.signature(given)} must take ({', '.join(needed)})"]


def matches(value: Any, wanted: Any) -> bool:
    """Whether a value is of a declared type; of containers the items too."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return True
    if origin in (typing.Union, types.UnionType):
        return any(matches(value, each) for each in inner)
    if origin is tuple:
        inner = inner[:1] if len(inner) == 2 and inner[1] is ... else inner
        return isinstance(value, tuple) and all(matches(item, inner[0]) for item in value)
    if origin is Mapping or origin is dict:
        return isinstance(value, Mapping) and all(matches(k, inner[0]) and matches(v, inner[1]) for k, v in value.items())
    if origin is Sequence:
        return isinstance(value, Sequence) and not isinstance(value, str) and all(matches(item, inner[0]) for item in value)
    return isinstance(value, wanted if isinstance(wanted, type) else object)
