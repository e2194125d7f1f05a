"""Run one point of a sweep, in whatever process the launcher chose for it, and record its outcome as a file.

A point is restored from an earlier sweep where its experiment is still there. Otherwise: clone, `dvc repro`, `dvc exp save`, and one
push of the experiment's reference to the parent repository. What a point is known by includes the input fingerprint: the data, the
model's files and the device, as the always-changed stages find them.
"""

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
from edgewise.config.runtimes import installed_runtimes
from edgewise.config.schema import PATH, to_plain
from edgewise.config.settings import build
from edgewise.data import file_digests
from edgewise.errors import ConfigError, EdgewiseError
from edgewise.sweep import clone
from edgewise.sweep.clone import DVC, git, link_local_files, run_command, share_store
from edgewise.sweep.plan import LAST, Plan
from edgewise.sweep.points import Overrides, Point, drop_group_overrides, judged_variants, point_name, reference_digest

SCHEMA = 3  # 2: the summary is of nested records; 3: `inputs` was `world`
InputFingerprint = dict[str, str]


@dataclass(frozen=True)
class Outcome:
    """What became of one point. The file is written when the point is complete.

    name: of the point and of its experiment. status: ok, or failed if the pipeline itself could not run. experiment: in MLflow.
    reference: a digest of the reference at this point. ref, revision: the experiment in the parent repository. subjects: the variants
    that the point is about. summary: metrics/summary.json of the point. data: metrics/data.json. inputs: the input fingerprint.
    seconds: by phase.
    """

    name: str
    overrides: tuple[str, ...]
    status: str
    head: str
    tree: str
    experiment: str
    reference: str = ""
    carried: tuple[str, ...] = ()
    reason: str | None = None
    log: str | None = None
    restored: bool = False
    ref: str | None = None
    revision: str | None = None
    subjects: tuple[str, ...] = ()
    summary: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    inputs: InputFingerprint = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def failed_subjects(self) -> dict[str, str]:
        """{variant: reason} of the subjects that failed although the pipeline itself ran."""
        rows = {name: self.summary["variants"][name] for name in self.subjects} if self.ok else {}
        return {name: str(row["reason"]) for name, row in rows.items() if row["status"] != "ok"}


def write_outcome(folder: Path, outcome: Outcome) -> None:
    write_json(folder / f"{outcome.name}.json", to_plain(outcome))


def read_outcome(path: Path) -> Outcome | None:
    """None where there is no file, or one that this version cannot read: the point is then run again."""
    try:
        found = build(Outcome, json.loads(path.read_text(encoding="utf-8")), str(path))
    except (FileNotFoundError, json.JSONDecodeError, ConfigError):
        return None
    return found if found.schema == SCHEMA else None


def read_outcomes(folder: Path) -> list[Outcome]:
    """All outcomes in a folder, in the order of their names."""
    found = (read_outcome(path) for path in sorted(folder.glob("*.json")))
    return [outcome for outcome in found if outcome is not None]


@dataclass
class Clock:
    """Measures the seconds of each phase."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = round(time.monotonic() - start, 3)


def run_point(plan: Plan, overrides: Overrides) -> Outcome:
    """Run or restore a point, and write its outcome. A failure is an outcome too: it does not stop the other points."""
    clock = Clock()
    with clock.phase("check"):
        point = plan.point(overrides)
        blank = blank_outcome(plan, point)
    with point_lock(plan, blank.name):
        found = restore_point(plan, blank) or try_point(plan, point, blank, clock)
        found = replace(found, subjects=tuple(judged_variants(plan.keys, overrides, point.config)))
        if found.ok and not found.restored:
            write_outcome(plan.outcomes, found)
        write_outcome(plan.folder / "points", found)
    return found


def blank_outcome(plan: Plan, point: Point) -> Outcome:
    """The outcome as far as it is known before the point runs, with the status failed."""
    inputs = input_fingerprint(plan, point)
    return Outcome(
        name=point_name(point, plan.code.key, inputs),
        overrides=point.overrides,
        status="failed",
        head=plan.code.head,
        tree=plan.code.tree,
        carried=plan.code.carried,
        experiment=point.config.experiment,
        reference=reference_digest(point.config),
        inputs=inputs,
    )


def try_point(plan: Plan, point: Point, blank: Outcome, clock: Clock) -> Outcome:
    """Run the point's pipeline; whatever goes wrong is the reason of a failed outcome."""
    folder, log = plan.folder / "work" / blank.name, plan.folder / "logs" / f"{blank.name}.log"
    log.unlink(missing_ok=True)
    try:
        done = run_pipeline(plan, point, folder, log, clock)
    except (EdgewiseError, OSError) as error:
        return replace(blank, reason=str(error), log=str(log), seconds=clock.seconds)
    except Exception as error:  # the launcher raises a scheduler's time limit as an exception at any line
        with log.open("a") as stream:
            traceback.print_exc(file=stream)
        return replace(blank, reason=f"{type(error).__name__}: {error} (see {log})", log=str(log), seconds=clock.seconds)
    return replace(blank, status="ok", log=str(log), seconds=clock.seconds, **done)


def run_pipeline(plan: Plan, point: Point, folder: Path, log: Path, clock: Clock) -> dict[str, Any]:
    """Run the pipeline in a clone and push the experiment to the parent repository. Only the log of the clone is kept."""
    clone.check_library(plan.code, plan.parent.root)
    with clock.phase("clone"):
        clone.make_clone(plan.parent, folder, point.params)
        clone.copy_results(plan.base_clone, folder)
    with clock.phase("pipeline"):
        run_command((*DVC, "repro", *plan.targets), folder, log)
    with clock.phase("save"):
        git(folder, "add", "dvc.lock", "metrics")  # an experiment holds what git tracks: of models/ nothing
        run_command((*DVC, "exp", "save", "--name", folder.name, LAST), folder, log)  # outputs are in the shared cache already
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


def restore_point(plan: Plan, blank: Outcome) -> Outcome | None:
    """The outcome of an earlier sweep as one of this sweep; None where there is none."""
    found = find_finished(plan, blank.name)
    return replace(found, overrides=blank.overrides, restored=True) if found else None


def find_finished(plan: Plan, name: str) -> Outcome | None:
    """The outcome of the same point in an earlier sweep, if its experiment still exists in the parent repository; else None."""
    found = read_outcome(plan.outcomes / f"{name}.json")
    return found if found and git(plan.parent.root, "for-each-ref", "--format=%(refname)", str(found.ref)) else None


def record_lost_point(plan: Plan, overrides: Sequence[str], reason: str, log: str) -> None:
    """Write the outcome of a point whose job ended before it could do so itself; a point that had finished by then stays as it is."""
    blank = blank_outcome(plan, plan.point(tuple(drop_group_overrides(overrides))))
    if not (found := read_outcome(plan.folder / "points" / f"{blank.name}.json")) or not found.ok:
        write_outcome(plan.folder / "points", replace(blank, reason=f"{reason} (see {log})", log=log))


@contextlib.contextmanager
def point_lock(plan: Plan, name: str) -> Iterator[None]:
    """Hold the lock of a point: another sweep, or what is left of one that was killed, may be running the same point."""
    plan.outcomes.mkdir(parents=True, exist_ok=True)
    with (plan.outcomes / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def input_fingerprint(plan: Plan, point: Point) -> InputFingerprint:
    """{"data": digest, "model": digests of its files, "device": fingerprint, "runtimes": versions here and on the device}. Probed once in
    a sweep for equal settings of data, model and device."""
    path = plan.folder / "inputs" / f"{input_settings_digest(point)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            write_json(path, probe_inputs(plan, point))
    fingerprint: InputFingerprint = json.loads(path.read_text(encoding="utf-8"))
    return fingerprint


def probe_inputs(plan: Plan, point: Point) -> InputFingerprint:
    """Run the two probe stages on the point's configuration, in an empty folder."""
    folder = plan.folder / "inputs" / input_settings_digest(point)
    write(point.config, folder / PATH)
    link_local_files(plan.parent.root, folder, dict(point.choices))
    share_store(file_digests.STORE, plan.parent.root, folder)
    for module in ("stages.probe_data", "stages.probe_device"):
        run_command((sys.executable, "-m", module), folder, plan.folder / "logs" / "inputs.log", code=plan.base_clone)
    data, model, device, runtimes = (read_plain(folder / METRICS / f"{name}.json") for name in ("data", "model", "device", "runtimes"))
    return {
        "data": str(data["digest"]),
        "model": json.dumps(model["sha256"], sort_keys=True),
        "device": str(device["fingerprint"]),
        "runtimes": json.dumps([installed_runtimes(point.config.formats), runtimes["packages"]], sort_keys=True),
    }


def input_settings_digest(point: Point) -> str:
    content = [to_plain(point.config.data), to_plain(point.config.model), to_plain(point.config.device)]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
