"""YAML as OmegaConf reads it, without OmegaConf where a file has none of its features.

Importing OmegaConf and parsing in Python take half of the time of compose, which runs at each `dvc repro`.
"""

import re
from pathlib import Path
from typing import Any

import yaml

PLAIN_KEY = "tag:yaml.org,2002:str"
FLOAT, TIMESTAMP = "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp"
NUMBER = re.compile(  # what OmegaConf takes for a float (omegaconf._utils.get_yaml_loader): 1e-3, which YAML 1.1 reads as a string, too
    r"""^(?:[-+]?[0-9]+(?:_[0-9]+)*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?:[eE][-+]?[0-9]+)
    |\.[0-9]+(?:_[0-9]+)*(?:[eE][-+][0-9]+)?
    |[-+]?[0-9]+(?:_[0-9]+)*(?::[0-5]?[0-9])+\.[0-9_]*
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.VERBOSE,
)
INTERPOLATION = "${"


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # PyYAML may come without its parser in C
    """Refuses a key that is there twice; dates stay strings."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag == PLAIN_KEY]
        if len(keys) != len(set(keys)):
            raise yaml.constructor.ConstructorError(None, None, "found duplicate key", node.start_mark)
        found: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return found


Loader.add_implicit_resolver(FLOAT, NUMBER, list("-+0123456789."))
Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != TIMESTAMP] for first, resolvers in Loader.yaml_implicit_resolvers.items()
}


def read_mapping(path: Path) -> dict[Any, Any] | None:
    """The content of a file. None where OmegaConf has to read it: with an interpolation, a value or a key of another kind than JSON has, or
    a mistake, of which it tells more."""
    try:
        text = path.read_text(encoding="utf-8")
        found = None if INTERPOLATION in text else yaml.load(text, Loader=Loader)
    except (OSError, ValueError, yaml.YAMLError):
        return None
    return found if isinstance(found, dict) and is_plain(found) else None


def is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(type(key) is str for key in value) and all(map(is_plain, value.values()))
    return all(map(is_plain, value)) if isinstance(value, list) else value is None or type(value) in (bool, int, float, str)
