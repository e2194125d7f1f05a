"""What a format's run.py needs on the device: one runtime, and for some the packages that it stands on. Standard library; Python 3.9."""

from __future__ import annotations

import importlib
from typing import Any, Dict


def list_packages(runner: Any) -> Dict[str, str]:
    """Import name -> what pip installs for it, in the order in which they are imported: the runtime is the last.

    runner: a run.py, or a profile.py, which has COMPANIONS only where there are any."""
    companions = {name: package for name, (package, _) in getattr(runner, "COMPANIONS", {}).items()}
    return {**companions, runner.RUNTIME: runner.PACKAGE}


def import_packages(runner: Any) -> None:
    """Import all of them. ImportError for the first that cannot be."""
    for name in list_packages(runner):
        importlib.import_module(name)


def find_oldest(runner: Any) -> Dict[str, str]:
    """What pip installs -> the oldest release that runs the files of the format."""
    return {**dict(getattr(runner, "COMPANIONS", {}).values()), runner.PACKAGE: runner.OLDEST}
