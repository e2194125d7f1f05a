"""The search: no point twice, and what a replay over a stored grid says of it, against hypervolumes worked out by hand."""

import itertools
import json
import sys

import numpy as np
import optuna
import pytest

from benchmarks import search_replay
from benchmarks.search_replay import Replay, settings
from edgewise.sweep.sampler import NoRepeatTPESampler
from tests.conftest import ROOT

CHOICES = {
    "method": ("minmax", "entropy", "percentile"),
    "samples": (8, 32, 128),
    "per_channel": (True, False),
    "symmetric": (True, False),
    "keep_float": ("none", "first", "last"),
}
DIRECTIONS = {"accuracy_top1": "maximize", "latency_ratio_to_reference": "minimize", "size_bytes": "minimize"}


def row(point):
    """What quantization is like: a weak recipe costs accuracy, a layer in float costs time and bytes."""
    weak = (point["method"] == "minmax") + 0.5 * (not point["per_channel"]) + 4 / point["samples"]
    kept = ("none", "last", "first").index(point["keep_float"])
    return {
        "point": point,
        "accuracy_top1": 0.99 - 0.01 * weak + 0.004 * kept,
        "latency_ratio_to_reference": 0.2 + 0.03 * kept - 0.02 * point["symmetric"] + 0.01 * point["per_channel"],
        "size_bytes": 11_000_000 + 40_000 * kept + 15_000 * point["per_channel"],
    }


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """The file of a grid of 108 points that benchmarks.search_grid could have written."""
    monkeypatch.chdir(ROOT)
    points = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
    path = tmp_path / "grid.json"
    path.write_text(json.dumps({"choices": CHOICES, "rows": [row(point) for point in points]}))
    return path


def test_a_quarter_of_the_grid_is_enough_for_the_search_that_ships_and_no_point_is_asked_for_twice(stored, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["search_replay", str(stored), "--seeds", "5"])
    assert search_replay.main() == 0, capsys.readouterr().out
    said = capsys.readouterr().out
    assert "108 points, 27 evaluations, edgewise.sweep.sampler.NoRepeatTPESampler" in said
    assert [line.split()[1] for line in said.splitlines()[2:7]] == ["27"] * 5


def test_the_same_seed_asks_for_the_same_points(stored):
    config, grid = search_replay.configured("pareto"), search_replay.read(stored, DIRECTIONS)
    first, again, other = (search_replay.search(config, grid, 14, seed) for seed in (3, 3, 4))
    assert first == again != other


def test_the_share_is_of_the_hypervolume_of_all_points(tmp_path):
    """Accuracy 0, 0.5, 1 and size 0, 0.5, 1: scaled (1, 0), (0.5, 0.5), (0, 1); the boxes up to 1.1 by hand."""
    rows = [{"point": {"k": i}, "accuracy": i / 2, "size": i / 2} for i in range(3)]
    (tmp_path / "grid.json").write_text(json.dumps({"choices": {"k": [0, 1, 2]}, "rows": rows}))
    grid = search_replay.read(tmp_path / "grid.json", {"accuracy": "maximize", "size": "minimize"})
    middle, whole = 0.6 * 0.6, 2 * 0.11 + 0.36 - 2 * 0.06
    assert search_replay.hypervolume([np.array([0.5, 0.5])]) == pytest.approx(middle)
    assert grid.share([settings([("k", 1)])]) == pytest.approx(middle / whole) and grid.share(grid.points) == pytest.approx(1)


@pytest.mark.parametrize(("search", "chance", "met"), [(0.96, 0.9, True), (0.94, 0.9, False), (0.96, 0.97, False)])
def test_the_target_is_of_the_median_and_against_chance(search, chance, met):
    said, found = search_replay.verdict([Replay(0, 27, 0.5, chance), Replay(1, 27, search, chance), Replay(2, 27, 1.0, chance)])
    assert found is met and f"search {search:.1%}, chance {chance:.1%}" in said


def test_a_batch_that_is_asked_for_at_once_has_no_point_twice_until_none_is_left():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study, asked = optuna.create_study(sampler=NoRepeatTPESampler(seed=0, n_startup_trials=4)), []
    for size in (1, 4, 4, 3, 2):
        trials = [study.ask() for _ in range(size)]  # as Hydra does: first all are asked for, then their keys are looked at
        for trial in trials:
            asked.append((trial.suggest_categorical("a", ["x", "y", "z"]), trial.suggest_categorical("b", ["1", "2", "3", "4"])))
            study.tell(trial, float(asked[-1][1]))
    assert len(set(asked[:12])) == 12 and len(asked) == 14


STORED = ROOT / "benchmarks/slim_grid.json"


def test_the_stored_grid_of_slim_nets_has_the_values_of_the_search(monkeypatch):
    monkeypatch.chdir(ROOT)
    config = search_replay.configured("slim")
    grid = search_replay.read(STORED, config.search.objectives)
    drawn = search_replay.draw_as(dict(config.hydra.sweeper.params), grid)
    own = {key.lstrip("+"): value for key, value in config.hydra.sweeper.params.items()}
    assert len(grid.points) >= 60 and drawn.keys() <= own.keys()
    assert {key: text.replace(" ", "") for key, text in drawn.items()} == {key: own[key].replace(" ", "") for key in drawn}


@pytest.mark.slow
def test_the_search_for_slim_nets_is_worth_its_evaluations(monkeypatch):
    """A quarter of the stored grid gives 94 % of its hypervolume, and more than chance for at least 14 of 20 seeds."""
    monkeypatch.chdir(ROOT)
    config = search_replay.configured("slim")
    grid = search_replay.read(STORED, config.search.objectives)
    replays = [search_replay.replay(config, grid, len(grid.points) // 4, seed) for seed in range(20)]
    assert np.median([each.search for each in replays]) >= 0.94
    assert sum(each.search > each.chance for each in replays) >= 14
