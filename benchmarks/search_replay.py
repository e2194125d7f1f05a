"""A search replayed over a stored grid: how much of the grid's front it finds with a quarter of the evaluations.

    python -m benchmarks.search_replay search-grid.json                  --search NAME of conf/sweep/search/, --seeds 20, --share 0.25

The grid is one of benchmarks.search_grid or slim_grid. Hydra's own sweeper picks points, with the sampler and the directions of
conf/sweep/search/NAME.yaml; a launcher looks the results up instead of running jobs. It is compared with as many different points drawn
at random with the same seeds, by the hypervolume (Zitzler and Thiele, 1999): every objective is scaled over the grid, 0 its best and 1 its
worst value, and the reference point is 1.1 in each, so that the ends of the front count. Exit code 1 if the target is missed.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.sweep.app import silence_optuna
from edgewise.sweep.points import parse_overrides

TARGET = 0.95  # of the hypervolume of the whole grid, in the median over the seeds
REFERENCE = 1.1  # in scaled objectives
Settings = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Grid:
    """choices: setting -> its values, as text. values: the objectives of every point, as measured. costs: scaled, small is good."""

    choices: Mapping[str, Sequence[str]]
    values: Mapping[Settings, tuple[float, ...]]
    costs: Mapping[Settings, np.ndarray]

    @property
    def points(self) -> list[Settings]:
        return list(self.values)

    def share(self, points: Sequence[Settings]) -> float:
        """The hypervolume of these points over that of all."""
        return hypervolume([self.costs[point] for point in points]) / hypervolume(list(self.costs.values()))


@dataclass
class Answers:
    """Stands in the place of a launcher of Hydra: the jobs are looked up. asked: every point, in order."""

    grid: Grid
    asked: list[Settings] = field(default_factory=list)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        from hydra.core.utils import JobReturn, JobStatus

        points = [settings(override.split("=", 1) for override in overrides) for overrides in job_overrides]
        self.asked += points
        return [JobReturn(_return_value=self.grid.values[point], status=JobStatus.COMPLETED) for point in points]


def settings(pairs: Any) -> Settings:
    return frozenset((key, text(value)) for key, value in pairs)


def text(value: Any) -> str:
    return str(value).lower()


def read(path: Path, directions: Mapping[str, str]) -> Grid:
    """directions: objective -> maximize or minimize."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    values = {settings(row["point"].items()): tuple(row[name] for name in directions) for row in stored["rows"]}
    signs = np.array([-1.0 if direction == "maximize" else 1.0 for direction in directions.values()])
    costs = signs * np.array(list(values.values()))
    low, span = costs.min(axis=0), np.ptp(costs, axis=0)
    scaled = (costs - low) / np.where(span == 0, 1.0, span)
    choices = {key: [text(value) for value in every] for key, every in stored["choices"].items()}
    return Grid(choices, values, dict(zip(values, scaled, strict=True)))


def hypervolume(costs: Sequence[np.ndarray]) -> float:
    from optuna._hypervolume import WFG  # type: ignore[attr-defined]  # optuna's packages export by import alone

    return float(WFG().compute(np.unique(np.array(costs), axis=0), np.full(len(costs[0]), REFERENCE)))


def configured(name: str) -> Any:
    """The configuration of a sweep with +search=NAME."""
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(Path.cwd()), version_base="1.3"):
        return compose("params", [f"+search={name}", f"hydra.searchpath=[file://{Path.cwd()}/conf/sweep]"], return_hydra_config=True)


def search(config: Any, grid: Grid, trials: int, seed: int) -> list[Settings]:
    """The points that Hydra's sweeper asks for, the same one as often as it asks."""
    from hydra.utils import instantiate
    from omegaconf import OmegaConf, open_dict

    own = config.hydra.sweeper.copy()
    silence_optuna(own._target_)
    with open_dict(own):
        own.params = draw_as(dict(config.hydra.sweeper.params), grid)
        own.n_trials, own.sampler.seed = trials, seed
    sweeper, answers = instantiate(own).sweeper, Answers(grid)
    with tempfile.TemporaryDirectory() as folder:
        sweeper.config, sweeper.launcher = OmegaConf.create({"hydra": {"sweep": {"dir": folder}}}), answers
        sweeper.hydra_context = object()
        sweeper.sweep([])
    return answers.asked


def draw_as(params: Mapping[str, Any], grid: Grid) -> dict[str, str]:
    """How each key of the grid is drawn: by the search's own range where that gives the values of the grid, else as one of them."""
    ranges = {key.lstrip("+"): str(given) for key, given in params.items() if str(given).startswith("range(")}
    chosen = {key: f"choice({','.join(values)})" for key, values in grid.choices.items()}
    return {key: ranges[key] if list_values(ranges.get(key)) == [*grid.choices[key]] else choice for key, choice in chosen.items()}


def list_values(sweep: str | None) -> list[str] | None:
    """The values of Hydra's range(start, stop, step), as text."""
    return [*parse_overrides([f"key={sweep}"])[0].sweep_string_iterator()] if sweep else None


def by_chance(grid: Grid, count: int, seed: int) -> list[Settings]:
    chosen = np.random.default_rng(seed).choice(len(grid.points), count, replace=False)
    return [grid.points[i] for i in chosen]


@dataclass(frozen=True)
class Replay:
    """One seed. evaluations: different points among those that the search asked for. Shares are of the grid's hypervolume."""

    seed: int
    evaluations: int
    search: float
    chance: float


def replay(config: Any, grid: Grid, trials: int, seed: int) -> Replay:
    asked = search(config, grid, trials, seed)
    return Replay(seed, len(set(asked)), grid.share(asked), grid.share(by_chance(grid, trials, seed)))


def verdict(replays: Sequence[Replay]) -> tuple[str, bool]:
    """One line, and whether the target is met."""
    found, chance = (statistics.median(shares) for shares in ([r.search for r in replays], [r.chance for r in replays]))
    ahead, behind = sum(r.search > r.chance for r in replays), sum(r.search < r.chance for r in replays)
    said = f"median: search {found:.1%}, chance {chance:.1%} of the grid's hypervolume; the search is ahead {ahead} times, behind {behind}"
    return f"{said}; target {TARGET:.0%} and better than chance", found >= TARGET and found > chance


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--search", default="pareto")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.25, help="of the grid's points, as evaluations")
    given = parser.parse_args()
    config = configured(given.search)
    grid = read(given.grid, config.search.objectives)
    trials = int(given.share * len(grid.points))
    print(f"{len(grid.points)} points, {trials} evaluations, {config.hydra.sweeper.sampler._target_}\nseed  different  search  chance")
    replays = []
    for seed in range(given.seeds):
        replays.append(made := replay(config, grid, trials, seed))
        print(f"{seed:4}  {made.evaluations:9}  {made.search:6.1%}  {made.chance:6.1%}", flush=True)
    said, met = verdict(replays)
    print(said)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
