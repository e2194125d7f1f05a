"""The stages whose results are the same in every point: done once, in a clone of their own, before any point runs.

A stage is common when the settings that dvc.yaml lists for it are the same in all points, and so is all that it builds on.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import write_json
from edgewise.config.compose import Options
from edgewise.config.schema import PATH, Config, to_plain
from edgewise.config.settings import build, nearest
from edgewise.errors import ConfigError
from edgewise.sweep.clone import Code, Parent
from edgewise.sweep.points import Overrides, Point, point

COMPOSE, LAST = "compose", "report"  # the first always differs, by its settings; the last is what a point is for


@dataclass(frozen=True)
class Stage:
    """One stage of dvc.yaml, foreach resolved. settings: dotted keys of models/config.yaml; paths are relative to the project."""

    name: str
    settings: tuple[str, ...]
    deps: tuple[str, ...]
    outs: tuple[str, ...]


def read_stages(folder: Path) -> list[Stage]:
    """The pipeline of a project as DVC resolves it, each stage after those that it builds on."""
    from dvc.dependency.param import ParamsDependency
    from dvc.repo import Repo

    def place(item: Any) -> str:
        return str(Path(item.fs_path).relative_to(folder.resolve()))

    with Repo(str(folder)) as repo:
        return in_order(
            Stage(
                stage.name,
                tuple(key for dep in stage.deps if isinstance(dep, ParamsDependency) and place(dep) == str(PATH) for key in dep.params),
                tuple(place(dep) for dep in stage.deps if not isinstance(dep, ParamsDependency)),
                tuple(place(out) for out in stage.outs),
            )
            for stage in repo.index.stages
            if stage.name  # without *.dvc files: data that is not made here
        )


def in_order(stages: Iterable[Stage]) -> list[Stage]:
    from graphlib import TopologicalSorter

    named = {stage.name: stage for stage in stages}
    return [named[name] for name in TopologicalSorter({s.name: builds_on(s, named.values()) for s in named.values()}).static_order()]


def builds_on(stage: Stage, every: Iterable[Stage]) -> list[str]:
    return [other.name for other in every if any(overlap(dep, out) for dep in stage.deps for out in other.outs)]


def overlap(one: str, other: str) -> bool:
    """Whether one path is the other or holds it."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def common(stages: Sequence[Stage], configs: Sequence[Config]) -> list[str]:
    """The names of the common stages. compose is none of them, nor is the report with all that follows it."""
    plain = [to_plain(config) for config in configs]
    apart = {COMPOSE, LAST}
    for stage in stages:
        if any(len({repr(value(tree, key)) for tree in plain}) > 1 for key in stage.settings) or apart & set(builds_on(stage, stages)):
            apart.add(stage.name)
    return [stage.name for stage in stages if stage.name not in apart]


def value(tree: Mapping[str, Any], dotted: str) -> Any:
    found: Any = tree
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def targets(stages: Sequence[Stage], shared: Sequence[str]) -> list[str]:
    """What is to be run for a point: the report with all that it builds on, and what else leaves something and is not common.

    Names are without their @key: a point may have variants that the first one has not.
    """
    needed = {LAST, COMPOSE}
    for stage in reversed(stages):
        if stage.name in needed:
            needed |= set(builds_on(stage, stages))
    others = (stage.name for stage in stages if stage.outs and stage.name not in needed and stage.name not in shared)
    return list(dict.fromkeys(name.partition("@")[0] for name in (LAST, *others)))


# The plan of a sweep: all that its points share, written once at the start, read by every job wherever it runs.

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
