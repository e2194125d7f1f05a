"""A study: a question with choices of its own (conf/studies/NAME.yaml), answered in a shared clone; what it found comes back."""

import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edgewise.artifacts.artifact import building, write_json
from edgewise.artifacts.records import METRICS, SUMMARY, Summary, read_summary
from edgewise.config.compose import Options
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError, InfrastructureError
from edgewise.sweep import clone
from edgewise.sweep.clone import DVC, environment, take_snapshot
from edgewise.sweep.plan import HOME, LAST
from edgewise.sweep.points import compose_point
from edgewise.sweep.start import dvc_cache_folder

CONF = Path("conf/studies")
RESULTS = METRICS / "studies"
NOT_BROUGHT = ("studies", "sweeps", ".gitignore")


def conduct(root: Path, name: str, overrides: Sequence[str]) -> Summary:
    """Run the study in a clone, then put its results into metrics/studies/NAME. overrides: Hydra's, over the study's choices.

    The clone is made anew from the working tree each time; DVC's cache is the project's, so what was done before is not done again.
    """
    chosen = compose_point(read(root, name), tuple(overrides), Options(root / "conf"))
    code, folder = take_snapshot(root), root / HOME / "studies" / name
    clone.make_clone(clone.Parent(root, code, dvc_cache_folder(root)), folder, chosen.params)
    begun = time.monotonic()
    done = subprocess.run((*DVC, "repro", LAST), cwd=folder, env=environment(folder))
    if done.returncode:
        raise InfrastructureError(
            f"study {name}: `dvc repro` ended with exit code {done.returncode}, see above; the same command goes on from there"
        )
    provenance = {"commit": code.head, "uncommitted": list(code.carried), "seconds": round(time.monotonic() - begun, 1)}
    bring_back(folder, root / RESULTS / name, provenance)
    return read_summary(folder / SUMMARY)


def read(root: Path, name: str) -> str:
    known = sorted(path.stem for path in (root / CONF).glob("*.yaml"))
    if name not in known:
        raise ConfigError(f"there is no study {name!r} in {CONF}; {nearest(name, known)}")
    return (root / CONF / f"{name}.yaml").read_text(encoding="utf-8")


def bring_back(folder: Path, target: Path, provenance: dict[str, object]) -> None:
    with building(target) as made:
        shutil.copy(folder / "params.yaml", made)
        for results in filter(Path.exists, (folder / METRICS, folder / "models/report")):
            shutil.copytree(results, made, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_BROUGHT))
        write_json(made / "provenance.json", provenance)
