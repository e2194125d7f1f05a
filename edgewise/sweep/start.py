"""The start of a sweep: check every point, take the code as it is, do the common work once."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgewise.artifacts import figures
from edgewise.config.compose import Options
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError
from edgewise.plugins import Task
from edgewise.sweep import clone, execution, plan, points
from edgewise.sweep.clone import DVC, described, run, snapshot
from edgewise.sweep.execution import kept
from edgewise.sweep.plan import OBJECTIVES, Plan
from edgewise.sweep.points import Point


def start(name: str, arguments: Sequence[str], searched: bool, search: Mapping[str, Any]) -> Plan:
    """arguments: the overrides with their choices, those of the sweeper included. search: the section of conf/sweep/search."""
    root = Path.cwd()
    code = snapshot(root)
    every = points.samples_of(arguments) if searched else points.grid(arguments)
    params = read_params(root)
    checked = points.check_all(params, every, Options(root / "conf"))
    made = Plan(
        name=name,
        root=str(root),
        cache=str(cache_of(root)),
        code=code,
        params=params,
        arguments=tuple(arguments),
        keys=tuple(points.swept_keys(every)),
        targets=(),
        searched=searched,
        subject=search.get("subject"),
        objectives=objectives(search.get("objectives"), checked),
    )
    made = warm_up(made, checked)
    what = f"a search, starting from {len(every)} values" if searched else f"{len(every)} points"
    print(f"sweep {name}: {what} over {', '.join(made.keys) or 'nothing'}; {described(made.code)}")
    return made


def read_params(root: Path) -> str:
    try:
        return (root / "params.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{root}/params.yaml does not exist; run the command from the top folder of the project") from None


def cache_of(root: Path) -> Path:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Path(repo.cache.local_cache_dir)


def objectives(given: Mapping[str, Any] | None, checked: Sequence[Point]) -> dict[str, str]:
    """Those of the search; else the primary metric of the task, latency and size."""
    task = cast(Task, checked[0].config.task.load())
    metric = task.PRIMARY_METRIC
    fields = figures.names(metric, task.SCORES)
    if not given:
        better = {metric.name: plan.MAXIMIZE if metric.higher_is_better else plan.MINIMIZE} if metric else {}
        return {**better, **OBJECTIVES}
    for field, direction in given.items():
        if field not in fields:
            raise ConfigError(f"search.objectives: {field!r} is no result of a variant; {nearest(field, fields)}")
        if direction not in (plan.MAXIMIZE, plan.MINIMIZE):
            raise ConfigError(f"search.objectives.{field}: {direction!r}; allowed: {plan.MAXIMIZE}, {plan.MINIMIZE}")
    return {str(field): str(direction) for field, direction in given.items()}


def warm_up(made: Plan, checked: Sequence[Point]) -> Plan:
    """The clone that all jobs start from, with the common stages done in it unless every point is there already."""
    shutil.rmtree(made.folder / "points", ignore_errors=True)
    shutil.rmtree(made.folder / "worlds", ignore_errors=True)
    begun, log = time.monotonic(), made.folder / "logs" / "warm-up.log"
    log.unlink(missing_ok=True)
    clone.make(made.parent, made.warm, checked[0].params)
    stages = plan.read_stages(made.warm)
    shared = plan.common(stages, [point.config for point in checked])
    made = replace(made, targets=tuple(plan.targets(stages, shared)))
    plan.write(made)
    if shared and (made.searched or not all_done(made, checked)):
        run((*DVC, "repro", *shared), made.warm, log)
        print(
            f"done once for all points in {time.monotonic() - begun:.1f} s: {', '.join(dict.fromkeys(s.partition('@')[0] for s in shared))}"
        )
    return made


def all_done(made: Plan, checked: Sequence[Point]) -> bool:
    names = (points.name(point, made.code.key, execution.see(made, point)) for point in checked)
    return all(kept(made, name) for name in names)
