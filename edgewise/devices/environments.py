"""Python environments of their own, each with one release of a runtime, on this machine: .edgewise/environments.

pip installs from the index that the user has configured. An environment is complete or not there.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgewise.devices import local, shipping
from edgewise.errors import InfrastructureError, UserError

FOLDER = Path(".edgewise/environments")
REQUIREMENT = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)")
READY = "requirement.txt"  # written last
NO_SUCH = ("No matching distribution found", "Could not find a version", "ResolutionImpossible")
INSTALL_S = 1800.0


@dataclass(frozen=True)
class Requirement:
    """One release of a package of pip."""

    package: str
    version: str

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """PACKAGE==VERSION. UserError for anything else, as that would not name one release."""
        found = REQUIREMENT.fullmatch(text.strip())
        if not found:
            raise UserError(f"{text!r} is not a release; give PACKAGE==VERSION, for example onnxruntime==1.20.1")
        return cls(*found.groups())

    def __str__(self) -> str:
        return f"{self.package}=={self.version}"


def make_environment(requirement: Requirement, others: Sequence[str] = ("numpy",), folder: Path = FOLDER) -> Path:
    """The Python of an environment that has the release and `others`; made where it is not there yet."""
    place = folder.resolve() / f"{requirement.package}-{requirement.version}-py{sys.version_info.major}.{sys.version_info.minor}"
    if not (place / READY).exists():
        with building(place):
            run_or_explain([sys.executable, "-m", "venv", str(place)], requirement)
            pip = [str(python_of(place)), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--only-binary=:all:"]
            run_or_explain([*pip, str(requirement), *others], requirement)
            (place / READY).write_text(f"{requirement}\n", encoding="utf-8")
    return python_of(place)


def python_of(place: Path) -> Path:
    return place / "bin" / "python"


@contextmanager
def building(place: Path) -> Iterator[None]:
    """Remove what is left of an environment where the block fails."""
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise


def run_or_explain(command: Sequence[str], requirement: Requirement) -> None:
    """UserError where pip knows no such release for this Python and machine, InfrastructureError where anything else fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise InfrastructureError(
            f"{requirement} was not installed within {INSTALL_S / 60:.0f} minutes; is the index of pip in reach?"
        ) from None
    if done.returncode == 0:
        return
    said = " ".join((done.stderr or done.stdout).split())[-600:]
    if any(words in said for words in NO_SUCH):
        raise UserError(
            f"{requirement}: no such release for Python {sys.version_info.major}.{sys.version_info.minor} here; pip says: {said}"
        )
    raise InfrastructureError(f"{requirement} could not be installed; pip says: {said}")


def ship_code(runner: str, folder: Path) -> Path:
    """The agent and a runner in a folder of their own, so that another environment imports no package of this one."""
    for name, source in shipping.code_tree(runner).files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, folder / name)
    return folder


class Environment(local.LocalDevice):
    """This machine, with the agent run by another Python. A side of a pair says in `python` which one runs it."""

    def __init__(self, python: Path, code: Path):
        super().__init__((str(python), "-m", "edgewise.agent.program"))
        self.code = code

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        return {**kept, "PYTHONPATH": str(self.code), "PYTHONSAFEPATH": "1"}  # not the project's folder, which may be a checkout
