"""The plan of a sweep: what all its points share. It is written once, at the start, and read by every job, wherever it runs.

Part of the plan is which stages of dvc.yaml are common to all points. A stage is common if the settings that dvc.yaml lists for it are
the same in all points, and so are those of every stage that it builds on. Common stages run once, before any point does.
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
from edgewise.sweep.points import Overrides, Point, compose_point

HOME = Path(".edgewise")
NAME_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
MAXIMIZE, MINIMIZE = "maximize", "minimize"
OBJECTIVES = {"latency_ratio_to_reference": MINIMIZE, "size_bytes": MINIMIZE}  # beside the primary metric of the task, or the agreement
COMPOSE, LAST = "compose", "report"  # compose always differs, by its settings; a point is run for its report


@dataclass(frozen=True)
class Plan:
    """params: the text of params.yaml at the start. keys: what differs from point to point. objectives: {figure of a variant: maximize
    or minimize}. subject: the one variant that a search is about. targets: what `dvc repro` is asked for at each point."""

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
        return sweep_folder(Path(self.root), self.name)

    @property
    def base_clone(self) -> Path:
        """The clone in which the common stages were run."""
        return self.folder / "base"

    @property
    def outcomes(self) -> Path:
        """The folder with the outcomes of all sweeps, by the name of the point."""
        return Path(self.root) / HOME / "points"

    @property
    def parent(self) -> Parent:
        return Parent(Path(self.root), self.code, Path(self.cache))

    @cached_property
    def options(self) -> Options:
        return Options(self.base_clone / "conf")

    def point(self, overrides: Overrides) -> Point:
        return compose_point(self.params, overrides, self.options)


def sweep_folder(root: Path, name: str) -> Path:
    return root / HOME / "sweeps" / name


def write_plan(plan: Plan) -> None:
    write_json(plan.folder / "plan.json", to_plain(plan))


def read_plan(folder: Path) -> Plan:
    path = folder / "plan.json"
    try:
        return build(Plan, json.loads(path.read_text(encoding="utf-8")), str(path))
    except FileNotFoundError:
        known = sorted(p.name for p in folder.parent.glob("*")) if folder.parent.exists() else []
        raise ConfigError(f"unknown sweep {folder.name!r}; {nearest(folder.name, known)}") from None


def split_off_name(arguments: list[str]) -> tuple[str, list[str]]:
    """The sweep's name, given by --name or made from the swept keys, and the arguments without it.

    Equal points have the same name, whatever launches them: hydra.* and hydra/* are left out.
    Raises ConfigError for a name with other characters than letters, digits, - and _.
    """
    if "--name" not in arguments:
        return make_name([argument for argument in arguments if not argument.startswith(("hydra.", "hydra/"))]), arguments
    place = arguments.index("--name")
    name, rest = "".join(arguments[place + 1 : place + 2]), arguments[:place] + arguments[place + 2 :]
    if not NAME_PATTERN.fullmatch(name):
        raise ConfigError(f"--name {name!r}: use letters, digits, - and _, for example --name first")
    return name, rest


def make_name(arguments: list[str]) -> str:
    """The last part of each swept key, at most three, and a hash of all arguments."""
    pairs = [argument.partition("=") for argument in arguments]
    words = [value if key.lstrip("+") == "search" else key.rpartition(".")[2] for key, _, value in pairs if "," in value or "search" in key]
    digest = hashlib.sha256("\n".join(sorted(arguments)).encode()).hexdigest()[:8]
    return "-".join([*(re.sub(r"\W", "", word) for word in words[:3]), digest])


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
    from dvc.stage import PipelineStage

    def place(item: Any) -> str:
        return name_inside(Path(item.fs_path), folder.resolve())

    with Repo(str(folder)) as repo:
        return sort_stages(
            Stage(
                stage.name,
                tuple(key for dep in stage.deps if isinstance(dep, ParamsDependency) and place(dep) == str(PATH) for key in dep.params),
                tuple(place(dep) for dep in stage.deps if not isinstance(dep, ParamsDependency) or place(dep) != str(PATH)),
                tuple(place(out) for out in stage.outs),
            )
            for stage in repo.index.stages
            if isinstance(stage, PipelineStage)  # not a *.dvc file, of data that no stage makes
        )


def name_inside(path: Path, folder: Path) -> str:
    """Relative to the folder; of what lies outside, which the user may have added to dvc.yaml, the path as it is."""
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def sort_stages(stages: Iterable[Stage]) -> list[Stage]:
    """In topological order."""
    from graphlib import TopologicalSorter

    named = {stage.name: stage for stage in stages}
    return [named[name] for name in TopologicalSorter({s.name: find_upstream(s, named.values()) for s in named.values()}).static_order()]


def find_upstream(stage: Stage, every: Iterable[Stage]) -> list[str]:
    """The names of the stages whose outputs this stage reads."""
    return [other.name for other in every if any(paths_overlap(dep, out) for dep in stage.deps for out in other.outs)]


def paths_overlap(one: str, other: str) -> bool:
    """Whether the two paths are equal or one contains the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def find_common_stages(stages: Sequence[Stage], configs: Sequence[Config]) -> list[str]:
    """The names of the common stages; never compose, the report, or what follows it."""
    plain = [to_plain(config) for config in configs]
    apart = {COMPOSE, LAST}
    for stage in stages:
        if any(len({repr(lookup(tree, key)) for tree in plain}) > 1 for key in stage.settings) or apart & set(find_upstream(stage, stages)):
            apart.add(stage.name)
    return [stage.name for stage in stages if stage.name not in apart]


def lookup(tree: Mapping[str, Any], dotted: str) -> Any:
    """The value at a dotted key; None where there is none."""
    found: Any = tree
    for key in dotted.split("."):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def find_targets(stages: Sequence[Stage], shared: Sequence[str]) -> list[str]:
    """What to run for a point: the report, and every other stage with outputs that is not common and not upstream of the report.

    Without the @key of foreach stages: a point may have variants that the first point lacks.
    """
    needed = {LAST, COMPOSE}
    for stage in reversed(stages):
        if stage.name in needed:
            needed |= set(find_upstream(stage, stages))
    others = (stage.name for stage in stages if stage.outs and stage.name not in needed and stage.name not in shared)
    return list(dict.fromkeys(name.partition("@")[0] for name in (LAST, *others)))
