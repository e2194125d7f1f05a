"""What `pytest --hide openvino,nncf` puts on PYTHONPATH: in every process, those packages are as if they had never been installed.

With EDGEWISE_TESTS_MODULES=FOLDER each process that a stage starts, the stage itself included, adds the modules of the library that it
has imported to FOLDER/STAGE.txt when it ends, one a line.
"""

import atexit
import os
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path
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


def record(folder: str, stage: str) -> None:
    names = sorted(name for name in sys.modules if name.partition(".")[0] == "edgewise")
    with Path(folder, f"{stage}.txt").open("a", encoding="utf-8") as stream:
        stream.write("".join(f"{name}\n" for name in names))


MODULES = os.environ.get("EDGEWISE_TESTS_MODULES")
STARTED = next((" ".join(sys.orig_argv[place:]) for place, word in enumerate(sys.orig_argv) if word.startswith("stages.")), None)
if STARTED:
    os.environ["EDGEWISE_TESTS_STAGE"] = STARTED
if MODULES and "EDGEWISE_TESTS_STAGE" in os.environ:
    atexit.register(record, MODULES, os.environ["EDGEWISE_TESTS_STAGE"])
