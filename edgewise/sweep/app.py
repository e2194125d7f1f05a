"""The sweep as a Hydra application: params.yaml is its primary configuration; of conf/ it sees conf/sweep/ only.

Jobs that a scheduler ends (scancel, time limit, memory, a lost node) become failed points with the reason. By itself submitit asks
`sacct` what became of a job, waits forever on a cluster without accounting, and gives up the sweep on the first job without a result.
Here `squeue` is asked, which every Slurm cluster has.
"""

import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
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
from edgewise.errors import ConfigError, EdgewiseError, InfrastructureError, MissingExtra
from edgewise.sweep import conclusion, plan, points, start
from edgewise.sweep.clone import hold_lock, summarize_error
from edgewise.sweep.execution import Outcome, read_outcomes, record_lost_point, run_point
from edgewise.sweep.plan import Plan
from edgewise.sweep.summary import make_rows

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
SQUEUE = ("squeue", "--me", "--array", "--states=all", "--noheader", "--format=%i %T")  # a job that ended stays listed for minutes
GONE = "GONE"  # no longer listed: it ended long ago
ASK_S = 10


def sweep(arguments: list[str]) -> int:
    """Run a sweep from its command line to its conclusion. The exit code: 0, or 1 where a point failed.

    arguments: Hydra's overrides, and --name NAME.
    """
    name, overrides = plan.split_off_name(arguments)
    folder = plan.sweep_folder(Path.cwd(), name)
    try:
        run_sweep(name, overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error).split())) from None
    except KeyboardInterrupt:
        print(f"sweep {name}: {conclusion.count_finished(folder)} finished and kept", file=sys.stderr)
        raise
    return conclusion.conclude(plan.read_plan(folder))


def run_sweep(name: str, arguments: list[str]) -> None:
    """Run a sweep by Hydra's multirun, from the project's root. arguments: the user's overrides.

    Raises ConfigError for wrong settings, MissingExtra for a launcher that is not installed, InfrastructureError where the launcher fails.
    """
    import hydra

    require_plugins(arguments)
    root = Path.cwd()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors arrive here as exceptions
    own = {
        "hydra.searchpath": f"[{quoted(f'file://{root}/conf/sweep')}]",
        "hydra/callbacks": "edgewise",
        "hydra/job_logging": "none",
        "hydra/hydra_logging": "none",
        "hydra.output_subdir": "null",
        "hydra.sweep.dir": quoted(str(plan.sweep_folder(root, name))),
        "hydra.sweep.subdir": "jobs",
    }
    sys.path[:0] = [str(root), str(LAUNCHERS)]  # where Hydra looks for our plugins, however this was started
    sys.argv = ["sweep", "--multirun", *(f"{key}={value}" for key, value in own.items()), *arguments]
    with sweep_lock(name, root):
        try:
            hydra.main(config_path=str(root), config_name="params", version_base="1.3")(run_job)()
        except StartFailed as stop:
            raise stop.error from stop.error.__cause__
        except (EdgewiseError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise launcher_error(plan.sweep_folder(root, name), error) from error


def require_plugins(arguments: Sequence[str]) -> None:
    """Raise MissingExtra where a launcher or a sweeper is asked for that is not installed."""
    given = [argument.lstrip("+").partition("=") for argument in arguments]
    for package, extra in (PACKAGES[pair] for key, _, value in given for pair in ((key, value), (key, "")) if pair in PACKAGES):
        try:
            metadata.distribution(package)
        except metadata.PackageNotFoundError:
            raise MissingExtra(package, extra) from None


def sweep_lock(name: str, root: Path) -> AbstractContextManager[None]:
    """Hold the lock of a sweep. ConfigError where another process runs it."""
    running = f"the sweep {name} is already running in another process; wait for it, or give this one another name with --name NAME"
    return hold_lock(plan.sweep_folder(root, name) / "lock", running)


def launcher_error(folder: Path, error: Exception) -> InfrastructureError:
    """The error for a launcher that failed itself: a worker that is killed takes its pool with it."""
    log = folder / "logs" / "launcher.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    finished = sum(done.ok for done in read_outcomes(folder / "points"))
    what = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    return InfrastructureError(
        f"the launcher gave up ({what}); {finished} points are finished and kept: run the same command again to go on (see {log})"
    )


class StartFailed(BaseException):
    """Carries an error through Hydra, which turns every Exception of a callback into a warning: hence a BaseException."""

    def __init__(self, error: Exception):
        self.error = error


class SweepCallback(Callback):
    """Named in conf/sweep/hydra/callbacks/edgewise.yaml; Hydra calls it in the launching process, before any job."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        sweeper = config.hydra.sweeper
        own = OmegaConf.to_container(sweeper.params) if sweeper.get("params") else {}
        arguments = [f"{key}={value}" for key, value in dict(own).items()] + list(config.hydra.overrides.task)  # type: ignore[arg-type]
        folder = Path(config.hydra.sweep.dir)
        search = OmegaConf.to_container(config.search) if "search" in config else {}
        try:
            patch_submitit(config.hydra.launcher._target_)
            silence_optuna(sweeper._target_)
            with without_hydra():
                start.prepare(folder.name, arguments, sweeper._target_ != GRID, search)  # type: ignore[arg-type]
        except Exception as error:
            raise StartFailed(error) from error


def silence_optuna(sweeper: str) -> None:
    """Lower the log level of Optuna and its sweeper: we print each point. sweeper: dotted path of Hydra's sweeper class."""
    if sweeper.startswith("hydra_plugins.hydra_optuna_sweeper."):
        import optuna

        optuna.logging.set_verbosity(logging.WARNING)
        logging.getLogger("hydra_plugins.hydra_optuna_sweeper").setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", "The distribution is specified by")  # Optuna counts the stop of a range, Hydra does not


@contextmanager
def without_hydra() -> Iterator[None]:
    """Put the running Hydra application aside so that conf/ can be composed: Hydra allows one application at a time."""
    known = GlobalHydra.instance()
    running, known.hydra = known.hydra, None
    try:
        yield
    finally:
        known.hydra = running


def run_job(_: DictConfig) -> tuple[float, ...] | None:
    """Run one point; Hydra calls this, in this process or in one of the launcher's. Returns the objectives, for a search."""
    config = HydraConfig.get()
    made = read_once(config.sweep.dir)
    overrides = tuple(points.drop_group_overrides(config.overrides.task))
    with without_hydra():
        done = run_point(made, overrides)
    print(describe_outcome(done, made), flush=True)
    return objective_values(done, made)


@cache
def read_once(folder: str) -> Plan:
    """The plan, with the options that it has loaded: a process that runs many points reads both once."""
    return plan.read_plan(Path(folder))


def describe_outcome(done: Outcome, made: Plan) -> str:
    """One point in one line."""
    settings = points.settings_by_key(done.overrides)
    swept = " ".join(f"{key.rpartition('.')[2]}={settings[key]}" for key in made.keys if key in settings)
    if not done.ok:
        return f"{done.name}  failed  {swept}: {done.reason}"
    took = "restored" if done.restored else f"{sum(done.seconds.values()):.1f} s"
    return f"{done.name}  {took}  {swept}" + "".join(f"; {name} failed: {reason}" for name, reason in done.failed_subjects.items())


def objective_values(done: Outcome, made: Plan) -> tuple[float, ...] | None:
    """The objectives of the search's subject, in their order; None where it failed or one of them was not measured."""
    subject = made.subject or next(iter(done.subjects), None)
    if not done.ok or subject not in done.summary["variants"]:
        return None
    (row,) = make_rows(replace(done, subjects=(str(subject),)), made)
    return row.values


def patch_submitit(launcher: str) -> None:
    """Let submitit, where it is the launcher, ask squeue and survive lost jobs. launcher: dotted path of Hydra's launcher class."""
    if not launcher.startswith("hydra_plugins.hydra_submitit_launcher."):
        return
    from submitit.local.local import LocalJob
    from submitit.slurm.slurm import SlurmJob

    SlurmJob.watcher = make_queue_watcher()
    kinds: tuple[Any, ...] = (LocalJob, SlurmJob)
    for kind in kinds:
        kind.results = tolerate_lost_jobs(kind.results)


def make_queue_watcher() -> Any:
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            return list(SQUEUE) if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            return parse_queue(string if isinstance(string, str) else string.decode(), self._registered)

    return QueueWatcher(delay_s=ASK_S)


def parse_queue(listed: str, jobs: set[str]) -> dict[str, dict[str, str]]:
    """{job: {"State": PENDING, RUNNING, COMPLETED, CANCELLED ...}}, as submitit takes them. listed: what squeue printed."""
    known = dict(line.split(maxsplit=1) for line in listed.splitlines() if " " in line.strip())
    return {job: {"State": known.get(job, GONE)} for job in jobs}


def tolerate_lost_jobs(results: Callable[[Any], list[Any]]) -> Callable[[Any], list[Any]]:
    """submitit's `results`, changed not to raise for a job that left no result: its point is failed, the others go on."""
    from hydra.core.utils import JobReturn, JobStatus
    from submitit.core.utils import FailedJobError, UncompletedJobError

    def results_or_failure(job: Any) -> list[Any]:
        try:
            return results(job)
        except UncompletedJobError:
            reason = f"{job.state}, without a result"
        except FailedJobError as error:
            reason = summarize_error(str(error))
        overrides, *_ = job.submission().args
        folder = Path(job.paths.folder).parents[1]  # SWEEP/.submitit/JOB
        record_lost_point(plan.read_plan(folder), overrides, f"the scheduler ended its job {job.job_id}: {reason}", str(job.paths.stderr))
        return [JobReturn(overrides=overrides, status=JobStatus.COMPLETED)]

    return results_or_failure
