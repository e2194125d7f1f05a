"""Hydra's launcher for Ray, named in conf/sweep/hydra/launcher/ray.yaml: each point a task. Hydra takes plugins of this package only.

hydra-ray-launcher 1.2.2 needs cloudpickle below 3, joblib 1.6 one from 3 on: they cannot be installed together.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RayLauncher(Launcher):
    def __init__(self, address: str | None, num_cpus: int | None, cpus_per_point: float):
        self.init = {"address": address, "num_cpus": num_cpus}
        self.cpus_per_point = cpus_per_point

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.given = hydra_context, config, task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        import ray
        from hydra_plugins.hydra_joblib_launcher._core import execute_job

        ray.init(**self.init, log_to_driver=True, include_dashboard=False, logging_level="ERROR")
        try:
            task = ray.remote(num_cpus=self.cpus_per_point, max_retries=0)(execute_job)
            state = Singleton.get_state()
            tasks = [task.remote(initial_job_idx + i, tuple(given), *self.given, state) for i, given in enumerate(job_overrides)]
            return [self.fetch(task, given) for task, given in zip(tasks, job_overrides, strict=True)]
        finally:
            ray.shutdown()

    def fetch(self, task: Any, overrides: Sequence[str]) -> JobReturn:
        """What a task returns. One that was killed, or whose node was lost, is a failed point; the others go on."""
        import ray

        from edgewise.sweep import execution, plan

        try:
            ended: JobReturn = ray.get(task)
        except ray.exceptions.RayError as error:
            what = f"Ray ended its task: {type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            execution.record_lost_point(plan.read_plan(Path(self.given[1].hydra.sweep.dir)), overrides, what, "`ray logs`")
            return JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
        return ended
