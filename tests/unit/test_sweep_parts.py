"""The parts of a sweep that need no pipeline: points, common stages, code, effects against scipy, the front, importances."""

import itertools
import re
import subprocess
import sys
from dataclasses import replace
from importlib import metadata

import numpy as np
import pytest
from scipy import stats

from edgewise.config.compose import Options
from edgewise.errors import ConfigError, MissingExtra
from edgewise.sweep import app, clone, execution, plan, points, start
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
    assert len(made) > 5 and config.search.subject in made[0].config.variants
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


@pytest.fixture
def repository(tmp_path):
    def git(*arguments, folder=tmp_path):
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always")
        return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    tmp_path.joinpath("a.py").write_text("a")
    return tmp_path, git


def test_a_repository_without_a_commit_is_refused(repository):
    with pytest.raises(ConfigError, match="has no commit"):
        clone.take_snapshot(repository[0])


def test_a_project_in_a_subfolder_of_a_repository_is_refused(repository):
    root, git = repository
    (root / "tools/camera").mkdir(parents=True)
    (root / "tools/camera/params.yaml").write_text("seed: 0\n")
    git("add", "-A")
    git("commit", "-qm", "Start")
    with pytest.raises(ConfigError, match=r"is the folder tools/camera/ of a larger repository"):
        clone.take_snapshot(root / "tools/camera")


def test_the_snapshot_has_what_is_not_committed_and_leaves_the_index_alone(repository):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    clean = clone.take_snapshot(root)
    root.joinpath("a.py").write_text("b")
    root.joinpath("new.py").write_text("n")
    root.joinpath("params.yaml").write_text("seed: 0")
    status = git("status", "--porcelain")
    dirty = clone.take_snapshot(root)
    assert git("show", f"{dirty.tree}:a.py") == "b" and git("show", f"{dirty.tree}:new.py") == "n"
    assert clean.carried == () and dirty.carried == ("a.py", "new.py") and git("status", "--porcelain") == status
    root.joinpath("params.yaml").write_text("seed: 1")
    assert clone.take_snapshot(root).key == dirty.key != clean.key


def test_comments_docstrings_and_documents_do_not_change_the_key(repository):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    before = clone.take_snapshot(root).key
    root.joinpath("a.py").write_text('"""What a is."""\n\na  # a\n')
    root.joinpath("README.md").write_text("new")
    assert clone.take_snapshot(root).key == before
    root.joinpath("a.py").write_text("a = 1")
    changed = clone.take_snapshot(root).key
    root.joinpath("conf.yaml").write_text("a: 1")
    assert len({before, changed, clone.take_snapshot(root).key}) == 3


def test_a_file_for_another_python_counts_by_its_content(repository):
    root, git = repository
    root.joinpath("old.py").write_text("print 1")
    git("add", "-A")
    git("commit", "-qm", "Start")
    before = clone.take_snapshot(root).key
    root.joinpath("old.py").write_text("print 2")
    assert clone.take_snapshot(root).key != before


def test_a_clone_of_a_checkout_has_its_own_library(repository):
    """There an edit of the installed edgewise changes nothing; elsewhere it is part of the key."""
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    outside = clone.take_snapshot(root)
    root.joinpath("edgewise").mkdir()
    root.joinpath("edgewise/__init__.py").write_text("")
    checkout = clone.take_snapshot(root)
    assert outside.library and checkout.library == ""
    clone.check_library(checkout, root)
    assert str(clone.environment(root)["PYTHONPATH"]).startswith(str(root))


def test_a_point_with_another_library_than_at_the_start_is_refused(repository, tmp_path, options):
    root, git = repository
    root.joinpath("params.yaml").write_text((ROOT / "params.yaml").read_text())
    git("add", "-A")
    git("commit", "-qm", "Start")
    code = clone.take_snapshot(root)
    clone.check_library(code, root)
    made = plan.Plan("s", str(root), str(root), replace(code, library="0" * 64), (ROOT / "params.yaml").read_text(), (), ("seed",), ())
    point = checked(options, "seed=1")[0]
    blank = execution.Outcome("sweep-0123456789", point.overrides, "failed", code.head, code.tree, "e")
    done = execution.try_point(made, point, blank, execution.Clock())
    assert not done.ok and not (made.folder / "work").exists()
    assert f"is not the one that the sweep began with (digest {code.library[:10]}, then 0000000000); " in str(done.reason)
    assert "\n" not in str(done.reason)


SECRETS = (".env", "conf/.env.local", "deploy/server.pem", "id_ed25519", "home/.ssh/config", "API.KEY", ".netrc")
PLAIN = (".env.example", "credentials.py", "id_ed25519.pub", "keys.py", "[a]*.txt", "name with space.py")


def test_secrets_and_large_files_that_git_does_not_know_stay_behind(repository):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    for name in (*SECRETS, *PLAIN, "other"):
        root.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(name).write_text("x")
    root.joinpath("signing").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    for name, size in (("large.bin", 10 * 2**20 + 1), ("small.bin", 10 * 2**20)):
        with root.joinpath(name).open("wb") as stream:
            stream.truncate(size)
    root.joinpath(".gitignore").write_text("other\n")
    root.joinpath("a.py").write_text("b")
    git("init", "-q", str(root / "nested"))
    status = git("status", "--porcelain")
    made = clone.take_snapshot(root)
    assert set(made.carried) == {*PLAIN, "small.bin", ".gitignore", "a.py"}
    assert set(git("ls-tree", "-r", "-z", "--name-only", made.tree).strip("\0").split("\0")) == set(made.carried)
    reasons = dict(entry.rsplit(" (", 1) for entry in made.left_behind)
    assert set(reasons) == {*SECRETS, "signing", "large.bin", "nested/"}
    assert reasons[".env"] == reasons["signing"] == "may be a secret)" and reasons["large.bin"] == "10.0 MB)"
    assert git("status", "--porcelain") == status


def test_a_secret_that_git_knows_and_a_deleted_file_are_as_they_are_in_the_tree(repository):
    root, git = repository
    root.joinpath("test.pem").write_text("1")
    git("add", "-A")
    git("commit", "-qm", "Start")
    root.joinpath("test.pem").write_text("2")
    root.joinpath("a.py").unlink()
    made = clone.take_snapshot(root)
    assert git("show", f"{made.tree}:test.pem") == "2" and made.carried == ("a.py", "test.pem") and made.left_behind == ()


def test_the_start_of_a_sweep_lists_what_is_carried_and_what_is_not():
    made = clone.Code("0123456789abcdef", "tree", "key", ("a.py", "b.py", "c.py", "d.py"), (".env (may be a secret)",))
    assert clone.describe_code(made) == "uncommitted files included: a.py, b.py, c.py, d.py; not included: .env (may be a secret)"
    assert clone.describe_code(replace(made, carried=(), left_behind=())) == "the code is that of commit 0123456789"
    assert "f19 and 5 more" in clone.describe_code(replace(made, carried=tuple(f"f{i}" for i in range(25))))


def test_a_dirty_submodule_is_refused(repository, tmp_path_factory):
    root, git = repository
    other = tmp_path_factory.mktemp("other")
    git("init", "-q", folder=other)
    other.joinpath("lib.py").write_text("1")
    git("add", "-A", folder=other)
    git("commit", "-qm", "Lib", folder=other)
    git("submodule", "add", "-q", str(other), "lib")
    git("add", "-A")
    git("commit", "-qm", "Start")
    clone.take_snapshot(root)
    root.joinpath("lib/lib.py").write_text("2")
    with pytest.raises(ConfigError, match="submodule lib has uncommitted changes"):
        clone.take_snapshot(root)


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
