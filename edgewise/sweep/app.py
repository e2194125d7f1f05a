"""Jobs that a scheduler ends: by scancel, the time limit, too much memory, a lost node.

By itself submitit asks `sacct` what became of a job, waits for ever on a cluster without accounting, and gives up the whole sweep on the
first job that left no result. Here `squeue` is asked, which every cluster has, and such a job becomes a failed point that names the reason.
"""

import fcntl
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from edgewise.config.compose import quoted
from edgewise.errors import ConfigError, EdgewiseError, MissingExtra, SurroundingsError
from edgewise.sweep import outcome, plan, points, start
from edgewise.sweep.clone import last_words
from edgewise.sweep.execution import lost, run_point
from edgewise.sweep.outcome import Outcome
from edgewise.sweep.plan import Plan

LISTED = ("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i %T")  # what ended stays listed for minutes
GONE = "GONE"  # not listed any more: it ended long ago
ASK_S = 10


def attend(launcher: str) -> None:
    """Teach submitit, where it is the launcher, in this process. launcher: dotted path of Hydra's launcher class."""
    if not launcher.startswith("hydra_plugins.hydra_submitit_launcher."):
        return
    from submitit.local.local import LocalJob
    from submitit.slurm.slurm import SlurmJob

    SlurmJob.watcher = queue_watcher()
    kinds: tuple[Any, ...] = (LocalJob, SlurmJob)
    for kind in kinds:
        kind.results = told(kind.results)


def queue_watcher() -> Any:
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            return list(LISTED) if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            return states(string if isinstance(string, str) else string.decode(), self._registered)

    return QueueWatcher(delay_s=ASK_S)


def states(listed: str, jobs: set[str]) -> dict[str, dict[str, str]]:
    """{job: {"State": PENDING, RUNNING, COMPLETED, CANCELLED ...}}, as submitit takes them. listed: what squeue printed."""
    known = dict(line.split(maxsplit=1) for line in listed.splitlines() if " " in line.strip())
    return {job: {"State": known.get(job, GONE)} for job in jobs}


def told(results: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """submitit's `results`, which does not raise for a job that left none: the point is failed, and the others go on."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import FailedJobError, UncompletedJobError

    def told_results(job: Any) -> list[Any]:
        try:
            return results(job)
        except UncompletedJobError:
            reason = f"{job.state}, without a result"
        except FailedJobError as error:
            reason = last_words(str(error))
        overrides, *_ = job.submission().args
        folder = Path(job.paths.folder).parents[1]  # SWEEP/.submitit/JOB
        lost(plan.read(folder), overrides, f"the scheduler ended its job {job.job_id}: {reason}", str(job.paths.stderr))
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED)]

    return told_results


# The sweep as a Hydra application: params.yaml is its primary configuration, of conf/ it sees conf/sweep/ only.

PACKAGES = {  # (override, value), "" for any value: what must be installed, and the extra that has it
    ("hydra/launcher", "joblib"): ("hydra-joblib-launcher", "sweep"),
    ("hydra/launcher", "submitit_local"): ("hydra-submitit-launcher", "sweep"),
    ("hydra/launcher", "submitit_slurm"): ("hydra-submitit-launcher", "sweep"),
    ("hydra/launcher", "ray"): ("ray", "ray"),
    ("hydra/sweeper", "optuna"): ("hydra-optuna-sweeper", "sweep"),
    ("search", ""): ("hydra-optuna-sweeper", "sweep"),
}
LAUNCHERS = Path(__file__).parent / "launchers"  # Hydra takes plugins only of a package called hydra_plugins
GRID = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"


class Stop(BaseException):
    """Carries an error through Hydra, which turns every Exception of a callback into a warning."""

    def __init__(self, error: Exception):
        self.error = error


class Start(Callback):
    """Named in conf/sweep/hydra/callbacks/edgewise.yaml; Hydra calls it in the launching process, before any job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        sweeper = config.hydra.sweeper
        own = OmegaConf.to_container(sweeper.params) if sweeper.get("params") else {}
        arguments = [f"{key}={value}" for key, value in dict(own).items()] + list(config.hydra.overrides.task)  # type: ignore[arg-type]
        folder = Path(config.hydra.sweep.dir)
        search = OmegaConf.to_container(config.search) if "search" in config else {}
        try:
            attend(config.hydra.launcher._target_)
            quieten(sweeper._target_)
            with aside():
                start.start(folder.name, arguments, sweeper._target_ != GRID, search)  # type: ignore[arg-type]
        except Exception as error:
            raise Stop(error) from error


def quieten(sweeper: str) -> None:
    """Optuna and its sweeper print of every trial what `line` says better. sweeper: dotted path of Hydra's sweeper class."""
    if sweeper.startswith("hydra_plugins.hydra_optuna_sweeper."):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)


@contextmanager
def aside() -> Iterator[None]:
    """Lets conf/ be composed within this application: Hydra knows one application at a time."""
    known = GlobalHydra.instance()
    running, known.hydra = known.hydra, None
    try:
        yield
    finally:
        known.hydra = running


def job(_: DictConfig) -> tuple[float, ...] | None:
    """What Hydra calls for every point, in this process or in one of the launcher's. Returns the objectives, for a search."""
    config = HydraConfig.get()
    made = read_once(config.sweep.dir)
    overrides = tuple(points.without_groups(config.overrides.task))
    with aside():
        done = run_point(made, overrides)
    print(line(done, made), flush=True)
    return objectives(done, made)


@cache
def read_once(folder: str) -> Plan:
    """The plan with the options that it has loaded: a process that runs many points composes each of them once."""
    return plan.read(Path(folder))


def line(done: Outcome, made: Plan) -> str:
    """One point in one line."""
    settings = points.settings(done.overrides)
    swept = " ".join(f"{key.rpartition('.')[2]}={settings[key]}" for key in made.keys if key in settings)
    if not done.ok:
        return f"{done.name}  failed  {swept}: {done.reason}"
    took = "restored" if done.restored else f"{sum(done.seconds.values()):.1f} s"
    return f"{done.name}  {took}  {swept}" + "".join(f"; {name} failed: {reason}" for name, reason in done.failed_subjects.items())


def objectives(done: Outcome, made: Plan) -> tuple[float, ...] | None:
    """None where the point failed, or where no number was measured for one of them."""
    subject = made.subject or (done.subjects[0] if done.subjects else None)
    row = done.summary.get("variants", {}).get(subject, {})
    values = [row.get(field) for field in made.objectives]
    return None if not done.ok or row.get("status") != "ok" or None in values else tuple(float(value) for value in values)


def run(name: str, arguments: list[str]) -> None:
    """Hydra's command line, from the sweep's name and the user's arguments on."""
    import hydra

    require_launcher(arguments)
    root = Path.cwd()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that an error comes here as an exception
    own = {
        "hydra.searchpath": f"[{quoted(f'file://{root}/conf/sweep')}]",
        "hydra/callbacks": "edgewise",
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
        "hydra.output_subdir": "null",
        "hydra.sweep.dir": quoted(str(plan.folder_of(root, name))),
        "hydra.sweep.subdir": "jobs",
    }
    sys.path[:0] = [str(root), str(LAUNCHERS)]  # where Hydra finds plugins of ours, however this was started
    sys.argv = ["sweep", "--multirun", *(f"{key}={value}" for key, value in own.items()), *arguments]
    with alone(name, root):
        try:
            hydra.main(config_path=str(root), config_name="params", version_base="1.3")(job)()
        except Stop as stop:
            raise stop.error from stop.error.__cause__
        except (EdgewiseError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise given_up(plan.folder_of(root, name), error) from error


def given_up(folder: Path, error: Exception) -> SurroundingsError:
    """The launcher's own failure: a worker that was killed takes its pool with it."""
    log = folder / "logs" / "launcher.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    kept = sum(done.ok for done in outcome.read_all(folder / "points"))
    what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return SurroundingsError(f"the launcher gave up ({what}); {kept} points are finished and kept: run the same command again (see {log})")


def require_launcher(arguments: Sequence[str]) -> None:
    """MissingExtra where a launcher or a sweeper is asked for that is not installed."""
    given = [argument.lstrip("+").partition("=") for argument in arguments]
    for package, extra in (PACKAGES[pair] for key, _, value in given for pair in ((key, value), (key, "")) if pair in PACKAGES):
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            raise MissingExtra(package, extra) from None


@contextmanager
def alone(name: str, root: Path) -> Iterator[None]:
    path = plan.folder_of(root, name) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"the sweep {name} is running already in another process; wait for it, or give this one --name") from None
        yield
