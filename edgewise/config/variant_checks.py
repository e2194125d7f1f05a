"""What the settings of a variant may be: its name, the keys that its format has for the scheme, and their values."""

from collections.abc import Mapping
from typing import Any

from edgewise.config.schema import VARIANT_NAME, Variant
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError


def check_name(name: str, form: str, scheme: str, where: str) -> None:
    wanted = f"{form}-{scheme}"
    if not VARIANT_NAME.fullmatch(name) or not (name == wanted or name.startswith(f"{wanted}-")):
        raise ConfigError(
            f"{where}: a variant is named <format>-<scheme>[-more] in small letters and digits; here {wanted} or {wanted}-mine"
        )


def check_keys(given: Mapping[str, Any], defaults: Mapping[str, Any], whose: str, where: str) -> None:
    """ConfigError for settings that the format's yaml does not list for this scheme, at any depth."""
    for key, value in given.items():
        if value is not None and key not in defaults:
            raise ConfigError(f"{where}.{key}: unknown setting of {whose}; {nearest(key, defaults)}")
        if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
            check_keys(value, defaults[key], whose, f"{where}.{key}")


def check_removed(made: Variant, defaults: Mapping[str, Any], where: str) -> None:
    """ConfigError for a setting of the scheme that the word `none` has removed: without it a file cannot be made."""
    for key, default in defaults.items():
        if default is not None and getattr(made, key) is None:
            raise ConfigError(f"{where}.{key}: none; {made.scheme} needs it: leave it out to have {default}, or change what is in it")


def check_values(given: Mapping[str, Any], allowed: Mapping[str, tuple[Any, ...] | range | None], where: str) -> None:
    """ConfigError for values that the format's tool does not have.

    allowed: SETTINGS of make.py or ENGINE of run.py, dotted setting -> allowed values; None: not checked here.
    """
    for dotted, values in allowed.items():
        value: Any = given
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None or values is None or (value in values and type(value) in map(type, values)):
            continue
        hint = f"allowed: from {values[0]} to {values[-1]}" if isinstance(values, range) else nearest(value, map(str, values))
        raise ConfigError(f"{where}.{dotted}: {value!r}; {hint}")
