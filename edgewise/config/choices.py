"""What compose makes of the user's choices where no dataclass says it: the name of the experiment, the tracking store, the settings of a
variant, and margins.

Without a name, a project's results are called in MLflow after the model and the data that they are about. A variant is named after its
format and scheme, and has the keys that its format has for the scheme, with the values of its tool.

bench.margin and task.margin are the largest differences that do not matter to the user. They are taken out of their sections into one of
their own, `margins`, on which `report` alone depends: another margin judges anew what was measured, and measures nothing.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.config.schema import VARIANT_NAME, Margins, Plugin, Variant
from edgewise.config.settings import build, nearest
from edgewise.errors import ConfigError

FORBIDDEN = re.compile(r"[^\w.-]+")  # in the name of a registered model; the experiment has the same name
TRACKING_URI = "MLFLOW_TRACKING_URI"  # MLflow's own variable
STORES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql")  # what MLflow keeps runs in; a driver may follow a +
NO_NAMES = ("data", "dataset", "train", "model", "images")  # a file or folder of this name is called after the folder around it
MARGIN = "margin"
MARGINS = {"bench": "latency", "task": "score"}  # section that has the key -> field of Margins
MOST_POINTS = 100.0


def name_experiment(given: Any, model: Plugin, data: Plugin) -> str:
    """given: `experiment` of params.yaml. Raises ConfigError for what cannot be a name."""
    if given is None:
        return f"{subject(model)}-{subject(data)}"
    if not isinstance(given, str) or not given or FORBIDDEN.search(given):
        raise ConfigError(f"params.yaml: experiment: {given!r} must be a name of letters, digits, '.', '_' and '-', for example tiles")
    return given


def check_tracking_uri(given: Any) -> str | None:
    """given: `tracking_uri` of params.yaml. Raises ConfigError for what MLflow cannot write to, and for a password in a file of git."""
    if given is None:
        return None
    found = re.fullmatch(r"(?P<store>[a-z]+)(\+\w+)?://(?P<user>[^/@]*@)?.+", given) if isinstance(given, str) else None
    if found is None or found["store"] not in STORES:
        raise ConfigError(
            f"params.yaml: tracking_uri: {given!r} must be the address of an MLflow server or database, for example "
            f"http://tracking:5000 ({', '.join(STORES)}); null: mlflow.db in the project"
        )
    if ":" in (found["user"] or ""):
        raise ConfigError(
            f"params.yaml: tracking_uri: has a password, and params.yaml goes into git; give the address in the variable {TRACKING_URI} "
            "instead, or the password in MLFLOW_TRACKING_PASSWORD"
        )
    return str(given)


def choose_tracking_uri(setting: str | None) -> str | None:
    """Where runs are written: what the environment says, else the setting; None: mlflow.db in the project."""
    return os.environ.get(TRACKING_URI) or setting


def subject(plugin: Plugin) -> str:
    """The name of the user's file or folder, or the last word of his callable; where he brings neither, the option's name."""
    path, function = plugin.settings.get("path"), plugin.settings.get("callable")
    if path:
        place = Path(path)
        found = next((part for part in (place.stem, *(parent.name for parent in place.parents)) if part and part not in NO_NAMES), "")
    else:
        found = re.split(r"[.:]", function)[-1] if function else ""
    return FORBIDDEN.sub("-", found).strip("-.") or plugin.name


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


def without_margin(group: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a section that its dataclass or its plugin knows."""
    return {key: value for key, value in given.items() if key != MARGIN or group not in MARGINS}


def find_margins(joined: Mapping[str, tuple[str, Mapping[str, Any]]], choices: Mapping[str, Any], task: Plugin) -> Margins:
    """joined: of each section the name of its option, and its settings. ConfigError for a value that is not allowed, and for a margin of
    a task that judges nothing."""
    found = {field: _check_margin(group, field, joined[group], choices[group]) for group, field in MARGINS.items()}
    metric = task.load().PRIMARY_METRIC
    if found["score"] is not None and metric is None:
        raise ConfigError(
            f"params.yaml: task.margin: {found['score']!r}, but the task '{task.name}' has no score that could be equivalent; remove it,"
            " or limit the outputs with budget.sqnr_db"
        )
    if found["score"] is not None and metric.share and found["score"] > MOST_POINTS:
        raise ConfigError(
            f"params.yaml: task.margin: {found['score']!r} must be at most {MOST_POINTS:g}: it is in percentage points of {metric.label};"
            " 0.5 is half a point"
        )
    return Margins(**found)


def _check_margin(group: str, field: str, joined: tuple[str, Mapping[str, Any]], choice: Mapping[str, Any]) -> float | None:
    """One margin; the error names the key as the user wrote it, and the file that holds it."""
    name, given = joined
    try:
        margin: float | None = getattr(build(Margins, {field: given.get(MARGIN)}, group), field)
    except ConfigError as error:
        file = f"conf/{group}/{name}.yaml" if choice.get(MARGIN) is None else "params.yaml"
        raise ConfigError(f"{file}: {str(error).replace(f'{group}.{field}', f'{group}.{MARGIN}')}") from None
    return margin
