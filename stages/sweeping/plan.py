"""The plan of a sweep: all that its points share, written once at the start, read by every job wherever it runs."""

import hashlib
import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from stages.composition.options import Options
from stages.core.artifact import write_json
from stages.core.config import to_plain
from stages.core.errors import ConfigError
from stages.core.settings import build, nearest
from stages.sweeping.clone import Parent
from stages.sweeping.code import Code
from stages.sweeping.points import Overrides, Point, point

HOME = Path(".edgewise")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
MAXIMIZE, MINIMIZE = "maximize", "minimize"
OBJECTIVES = {"latency_ratio_to_reference": MINIMIZE, "size_bytes": MINIMIZE}  # beside the primary metric of the task


@dataclass(frozen=True)
class Plan:
    """params: the text of params.yaml at the start. keys: what differs from point to point. objectives: name in the
    rows of metrics/summary.json -> direction. subject: the one variant that a search is about. targets: of `dvc repro`."""

    name: str
    root: str
    cache: str
    code: Code
    params: str
    arguments: tuple[str, ...]
    keys: tuple[str, ...]
    targets: tuple[str, ...]
    searched: bool = False
    subject: str | None = None
    objectives: dict[str, str] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        return folder_of(Path(self.root), self.name)

    @property
    def warm(self) -> Path:
        """The clone in which the common stages were run."""
        return self.folder / "warm"

    @property
    def done(self) -> Path:
        """Where the outcomes of all sweeps lie, by the name of the point."""
        return Path(self.root) / HOME / "points"

    @property
    def parent(self) -> Parent:
        return Parent(Path(self.root), self.code, Path(self.cache))

    @cached_property
    def options(self) -> Options:
        return Options(self.warm / "conf")

    def point(self, overrides: Overrides) -> Point:
        return point(self.params, overrides, self.options)


def folder_of(root: Path, name: str) -> Path:
    return root / HOME / "sweeps" / name


def write(plan: Plan) -> None:
    write_json(plan.folder / "plan.json", to_plain(plan))


def read(folder: Path) -> Plan:
    path = folder / "plan.json"
    try:
        return build(Plan, json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        known = sorted(p.name for p in folder.parent.glob("*")) if folder.parent.exists() else []
        raise ConfigError(f"there is no sweep {folder.name!r}; {nearest(folder.name, known)}") from None


def take_name(arguments: list[str]) -> tuple[str, list[str]]:
    """The sweep's name, given by --name or made from what is swept, and the arguments without it.

    The same points have the same name, whatever launches them: hydra.* and hydra/* take no part.
    """
    if "--name" not in arguments:
        return made_name([argument for argument in arguments if not argument.startswith(("hydra.", "hydra/"))]), arguments
    place = arguments.index("--name")
    name, rest = "".join(arguments[place + 1 : place + 2]), arguments[:place] + arguments[place + 2 :]
    if not NAME.fullmatch(name):
        raise ConfigError(f"--name {name!r}: use letters, digits, - and _, for example --name first")
    return name, rest


def made_name(arguments: list[str]) -> str:
    """The last words of the swept keys, and a hash of all arguments."""
    pairs = [argument.partition("=") for argument in arguments]
    words = [value if key.lstrip("+") == "search" else key.rpartition(".")[2] for key, _, value in pairs if "," in value or "search" in key]
    digest = hashlib.sha256("\n".join(sorted(arguments)).encode()).hexdigest()[:8]
    return "-".join([*(re.sub(r"\W", "", word) for word in words[:3]), digest])
