"""The stages whose results are the same in every point: done once, in a clone of their own, before any point runs.

A stage is common when the settings that dvc.yaml lists for it are the same in all points, and so is all that it builds on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.config import PATH, Config, to_plain

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
