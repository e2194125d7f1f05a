"""What a sweep costs beyond the stages' own work, and whether the cost of a point grows with their number.

    python -m benchmarks.sweep_overhead --points 100

Sweeps the pipeline of tests/support/toy_pipeline.py, whose quantizer is a formula, one point after the other in a temporary
project. The time of each stage's command is subtracted; the rest is the sweep's: checking, cloning, DVC around the stages, saving, pushing.
Wall time depends on other load, CPU time hardly. Exit code 1 where a point costs more than 8 s, or the last
tenth of the points more than the first one by a tenth.
"""

import argparse
import itertools
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support import toy_pipeline
from tests.support.toy_pipeline import VARIANT
from tests.support.workspace import Workspace

MOST_S, GROWTH = 8.0, 1.1
TENTH = 10
NAME = "overhead"
TICKS = os.sysconf("SC_CLK_TCK")
FIRST = 1000  # calibration samples of the first point: none that the toy fails or waits at
CLOCKED = "{{ begun=$(date +%s.%N); {command}; }} && {{ echo stage $begun $(date +%s.%N); times; }} >> $STAGE_LOG"
MINUTES = re.compile(r"(\d+)m([\d.]+)s")


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock and of processors."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)


def total(costs: Iterable[Cost]) -> Cost:
    every = list(costs)
    return Cost(sum(c.wall for c in every), sum(c.cpu for c in every))


def mean(costs: Sequence[Cost]) -> Cost:
    added = total(costs)
    return Cost(added.wall / len(costs), added.cpu / len(costs))


def make(folder: Path) -> Workspace:
    """The toy, with each stage's command clocked by its own shell."""
    made = toy_pipeline.make(folder)

    def clock(text: str) -> str:
        stages = yaml.safe_load(text)["stages"]
        for stage in stages.values():
            inner = stage.get("do", stage)
            inner["cmd"] = CLOCKED.format(command=inner["cmd"])
        return yaml.safe_dump({"stages": stages}, width=1000)

    made.edit("dvc.yaml", clock)
    made.run("git", "commit", "-qam", "Clock the stages")
    return made


def stages(log: Path) -> list[tuple[float, Cost]]:
    """When each stage's command ended, and what it cost. `times` prints what the shell took, then what its children took."""
    found = []
    lines = log.read_text(encoding="utf-8").splitlines()
    for i in range(0, len(lines), 3):
        _, begun, ended = lines[i].split()
        spent = sum(60 * int(minutes) + float(seconds) for line in lines[i + 1 : i + 3] for minutes, seconds in MINUTES.findall(line))
        found.append((float(ended), Cost(float(ended) - float(begun), spent)))
    return found


def spent_by(pid: int) -> float:
    """Processor seconds of a process and of its descendants that came to an end."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


@dataclass(frozen=True)
class Mark:
    """The clock and the processor seconds when a point, or what goes before the first, was whole."""

    at: float
    spent: float


def sweep(project: Workspace, count: int) -> list[Mark]:
    """Run it; a mark when the first point begins, one after each point, one at the end."""
    places = {"TOY_LOG": project.folder / ".edgewise/toy.log", "STAGE_LOG": project.folder / ".edgewise/stages.log"}
    given = [f"{key}={value}" for key, value in places.items()]
    key = f"variants.{VARIANT}.calibration.samples"
    command = ["env", *given, sys.executable, "-m", "edgewise.cli.main", "sweep", "--name", NAME, f"{key}=range({FIRST},{FIRST + count})"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command, cwd=project.folder, env=project.environment, stdout=subprocess.PIPE, text=True, bufsize=1)
    assert process.stdout
    marks: list[Mark] = []
    for line in process.stdout:
        if line.startswith((f"sweep {NAME}:", "sweep-")) and len(marks) <= count:
            marks.append(Mark(time.time(), spent_by(process.pid)))
            print(f"\r{len(marks) - 1} of {count} points", end="", file=sys.stderr)
    if process.wait():
        raise SystemExit(f"the sweep ended with exit code {process.returncode}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return [*marks, Mark(time.time(), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)]


def points(marks: Sequence[Mark], stages: Sequence[tuple[float, Cost]]) -> list[tuple[Cost, Cost]]:
    """Of every point what it cost, and what of that its stages took."""
    found = []
    for before, after in itertools.pairwise(marks[:-1]):
        own = total(cost for ended, cost in stages if before.at < ended <= after.at)
        found.append((Cost(after.at - before.at, after.spent - before.spent), own))
    return found


def phases(folder: Path) -> dict[str, float]:
    """Clock seconds a point by phase, the median over the points."""
    every: list[dict[str, Any]] = json.loads((folder / f"metrics/sweeps/{NAME}.json").read_text(encoding="utf-8"))["points"]
    return {phase: statistics.median(point["seconds"][phase] for point in every) for phase in every[0]["seconds"]}


def show(found: Sequence[tuple[Cost, Cost]]) -> list[Cost]:
    """A line for each tenth point that is asked about; returns the overheads."""
    print("points     seconds a point  stages  beyond   processor seconds a point  stages  beyond")
    overheads = []
    for last in sorted({min(TENTH, len(found)), len(found) // 2, len(found)}):
        group = found[max(0, last - TENTH) : last]
        whole, own = mean([w for w, _ in group]), mean([o for _, o in group])
        overheads.append(beyond := whole - own)
        place = f"{last - len(group) + 1}-{last}"
        print(f"{place:10} {whole.wall:15.1f} {own.wall:7.1f} {beyond.wall:7.1f} {whole.cpu:27.1f} {own.cpu:7.1f} {beyond.cpu:7.1f}")
    return overheads


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=100)
    count = parser.parse_args().points
    with tempfile.TemporaryDirectory() as place:
        project = make(Path(place))
        (project.folder / ".edgewise").mkdir()
        begun = time.time()
        marks = sweep(project, count)
        found = points(marks, stages(project.folder / ".edgewise/stages.log"))
        said = ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in phases(project.folder).items())
    print("\n", end="", file=sys.stderr)
    overheads = show(found)
    print(f"seconds a point by phase, stages in pipeline: {said}")
    print(f"before the first point {marks[0].at - begun:.1f} s ({marks[0].spent:.1f} of processors), ", end="")
    print(f"after the last {marks[-1].at - marks[-2].at:.1f} s ({marks[-1].spent - marks[-2].spent:.1f})")
    grown = overheads[-1].cpu > GROWTH * overheads[0].cpu
    return 1 if grown or max(cost.wall for cost in overheads) > MOST_S else 0


if __name__ == "__main__":
    sys.exit(main())
