"""What a result depends on besides settings and code: the data and the device, as the always-changed stages see them."""

import contextlib
import fcntl
import hashlib
import json
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewise.artifacts.artifact import write_json
from edgewise.artifacts.records import METRICS, SUMMARY, read_plain
from edgewise.config.compose import write
from edgewise.config.schema import PATH, to_plain
from edgewise.errors import EdgewiseError
from edgewise.sweep import clone, outcome
from edgewise.sweep.clone import DVC, git, link_local_files, run
from edgewise.sweep.outcome import Outcome
from edgewise.sweep.plan import LAST, Plan
from edgewise.sweep.points import Overrides, Point, name, reference_key, subjects, without_groups

World = dict[str, str]


def see(plan: Plan, point: Point) -> World:
    """{"data": digest, "model": digests of its files, "device": fingerprint}, looked up once in a sweep for the same settings of them."""
    path = plan.folder / "worlds" / f"{signature(point)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            write_json(path, look(plan, point))
    return json.loads(path.read_text(encoding="utf-8"))


def signature(point: Point) -> str:
    content = [to_plain(point.config.data), to_plain(point.config.model), to_plain(point.config.device)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def look(plan: Plan, point: Point) -> World:
    """Run the two probes on the point's configuration, in a folder that holds nothing else."""
    folder = plan.folder / "worlds" / signature(point)
    write(point.config, folder / PATH)
    link_local_files(plan.parent.root, folder, dict(point.choices))
    for module in ("stages.probe_data", "stages.probe_device"):
        run((sys.executable, "-m", module), folder, plan.folder / "logs" / "world.log", code=plan.warm)
    data, model, device = (read_plain(folder / METRICS / f"{name}.json") for name in ("data", "model", "device"))
    return {"data": str(data["digest"]), "model": json.dumps(model["sha256"], sort_keys=True), "device": str(device["fingerprint"])}


# One point, in whatever process the launcher chose for it.
#
# lock -> restored from an earlier sweep, or: clone, `dvc repro`, `dvc exp save`, push -> outcome


@dataclass
class Clock:
    """Seconds by phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - start, 3)


def run_point(plan: Plan, overrides: Overrides) -> Outcome:
    """Run or restore a point. A failure is an outcome like any other: it is written and does not stop the other points."""
    clock = Clock()
    with clock.phase("check"):
        point = plan.point(overrides)
        blank = to_be_filled(plan, point)
    with alone(plan, blank.name):
        found = restored(plan, blank) or attempt(plan, point, blank, clock)
        found = replace(found, subjects=tuple(subjects(plan.keys, overrides, point.config)))
        if found.ok and not found.restored:
            outcome.write(plan.done, found)
        outcome.write(plan.folder / "points", found)
    return found


def to_be_filled(plan: Plan, point: Point) -> Outcome:
    """What is known of a point before it is run."""
    seen = see(plan, point)
    return Outcome(
        name=name(point, plan.code.key, seen),
        overrides=point.overrides,
        status="failed",
        head=plan.code.head,
        tree=plan.code.tree,
        carried=plan.code.carried,
        experiment=f"{point.config.model.name}-{point.config.data.name}",
        reference=reference_key(point.config),
        world=seen,
    )


def lost(plan: Plan, overrides: Sequence[str], reason: str, log: str) -> None:
    """Write the outcome of a point whose job could not do it, unless it was whole by then."""
    blank = to_be_filled(plan, plan.point(tuple(without_groups(overrides))))
    if not (found := outcome.read(plan.folder / "points" / f"{blank.name}.json")) or not found.ok:
        outcome.write(plan.folder / "points", replace(blank, reason=f"{reason} (see {log})", log=log))


@contextlib.contextmanager
def alone(plan: Plan, name: str) -> Iterator[None]:
    """One process at a time for a point, be it of another sweep or left over from one that was killed."""
    plan.done.mkdir(parents=True, exist_ok=True)
    with (plan.done / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def restored(plan: Plan, blank: Outcome) -> Outcome | None:
    found = kept(plan, blank.name)
    return replace(found, overrides=blank.overrides, restored=True) if found else None


def kept(plan: Plan, name: str) -> Outcome | None:
    """The outcome of the same point in an earlier sweep, if its experiment is still there."""
    found = outcome.read(plan.done / f"{name}.json")
    return found if found and git(plan.parent.root, "for-each-ref", "--format=%(refname)", str(found.ref)) else None


def attempt(plan: Plan, point: Point, blank: Outcome, clock: Clock) -> Outcome:
    folder, log = plan.folder / "work" / blank.name, plan.folder / "logs" / f"{blank.name}.log"
    log.unlink(missing_ok=True)
    try:
        done = execute(plan, point, folder, log, clock)
    except (EdgewiseError, OSError) as error:
        return replace(blank, reason=str(error), log=str(log), seconds=clock.seconds)
    except Exception as error:  # the time limit of a scheduler comes as an exception of its launcher, out of any line
        with log.open("a") as stream:
            traceback.print_exc(file=stream)
        return replace(blank, reason=f"{type(error).__name__}: {error} (see {log})", log=str(log), seconds=clock.seconds)
    return replace(blank, status="ok", log=str(log), seconds=clock.seconds, **done)


def execute(plan: Plan, point: Point, folder: Path, log: Path, clock: Clock) -> dict[str, Any]:
    """Run the pipeline in a clone of its own and hand the experiment to the parent. What stays of the clone is its log."""
    with clock.phase("clone"):
        clone.make(plan.parent, folder, point.params)
        clone.copy_results(plan.warm, folder)
    with clock.phase("pipeline"):
        run((*DVC, "repro", *plan.targets), folder, log)
    with clock.phase("save"):
        git(folder, "add", "dvc.lock", "metrics", "models")  # an experiment holds what git knows, and of models/ it knows .gitignore
        run((*DVC, "exp", "save", "--name", folder.name, LAST), folder, log)  # the rest is in the cache since it was made
    with clock.phase("push"):
        ref = git(folder, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{folder.name}")
        git(folder, "push", "--quiet", "origin", f"+{ref}")
    found = {
        "ref": ref,
        "revision": git(folder, "rev-parse", ref),
        "summary": json.loads((folder / SUMMARY).read_text(encoding="utf-8")),
        "data": read_plain(folder / METRICS / "data.json"),
    }
    shutil.rmtree(folder)
    return found
