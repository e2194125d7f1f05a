"""The parts of a sweep that need no pipeline: points, common stages, code, effects against scipy, the front, importances."""

import itertools
import re
import sys
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from edgewise.config.compose import Options
from edgewise.errors import ConfigError, MissingExtra
from edgewise.sweep import app, clone, plan, points, start
from edgewise.sweep.effects import bin_numbers, importances, main_effects
from edgewise.sweep.plan import Stage
from edgewise.sweep.summary import Row, mark_front, mark_fronts, warn_of_references
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("parsed_once")

STATIC = "variants.onnx-int8-static"


def test_a_point_measures_what_its_params_say(monkeypatch):
    """Whatever profile the shell that starts the sweep names."""
    monkeypatch.setenv("EDGEWISE_PROFILE", "smoke")
    assert "EDGEWISE_PROFILE" not in clone.environment(ROOT) and "HOME" in clone.environment(ROOT)


@pytest.fixture(scope="module")
def options():
    return Options(ROOT / "conf")


def checked(options, *arguments):
    return points.compose_all((ROOT / "params.yaml").read_text(), points.grid_points(arguments), options)


def test_a_grid_is_every_combination(options):
    made = checked(options, f"{STATIC}.calibration.method=minmax,entropy", f"{STATIC}.per_channel=true,false", "seed=3")
    assert len(made) == 4 and {point.config.seed for point in made} == {3}
    found = {(p.config.variants["onnx-int8-static"].calibration.method, p.config.variants["onnx-int8-static"].per_channel) for p in made}
    assert found == set(itertools.product(("minmax", "entropy"), (True, False)))
    every = [point.overrides for point in made]
    assert points.swept_keys(every) == [f"{STATIC}.calibration.method", f"{STATIC}.per_channel"]
    assert points.judged_variants(points.swept_keys(every), every[0], made[0].config) == ["onnx-int8-static"]


@pytest.mark.parametrize("lines_up", [points.grid_points, points.representative_points])
@pytest.mark.parametrize("value", ["range(5,5)", "range(5,1)", "range(0,10,0)"])
def test_a_range_without_a_value_is_named(lines_up, value):
    with pytest.raises(ConfigError, match=re.escape(f"seed={value}: no value lies in it; ")):
        lines_up(["train.epochs=1,2", f"seed={value}"])


def test_a_sweep_over_schemes_is_about_the_variant_that_each_point_adds(options):
    choices = [f"{{onnx-{s}-swept: {{format: onnx, scheme: {s}}}}}" for s in ("int8-static", "int8-dynamic")]
    made = checked(options, f"+variants={','.join(choices)}")
    assert [points.judged_variants(["variants"], p.overrides, p.config) for p in made] == [
        ["onnx-int8-static-swept"],
        ["onnx-int8-dynamic-swept"],
    ]


def test_a_key_of_all_variants_is_about_all_of_them(options):
    (point,) = checked(options, "device.threads=2")
    assert points.judged_variants(["device.threads"], point.overrides, point.config) == list(point.config.variants)


def test_the_name_depends_on_the_choices_the_code_and_the_inputs(options):
    one, other = checked(options, f"{STATIC}.per_channel=true,false")
    inputs = {"data": "d", "device": "f"}
    names = [
        points.point_name(one, "c", inputs),
        points.point_name(other, "c", inputs),
        points.point_name(one, "x", inputs),
        points.point_name(one, "c", {**inputs, "device": "g"}),
    ]
    assert len(set(names)) == 4 and names[0] == points.point_name(one, "c", dict(reversed(inputs.items())))
    (spelled,) = checked(options, f"++{STATIC}.per_channel=True")
    assert points.point_name(spelled, "c", inputs) == names[0]


def test_a_search_is_checked_at_every_value_and_both_ends():
    made = points.representative_points(["a=choice(x,y,z)", "b=interval(1.5,4.5)", "c=range(1,9,2)", "d=7", "+search=pareto"])
    assert made[0] == ("a=x", "b=1.5", "c=1", "d=7")
    assert set(made[1:]) == {
        ("a=y", "b=1.5", "c=1", "d=7"),
        ("a=z", "b=1.5", "c=1", "d=7"),
        ("a=x", "b=4.5", "c=1", "d=7"),
        ("a=x", "b=1.5", "c=7", "d=7"),
    }


@pytest.mark.parametrize("name", [path.stem for path in (ROOT / "conf/sweep/search").glob("*.yaml")])
def test_every_search_that_ships_has_points_that_are_valid(name, options):
    from hydra import compose, initialize_config_dir

    search = ["+search=" + name, f"hydra.searchpath=[file://{ROOT}/conf/sweep]"]
    with initialize_config_dir(str(ROOT), version_base="1.3"):
        config = compose("params", search, return_hydra_config=True)
    every = points.representative_points([f"{key}={value}" for key, value in config.hydra.sweeper.params.items()])
    made = points.compose_all((ROOT / "params.yaml").read_text(), every, options)
    assert len(made) > 4 and config.search.subject in made[0].config.variants
    directions = [str(getattr(direction, "name", direction)) for direction in config.hydra.sweeper.direction]
    assert directions == list(start.choose_objectives(config.search.objectives, made).values())


def test_the_name_of_a_sweep_does_not_hang_on_who_launches_it():
    arguments = [f"{STATIC}.calibration.method=minmax,entropy", "seed=1"]
    name, rest = plan.split_off_name([*arguments, "hydra/launcher=joblib", "hydra.launcher.n_jobs=4"])
    assert (
        name.startswith("method-") and name == plan.split_off_name(arguments)[0] != plan.split_off_name([*arguments, "train.epochs=1"])[0]
    )
    assert plan.split_off_name(["--name", "mine", *arguments]) == ("mine", arguments) and len(rest) == 4


def test_common_stages_are_those_that_no_point_changes(options):
    stages = [
        Stage("compose", (), ("conf",), ("models/config.yaml",)),
        Stage("train", ("model", "seed"), (), ("models/source",)),
        Stage("quantize@a", ("variants.onnx-fp32",), ("models/source",), ("models/variants/a",)),
        Stage("quantize@b", (STATIC,), ("models/source",), ("models/variants/b",)),
        Stage("evaluate@b", (), ("models/variants/b",), ("metrics/evaluate/b.json",)),
        Stage("report", (), ("metrics/evaluate", "models/variants"), ("metrics/summary.json",)),
        Stage("track", (), ("metrics/summary.json",), ()),
    ]
    ordered = plan.sort_stages(reversed(stages))
    configs = [point.config for point in checked(options, f"{STATIC}.per_channel=true,false")]
    assert set(plan.find_common_stages(ordered, configs)) == {"train", "quantize@a"}
    assert set(plan.find_common_stages(ordered, configs[:1])) == {"train", "quantize@a", "quantize@b", "evaluate@b"}
    assert plan.find_common_stages(ordered, [p.config for p in checked(options, "seed=1,2")]) == []
    unused = [*ordered, Stage("convert-x", ("model",), ("models/source",), ("models/x",))]
    assert plan.find_targets(unused, ["train", "convert-x"]) == ["report"] and plan.find_targets(unused, []) == ["report", "convert-x"]


def test_what_a_stage_of_the_user_reads_may_lie_outside_of_the_project(tmp_path):
    assert plan.name_inside(tmp_path / "a/b", tmp_path) == "a/b" and plan.name_inside(Path("/elsewhere/c"), tmp_path) == "/elsewhere/c"


def test_data_that_dvc_add_tracks_is_no_stage(tmp_path):
    """Its .dvc file has no name of a stage, nor may it stop the sweep."""
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc/config").write_text("[core]\n    no_scm = True\n")
    (tmp_path / "my.onnx.dvc").write_text("outs: [{md5: 9dd4e461268c8034f5c8564e155c67a6, size: 1, hash: md5, path: my.onnx}]\n")
    (tmp_path / "dvc.yaml").write_text("stages: {look: {cmd: 'true', deps: [my.onnx]}}\n")
    assert [(stage.name, stage.deps) for stage in plan.read_stages(tmp_path)] == [("look", ("my.onnx",))]


@pytest.mark.parametrize(
    ("objectives", "said"),
    [
        ({"format": "maximize"}, "'format' is not a number; "),
        ({"latency_ratio_ci95": "minimize"}, "'latency_ratio_ci95' is not a number; did you mean"),
        ({"emulated": "maximize"}, "is not a number"),
        ({"macro": "maximize"}, "unknown figure 'macro'; did you mean"),
    ],
)
def test_only_numbers_can_be_objectives(options, objectives, said):
    made = checked(options, "seed=1,2")
    with pytest.raises(ConfigError, match=f"search.objectives: .*{said}"):
        start.choose_objectives(objectives, made)
    usual = {"macro_f1": "maximize", "latency_p50_ms": "minimize", "size_bytes": "minimize", "energy_net_mj": "minimize"}
    assert start.choose_objectives(usual, made) == usual


def test_an_effect_of_two_levels_is_half_of_what_a_t_test_says():
    random = np.random.default_rng(0)
    values = np.concatenate([random.normal(1, 0.1, 8), random.normal(2, 0.1, 8)])
    effect = main_effects([{"k": "a"}] * 8 + [{"k": "b"}] * 8, values.tolist(), ["k"])["k"]
    oracle = stats.ttest_ind(values[:8], values[8:])
    low, high = oracle.confidence_interval(0.95)
    assert effect.levels["a"].effect == pytest.approx((values[:8].mean() - values[8:].mean()) / 2)
    assert effect.levels["a"].ci95 == pytest.approx((low / 2, high / 2))
    assert effect.share == pytest.approx(oracle.statistic**2 / (oracle.statistic**2 + oracle.df))


def test_effects_of_a_grid_are_the_means_of_the_levels_against_the_whole():
    grid = list(itertools.product("abc", "xy"))
    values = [{"a": 0.0, "b": 3.0, "c": 6.0}[k] + {"x": 1.0, "y": -1.0}[m] for k, m in grid]
    found = main_effects([{"k": k, "m": m} for k, m in grid], values, ["k", "m"])
    assert {n: round(level.effect, 9) for n, level in found["k"].levels.items()} == {"a": -3, "b": 0, "c": 3}
    assert found["m"].levels["x"].ci95 == pytest.approx((1.0, 1.0)) and found["k"].share + found["m"].share == pytest.approx(1)


def test_effects_that_the_points_cannot_tell_apart_are_not_made_up():
    found = main_effects([{"k": "a", "m": "x"}, {"k": "b", "m": "y"}], [1.0, 2.0], ["k", "m"])
    assert all(level.effect is None and level.ci95 is None for effect in found.values() for level in effect.levels.values())
    assert found["k"].share is None and found["k"].levels["a"].mean == 1.0


def test_many_numbers_become_three_classes():
    made = bin_numbers([str(n) for n in range(12)])
    assert sorted(set(made)) == ["0 to 3", "4 to 7", "8 to 11"] and bin_numbers(["8", "16", "8"]) == ["8", "16", "8"]


@pytest.mark.parametrize("odd", ["nan", "inf", "-inf"])
def test_words_that_python_reads_as_numbers_without_a_size_stay_words(odd):
    values = [odd, *map(str, range(10))]
    assert bin_numbers(values) == values
    found = main_effects([{"k": value} for value in values * 2], np.arange(22.0).tolist(), ["k"])["k"]
    assert list(found.levels) == [*map(str, range(10)), odd] and found.share is not None


def test_effects_need_no_scipy(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    assert main_effects([{"k": "a"}, {"k": "b"}] * 4, [1.0, 2.0, 1.1, 2.1] * 2, ["k"])["k"].levels["a"].ci95 is not None


def test_the_front_is_what_nothing_beats():
    random = np.random.default_rng(1)
    values = [tuple(v) for v in random.integers(0, 6, (60, 3)).astype(float)]
    rows = [Row(str(i), "v", {}, "ok", None, v, {}) for i, v in enumerate(values)] + [Row("x", "", {}, "failed", "why", None, {})]
    marked = mark_front(rows, {"accuracy_top1": "maximize", "latency_p50_ms": "minimize", "size_bytes": "minimize"})

    def beaten(own):
        return any(o[0] >= own[0] and o[1] <= own[1] and o[2] <= own[2] and o != own for o in values)

    assert [row.front for row in marked] == [not beaten(v) for v in values] + [False]


def test_ratios_to_different_references_are_not_compared(options):
    one, threads, own = checked(options, "device.threads=1,2") + checked(options, f"{STATIC}.per_channel=true")
    assert points.reference_digest(one.config) != points.reference_digest(threads.config)
    assert points.reference_digest(checked(options, f"{STATIC}.per_channel=false")[0].config) == points.reference_digest(own.config)
    ratio = {"latency_ratio_to_reference": "minimize"}
    rows = [Row(str(i), "v", {}, "ok", None, (v,), {}, reference) for i, (v, reference) in enumerate([(0.5, "a"), (0.6, "a"), (0.9, "b")])]
    assert [row.front for row in mark_fronts(rows, ratio)] == [True, False, True]
    assert [row.front for row in mark_fronts(rows, {"size_bytes": "minimize"})] == [True, False, False]
    assert "there are 2, and latency_ratio_to_reference cannot be compared" in warn_of_references(rows, ratio)[0]
    assert not warn_of_references(rows[:2], ratio) and not warn_of_references(rows, {"size_bytes": "minimize"})


@pytest.mark.parametrize(
    ("argument", "package", "extra"),
    [
        ("hydra/launcher=ray", "ray", "ray"),
        ("hydra/launcher=submitit_slurm", "hydra-submitit-launcher", "sweep"),
        ("+search=pareto", "hydra-optuna-sweeper", "sweep"),
    ],
)
def test_a_launcher_that_is_not_installed_is_named_with_the_command_that_installs_it(argument, package, extra, monkeypatch):
    def without(name):
        if name == package:
            raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(app.metadata, "distribution", without)
    with pytest.raises(
        MissingExtra, match=re.escape(f"'{package}' is not installed; install it with: pip install -c constraints.txt 'edgewise[{extra}]'")
    ):
        app.require_plugins(["seed=1,2", argument])


@pytest.mark.parametrize(
    ("status", "said"), [(3, "exit code 3"), (-15, "ended by SIGTERM"), (137, "ended by SIGKILL"), (128 + 100, "exit code 228")]
)
def test_how_a_command_ended_is_said_in_words(status, said):
    assert said in clone.describe_exit(status)


def test_what_squeue_says_of_a_job():
    assert app.parse_queue("7_0 CANCELLED\n7_1 RUNNING\n\n9 PENDING\n", {"7_0", "7_1", "8"}) == {
        "7_0": {"State": "CANCELLED"},
        "7_1": {"State": "RUNNING"},
        "8": {"State": "GONE"},
    }


def test_importances_find_the_key_that_matters():
    settings = [{"k": str(i % 3), "m": str(i % 2)} for i in range(24)]
    found = importances(settings, [float(s["k"]) for s in settings], ["k", "m"])
    assert next(iter(found)) == "k" and found["k"] > 0.9 and sum(found.values()) == pytest.approx(1)
    assert importances(settings[:4], [1.0, 2.0, 3.0, 4.0], ["k", "m"]) == {}
