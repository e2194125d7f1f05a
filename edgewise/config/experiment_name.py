"""What a project's results are called in MLflow, where the user gives no name: after the model and the data that they are about."""

import re
from pathlib import Path
from typing import Any

from edgewise.config.schema import Plugin
from edgewise.errors import ConfigError

FORBIDDEN = re.compile(r"[^\w.-]+")  # in the name of a registered model; the experiment has the same name
NO_NAMES = ("data", "dataset", "train", "model", "images")  # a file or folder of this name is called after the folder around it


def name_experiment(given: Any, model: Plugin, data: Plugin) -> str:
    """given: `experiment` of params.yaml. Raises ConfigError for what cannot be a name."""
    if given is None:
        return f"{subject(model)}-{subject(data)}"
    if not isinstance(given, str) or not given or FORBIDDEN.search(given):
        raise ConfigError(f"params.yaml: experiment: {given!r} must be a name of letters, digits, '.', '_' and '-', for example tiles")
    return given


def subject(plugin: Plugin) -> str:
    """The name of the user's file or folder, or the last word of his callable; where he brings neither, the option's name."""
    path, function = plugin.settings.get("path"), plugin.settings.get("callable")
    if path:
        place = Path(path)
        found = next((part for part in (place.stem, *(parent.name for parent in place.parents)) if part and part not in NO_NAMES), "")
    else:
        found = re.split(r"[.:]", function)[-1] if function else ""
    return FORBIDDEN.sub("-", found).strip("-.") or plugin.name
