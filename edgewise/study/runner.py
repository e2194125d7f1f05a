"""Run a study in a shared clone: conf/studies/NAME.yaml takes the place of params.yaml; the results are copied back and shown."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from edgewise.artifacts.artifact import building, write_json
from edgewise.artifacts.records import METRICS, SUMMARY, Summary, read_summary
from edgewise.config.compose import Options
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError, InfrastructureError
from edgewise.report import changes
from edgewise.sweep import clone
from edgewise.sweep.clone import DVC, environment, take_snapshot
from edgewise.sweep.plan import HOME, LAST
from edgewise.sweep.points import compose_point
from edgewise.sweep.start import dvc_cache_folder

CONF = Path("conf/studies")
RESULTS = METRICS / "studies"
NOT_COPIED = ("studies", "sweeps", ".gitignore")
SCORED = "evaluate"  # the stages that score variants, the last before they are measured


def run_study(root: Path, name: str, overrides: Sequence[str]) -> Summary:
    """Run the study in a clone and copy its results to metrics/studies/NAME. overrides: Hydra's, over the study's choices.

    The clone is made from the working tree each time. It shares the project's DVC cache, so finished stages are not run again.
    Raises ConfigError for an unknown study, wrong choices, or a study that another process runs, InfrastructureError where `dvc repro`
    fails.
    """
    with study_lock(root, name):
        code, folder = make_clone(root, name, overrides)
        begun = time.monotonic()
        reproduce(folder, LAST)
        provenance = {"commit": code.head, "uncommitted": list(code.carried), "seconds": round(time.monotonic() - begun, 1)}
        copy_results_back(folder, root / RESULTS / name, provenance)
        return read_summary(folder / SUMMARY)


def make_variants(root: Path, name: str, overrides: Sequence[str]) -> None:
    """Make and score the variants of the study and measure nothing: a later `run_study` of the same choices finds them in DVC's cache.
    Raises as `run_study`."""
    with study_lock(root, name):
        _, folder = make_clone(root, name, overrides)
        reproduce(folder, SCORED)


def study_lock(root: Path, name: str) -> AbstractContextManager[None]:
    """Hold the lock of a study: a second process would empty the clone that the first works in."""
    read_study(root, name)  # an unknown one leaves no file
    path = root / HOME / "studies" / f"{name}.lock"
    return clone.hold_lock(path, f"the study {name} is already running in another process; wait for it to end")


def make_clone(root: Path, name: str, overrides: Sequence[str]) -> tuple[clone.Code, Path]:
    """The snapshot of the code, and the clone of it with the choices of the study."""
    chosen = compose_point(read_study(root, name), tuple(overrides), Options(root / "conf"))
    code, folder = take_snapshot(root), root / HOME / "studies" / name
    clone.make_clone(clone.Parent(root, code, dvc_cache_folder(root)), folder, chosen.params)
    return code, folder


def reproduce(folder: Path, stage: str) -> None:
    """`dvc repro` of a stage in the clone of a study."""
    done = subprocess.run((*DVC, "repro", stage), cwd=folder, env=environment(folder))
    if done.returncode:
        raise InfrastructureError(
            f"study {folder.name}: `dvc repro` ended with exit code {done.returncode}, see above; run the same command again to go on"
        )


def read_study(root: Path, name: str) -> str:
    """The text of conf/studies/NAME.yaml. Raises ConfigError for an unknown study."""
    known = sorted(path.stem for path in (root / CONF).glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"unknown study {name!r} in {CONF}; {nearest(name, known)}")
    return (root / CONF / f"{name}.yaml").read_text(encoding="utf-8")


def copy_results_back(folder: Path, target: Path, provenance: dict[str, object]) -> None:
    """Copy the choices, metrics and report of the clone `folder` to `target`, with the provenance."""
    with building(target) as made:
        shutil.copy(folder / "params.yaml", made)
        for results in filter(Path.exists, (folder / METRICS, folder / "models/report")):
            shutil.copytree(results, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_COPIED))
        write_json(made / "provenance.json", provenance)


def run_and_show(name: str, overrides: Sequence[str]) -> None:
    """Run the study, and show and keep what it gained. overrides: Hydra's, over the choices of conf/studies/NAME.yaml."""
    root = Path.cwd()
    summary = run_study(root, name, overrides)
    table = changes.gains_table(summary)
    (root / RESULTS / name / "gains.md").write_text(table, encoding="utf-8")
    print(f"{table}\nall of it: {RESULTS / name}")
