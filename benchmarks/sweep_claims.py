"""Checks what docs/scaling.md says about sweeps, at a size that no test suite has time for. Exit code 1 at the first claim that fails.

    python -m benchmarks.sweep_claims twelve        12 points of a small model, serial and two at once, against `dvc exp run`
    python -m benchmarks.sweep_claims at-once       8 jobs at once, five times over, on the toy pipeline of the tests

Runs in its own projects in the temporary folder. `twelve` measures, so keep the machine otherwise idle.
"""

import argparse
import copy
import itertools
import json
import math
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from tests.support import toy_pipeline
from tests.support.toy_pipeline import VARIANT
from tests.support.workspace import TINY, Workspace

SETTINGS = {"calibration.method": ("minmax", "entropy", "percentile"), "calibration.samples": (16, 64), "per_channel": ("true", "false")}
POINTS = math.prod(map(len, SETTINGS.values()))  # 12
ONCE = re.compile(r"^Running stage '((?:train-export|convert-)[^']*)'", re.M)
JOBS, TIMES = 8, 5
FIRST = 1000  # calibration samples of the toy's first point


def must(held: bool, claim: str) -> None:
    print(f"{'holds' if held else 'DOES NOT HOLD'}: {claim}", flush=True)
    if not held:
        sys.exit(1)


def run(project: Workspace, *command: str) -> str:
    place = f"TOY_LOG={project.folder}/.edgewise/toy.log"
    done = project.run("env", place, *command, timeout=3600)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` ended with exit code {done.returncode}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    output: str = done.stdout
    return output


def show(project: Workspace, ref: str, file: str) -> str:
    return run(project, "git", "show", f"{ref}:{file}")


def refs(project: Workspace, name: str = "sweep-*") -> list[str]:
    return run(project, "git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").split()


def measured(project: Workspace, ref: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(show(project, ref, "metrics/summary.json"))["variants"][VARIANT]
    return row


def summary_rows(project: Workspace, name: str) -> dict[str, dict[str, Any]]:
    """By point."""
    return {row["point"]: row for row in json.loads((project.folder / f"metrics/sweeps/{name}.json").read_text())["rows"]}


def mixed_up(project: Workspace, name: str, every: list[str]) -> list[str]:
    """The refs whose settings or results are not those that the sweep's summary has for the point."""
    rows, wrong = summary_rows(project, name), []
    for ref in every:
        row, params = rows[ref.rpartition("/")[2]], yaml.safe_load(show(project, ref, "params.yaml"))["variants"][VARIANT]
        given = {key.removeprefix(f"variants.{VARIANT}."): yaml.safe_load(value) for key, value in row["settings"].items()}
        own = {key: params["calibration"][key.partition(".")[2]] if "." in key else params[key] for key in given}
        wrong += [ref] if own != given or measured(project, ref) != row["result"] else []
    return wrong


def children(project: Workspace, name: str) -> int:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{project.folder}/mlflow.db")
    runs = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    (parent,) = [run.info.run_id for run in runs if run.info.run_name == f"sweep {name}"]
    return sum(run.data.tags.get("mlflow.parentRunId") == parent for run in runs)


def twelve() -> None:
    found = {}
    for name, launcher in {"serial": (), "joblib": ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")}.items():
        with tempfile.TemporaryDirectory() as place:
            found[name] = twelve_points(small_project(Path(place)), name, launcher)
    must(found["serial"] == found["joblib"], "serial and joblib give the same accuracy and size at each of the points")


def small_project(folder: Path) -> Workspace:
    params = copy.deepcopy(TINY)
    params["bench"], params["train"]["epochs"] = {"name": "quick", "max_s": 15}, 20
    params["variants"] = {name: params["variants"][name] for name in ("onnx-fp32", VARIANT)}
    params["variants"][VARIANT].update(calibration={"samples": None, "method": None}, per_channel=None)
    return Workspace(folder, params)


def twelve_points(project: Workspace, name: str, launcher: tuple[str, ...]) -> dict[str, tuple[float, int]]:
    """Accuracy and size by settings."""
    swept = [f"variants.{VARIANT}.{key}={','.join(map(str, values))}" for key, values in SETTINGS.items()]
    begun = time.monotonic()
    run(project, "python", "-m", "edgewise.cli.main", "sweep", "--name", name, *launcher, *swept)
    every = refs(project)
    must(
        len(every) == POINTS == children(project, name), f"{name}: {POINTS} refs and {POINTS} children in {time.monotonic() - begun:.0f} s"
    )
    must(not mixed_up(project, name, every), f"{name}: the params of each ref match its metrics")
    logs = [path.read_text() for path in (project.folder / f".edgewise/sweeps/{name}/logs").glob("sweep-*.log")]
    must(len(logs) == POINTS and not any(map(ONCE.findall, logs)), f"{name}: no point trains or converts")
    by_hand(project, every[0])
    rows = summary_rows(project, name).values()
    return {json.dumps(row["settings"], sort_keys=True): (row["result"]["accuracy_top1"], row["result"]["size_bytes"]) for row in rows}


def by_hand(project: Workspace, ref: str) -> None:
    """One point as `dvc exp run` makes it, measured anew: its run of the pipeline shares nothing with the sweep but DVC's cache."""
    params = yaml.safe_load(show(project, ref, "params.yaml"))["variants"][VARIANT]
    swept = {key: params["calibration"][key.partition(".")[2]] if "." in key else params[key] for key in SETTINGS}
    given = itertools.chain.from_iterable(("-S", f"variants.{VARIANT}.{key}={str(value).lower()}") for key, value in swept.items())
    run(project, "dvc", "exp", "run", "--temp", "--name", "by-hand", *given)
    run(project, "dvc", "exp", "apply", "by-hand")
    run(project, "dvc", "repro", "--single-item", "--force", f"bench-on-device@{VARIANT}")  # else DVC restores the sweep's figures
    run(project, "dvc", "repro", "--single-item", "report")
    again = json.loads((project.folder / "metrics/summary.json").read_text())["variants"][VARIANT]
    there = measured(project, ref)
    must(again["quality"]["score"] == there["quality"]["score"], f"accuracy is that of `dvc exp run`: {there['quality']['score']:.6f}")
    (low, high), ratio = there["latency"]["ratio_ci95"], again["latency"]["ratio_to_reference"]
    must(low <= ratio <= high, f"latency over the reference's, measured again, {ratio:.3f} lies in the point's [{low:.3f}, {high:.3f}]")


def at_once() -> None:
    with tempfile.TemporaryDirectory() as place:
        project = toy_pipeline.make(Path(place))
        (project.folder / ".edgewise").mkdir()
        known: list[str] = []
        for number in range(TIMES):
            samples, name = FIRST + JOBS * number, f"round{number}"
            parallel = ("hydra/launcher=joblib", f"hydra.launcher.n_jobs={JOBS}")
            swept = f"variants.{VARIANT}.calibration.samples=range({samples},{samples + JOBS})"
            run(project, "python", "-m", "edgewise.cli.main", "sweep", "--name", name, *parallel, swept)
            new = [ref for ref in refs(project) if ref not in known]
            must(len(new) == JOBS and not mixed_up(project, name, new), f"{name}: {JOBS} of {JOBS}, the params of each match its metrics")
            known += new
        must(len(refs(project)) == JOBS * TIMES, f"{JOBS * TIMES} experiments in the end, none lost or doubled")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    claims = {"twelve": twelve, "at-once": at_once}
    parser.add_argument("claim", choices=claims)
    claims[parser.parse_args().claim]()
