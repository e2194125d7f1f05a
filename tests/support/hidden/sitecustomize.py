"""What `pytest --hide openvino,nncf` puts on PYTHONPATH: in every process, those packages are as if they had never been installed."""

import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from typing import Any

HIDDEN = frozenset(filter(None, os.environ.get("EDGEWISE_TESTS_HIDE", "").split(",")))


class Without(PathFinder):
    """The usual finder of modules and distributions, without those that are hidden."""

    @classmethod
    def find_spec(cls, name: str, path: Any = None, target: Any = None) -> Any:
        return None if name.partition(".")[0] in HIDDEN else super().find_spec(name, path, target)

    @staticmethod
    def find_distributions(*given: Any, **named: Any) -> Iterator[Any]:
        found = PathFinder.find_distributions(*given, **named)
        return (distribution for distribution in found if distribution.metadata["Name"].replace("-", "_") not in HIDDEN)


if HIDDEN:
    sys.meta_path[:] = [Without if finder is PathFinder else finder for finder in sys.meta_path]
