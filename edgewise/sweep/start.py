"""The start of a sweep: check every point, take a snapshot of the code, run the common stages once."""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from edgewise.artifacts import flat_metrics
from edgewise.config.compose import Options
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError
from edgewise.plugins import Task
from edgewise.sweep import clone, execution, plan, points
from edgewise.sweep.clone import DVC, describe_code, run_command, take_snapshot
from edgewise.sweep.execution import find_finished
from edgewise.sweep.plan import OBJECTIVES, Plan
from edgewise.sweep.points import Point


def prepare(name: str, arguments: Sequence[str], searched: bool, search: Mapping[str, Any]) -> Plan:
    """Check all points, say what the sweep is, run the common stages and write the plan. Returns the plan.

    name: of the sweep. arguments: the overrides with their choices, those of the sweeper included. searched: whether a search picks the
    points. search: the section of conf/sweep/search/. Raises ConfigError before anything runs if any point is wrong.
    """
    root = Path.cwd()
    code = take_snapshot(root)
    every = points.representative_points(arguments) if searched else points.grid_points(arguments)
    params = read_params(root)
    checked = points.compose_all(params, every, Options(root / "conf"))
    made = Plan(
        name=name,
        root=str(root),
        cache=str(dvc_cache_folder(root)),
        code=code,
        params=params,
        arguments=tuple(arguments),
        keys=tuple(points.swept_keys(every)),
        targets=(),
        searched=searched,
        subject=search.get("subject"),
        objectives=choose_objectives(search.get("objectives"), checked),
    )
    points_made = "1 point" if len(every) == 1 else f"{len(every)} points"
    what = f"a search, {len(every)} values checked" if searched else points_made
    over = f" over {', '.join(made.keys)}" if made.keys else ""
    print(f"sweep {name}: {what}{over}; {describe_code(made.code)}", flush=True)
    return run_common_stages(made, checked)


def read_params(root: Path) -> str:
    try:
        return (root / "params.yaml").read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{root}/params.yaml does not exist; run the command in the project's root folder") from None


def dvc_cache_folder(root: Path) -> Path:
    from dvc.repo import Repo

    with Repo(str(root)) as repo:
        return Path(repo.cache.local_cache_dir)


def choose_objectives(given: Mapping[str, Any] | None, checked: Sequence[Point]) -> dict[str, str]:
    """{figure: direction}: those of the search; else the task's primary metric, latency and size. Raises ConfigError for an unknown one.

    Where the task judges nothing, the agreement with the reference stands for the primary metric.
    """
    task = cast(Task, checked[0].config.task.load())
    metric = task.PRIMARY_METRIC
    fields = flat_metrics.number_names(metric, task.SCORES)
    if not given:
        first = {metric.name: plan.MAXIMIZE if metric.higher_is_better else plan.MINIMIZE} if metric else {"sqnr_db": plan.MAXIMIZE}
        return {**first, **OBJECTIVES}
    for field, direction in given.items():
        if field not in fields:
            hint = f"it is now called {flat_metrics.RENAMED[field]}; " if field in flat_metrics.RENAMED else ""
            wrong = f"{field!r} is not a number" if field in flat_metrics.known_names(metric, task.SCORES) else f"unknown figure {field!r}"
            raise ConfigError(f"search.objectives: {wrong}; {hint}{nearest(field, fields)}")
        if direction not in (plan.MAXIMIZE, plan.MINIMIZE):
            raise ConfigError(f"search.objectives.{field}: {direction!r}; allowed: {plan.MAXIMIZE}, {plan.MINIMIZE}")
    return {str(field): str(direction) for field, direction in given.items()}


def run_common_stages(made: Plan, checked: Sequence[Point]) -> Plan:
    """Make the clone that all jobs start from and run the common stages in it, unless every point is finished already."""
    shutil.rmtree(made.folder / "points", ignore_errors=True)
    shutil.rmtree(made.folder / "inputs", ignore_errors=True)
    begun, log = time.monotonic(), made.folder / "logs" / "common-stages.log"
    log.unlink(missing_ok=True)
    clone.make_clone(made.parent, made.base_clone, checked[0].params)
    stages = plan.read_stages(made.base_clone)
    shared = plan.find_common_stages(stages, [point.config for point in checked])
    made = replace(made, targets=tuple(plan.find_targets(stages, shared)))
    plan.write_plan(made)
    if shared and (made.searched or not all_finished(made, checked)):
        print(f"first the stages that all points share, once; their log: {log.relative_to(made.root)}", flush=True)
        run_command((*DVC, "repro", *shared), made.base_clone, log)
        print(f"done in {time.monotonic() - begun:.1f} s; now the points", flush=True)
    return made


def all_finished(made: Plan, checked: Sequence[Point]) -> bool:
    """Whether an earlier sweep has the outcome of every point."""
    names = (points.point_name(point, made.code.key, execution.input_fingerprint(made, point)) for point in checked)
    return all(find_finished(made, name) for name in names)
