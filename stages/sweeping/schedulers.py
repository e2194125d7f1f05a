"""Jobs that a scheduler ends: by scancel, the time limit, too much memory, a lost node.

By itself submitit asks `sacct` what became of a job, waits for ever on a cluster without accounting, and gives up the whole sweep on the
first job that left no result. Here `squeue` is asked, which every cluster has, and such a job becomes a failed point that names the reason.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from stages.sweeping import plan
from stages.sweeping.commands import last_words
from stages.sweeping.job import lost

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
