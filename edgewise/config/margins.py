"""bench.margin and task.margin of params.yaml: the largest differences that do not matter to the user.

They are taken out of their sections into one of their own, `margins`, on which `report` alone depends: another margin judges anew what was
measured, and measures nothing.
"""

from collections.abc import Mapping
from typing import Any

from edgewise.config.schema import Margins, Plugin
from edgewise.config.settings import build
from edgewise.errors import ConfigError

KEY = "margin"
MARGINS = {"bench": "latency", "task": "score"}  # section that has the key -> field of Margins
MOST_POINTS = 100.0


def without_margin(group: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a section that its dataclass or its plugin knows."""
    return {key: value for key, value in given.items() if key != KEY or group not in MARGINS}


def find_margins(joined: Mapping[str, tuple[str, Mapping[str, Any]]], choices: Mapping[str, Any], task: Plugin) -> Margins:
    """joined: of each section the name of its option, and its settings. ConfigError for a value that is not allowed, and for a margin of
    a task that judges nothing."""
    found = {field: _check(group, field, joined[group], choices[group]) for group, field in MARGINS.items()}
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


def _check(group: str, field: str, joined: tuple[str, Mapping[str, Any]], choice: Mapping[str, Any]) -> float | None:
    """One margin; the error names the key as the user wrote it, and the file that holds it."""
    name, given = joined
    try:
        margin: float | None = getattr(build(Margins, {field: given.get(KEY)}, group), field)
    except ConfigError as error:
        file = f"conf/{group}/{name}.yaml" if choice.get(KEY) is None else "params.yaml"
        raise ConfigError(f"{file}: {str(error).replace(f'{group}.{field}', f'{group}.{KEY}')}") from None
    return margin
