"""The configuration: what is composed, and the one line that a mistake gets."""

import copy
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewise.config import compose, schema
from edgewise.config.compose import Options
from edgewise.errors import ConfigError
from tests.conftest import ROOT

OPTIONS = Options(ROOT / "conf")


def choices() -> dict[str, Any]:
    return compose.read_choices(ROOT / "params.yaml")


def put(tree: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    *path, last = dotted.split("/")
    node = tree
    for key in path:
        node = node.setdefault(key, {})
    node[last] = value
    return tree


def composed(tree: dict[str, Any]) -> schema.Config:
    return compose.compose_choices(tree, OPTIONS)


def test_written_config_reads_back_equal(project, monkeypatch):
    monkeypatch.chdir(project)
    made = compose.compose(Path("params.yaml"), Path("conf"))
    compose.write(made)
    assert schema.read() == made


def test_null_means_the_option_and_a_value_overrides_it():
    option = yaml.safe_load((ROOT / "conf/train/default.yaml").read_text())
    assert composed(choices()).train.epochs == option["epochs"]
    assert composed(put(choices(), "train/epochs", 3)).train.epochs == 3


def test_the_word_none_lifts_a_limit_that_the_option_sets():
    tree = put(choices(), "budget", {"name": "camera_512mb", "size_bytes": None, "latency_p50_ms": "none", "accuracy_drop_points": "none"})
    budget = composed(tree).budget
    assert budget.size_bytes == 12_000_000 and budget.latency_p50_ms is None and budget.accuracy_drop_points is None


@pytest.mark.parametrize(
    ("group", "name", "key"), [("train", "surface", "patience"), ("bench", "sustained", "energy_s"), ("device", "local", "cool_down_degc")]
)
def test_the_word_none_lifts_whatever_number_may_be_left_out(group, name, key):
    tree = put(choices(), f"{group}/name", name)
    settings = schema.to_plain(getattr(composed(put(tree, f"{group}/{key}", "none")), group))
    assert settings.get("settings", settings)[key] is None


def test_margins_stand_apart_so_that_another_one_measures_nothing():
    tree = put(put(choices(), "bench/margin", 0.02), "task/margin", 0.5)
    made, plain = composed(tree), composed(choices())
    assert made.margins == schema.Margins(latency=0.02, score=0.5) and plain.margins == schema.Margins(None, None)
    assert made.bench == plain.bench and made.task == plain.task
    assert composed(put(tree, "bench/margin", "none")).margins.latency is None


def test_the_word_none_stays_a_text_where_a_text_is_wanted():
    assert composed(put(choices(), "train/class_weights", "none")).train.class_weights == "none"


def test_settings_that_params_does_not_list_can_be_added():
    assert composed(put(choices(), "data/image_size", 96)).data.settings["image_size"] == 96


OPTION_FILES = [
    path for path in sorted((ROOT / "conf").glob("*/*.yaml")) if path.parent.name != "studies"
]  # those are whole sets of choices
FITTING = {  # data that a task can judge, where digits are none
    "defect_detection": {"name": "surface"},
    "detection": {"name": "surface", "targets": "boxes"},
    "segmentation": {"name": "surface", "targets": "masks"},
    "multi_label": {"name": "arrays", "path": "x.npz", "targets": "multi_label"},
    "regression": {"name": "arrays", "path": "x.npz", "targets": "values"},
}
FILLED = {"inputs": {"x": {"shape": [3]}}}  # what the user must give, where it is no path


@pytest.mark.parametrize("path", OPTION_FILES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_option_of_conf_composes(path):
    """Each yaml is chosen once, and its module (where it names one) is imported and checks it."""
    group, name, tree = path.parent.name, path.stem, choices()
    if group == "format":
        for scheme in yaml.safe_load(path.read_text())["schemes"]:
            variant = f"{name}-{scheme}-mine"
            made = composed(put(tree, f"variants/{variant}", {"format": name, "scheme": scheme}))
            assert made.variants[variant].format == name
    elif group == "scheme":
        assert set(yaml.safe_load(path.read_text())) == {"use", "min_sqnr_db", "min_device_sqnr_db"}
        loaded = OPTIONS.load("scheme", name, "test")
        assert loaded["min_device_sqnr_db"] >= loaded["min_sqnr_db"] >= 0, (
            "one file strays less between machines than a scheme from its source"
        )
    else:
        fill = {key: FILLED.get(key, str(ROOT)) for key, value in yaml.safe_load(path.read_text()).items() if value == "???"}
        tree |= {"data": FITTING[name]} if group == "task" and name in FITTING else {}
        tree |= {"task": {"name": "none"}} if group == "data" else {}
        made = composed(put(tree, group, {"name": name, **fill}))
        assert getattr(made, group).name == name


@pytest.mark.parametrize(
    ("task", "data", "targets"),
    [
        ("detection", {"name": "surface"}, "boxes"),
        ("segmentation", {"name": "surface", "targets": None}, "masks"),
        ("defect_detection", {"name": "surface"}, "classes"),
        ("segmentation", {"name": "yolo", "path": "data.yaml"}, "masks"),
        ("regression", {"name": "arrays", "path": "x.npz"}, "values"),
        ("none", {"name": "yolo", "path": "data.yaml"}, "boxes"),
    ],
)
def test_the_task_decides_on_the_targets_where_the_user_does_not(task, data, targets):
    tree = choices() | {"task": {"name": task}, "data": data}
    assert composed(tree).data.settings["targets"] == targets


@pytest.mark.parametrize(
    ("task", "data"),
    [
        ("detection", {"name": "surface", "targets": "masks"}),
        ("detection", {"name": "digits"}),
        ("classification", {"name": "yolo", "path": "x"}),
    ],
)
def test_targets_that_the_task_cannot_judge(task, data):
    with pytest.raises(ConfigError, match=f"task.name: '{task}' needs data.targets '(boxes|classes)', but it is"):
        composed(choices() | {"task": {"name": task}, "data": data})


def test_formats_offer_in_conf_just_what_they_declare():
    options = OPTIONS
    for name in options.names("format"):
        form = options.load("format", name, "test")
        assert set(form["schemes"]) == set(schema.part(form["module"], "make").SCHEMES), name


def test_formats_are_used_where_a_variant_needs_them_or_the_way_to_one():
    tree = choices()
    tree["variants"] = {"openvino-fp32": {"format": "openvino", "scheme": "fp32"}}
    tree["reference"] = "openvino-fp32"
    used = {name for name, form in composed(tree).formats.items() if form.used}
    assert used == {"openvino", "onnx"}


def test_a_variant_may_ask_for_another_sqnr_than_its_scheme():
    scheme = composed(choices()).variants["onnx-int8-static"].min_sqnr_db
    for given, expected in ((None, scheme), (1.5, 1.5), (0, 0.0), (-10, -10.0)):
        tree = put(choices(), "variants/onnx-int8-static/min_sqnr_db", given)
        assert composed(tree).variants["onnx-int8-static"].min_sqnr_db == expected


def test_a_scheme_that_the_format_lacks_is_left_to_quantize():
    assert composed(put(choices(), "variants/torch-int4-weight", {"format": "torch", "scheme": "int4-weight"})).variants[
        "torch-int4-weight"
    ]


@pytest.mark.parametrize(("name", "host"), [("raspberry_pi", "raspberrypi.local"), ("jetson", "jetson.local")])
def test_a_board_is_reached_over_ssh_by_the_name_that_it_has_in_its_network(name, host):
    device = composed(put(choices(), "device", {"name": name, "host": None})).device
    assert device.module == "edgewise.devices.ssh" and device.settings["host"] == host and device.settings["python"] == "venv/bin/python"
    mine = composed(put(choices(), "device", {"name": name, "host": "10.0.0.7", "user": "me"})).device
    assert (mine.settings["host"], mine.settings["user"]) == ("10.0.0.7", "me")


WRONG = [
    ("seed", -1, "seed: -1 must be an integer"),
    ("seed", "one", "seed: 'one'"),
    ("bnech", {}, "bnech: unknown section; did you mean 'bench'?"),
    ("reference", "onnx-fp23", "reference: 'onnx-fp23' is not a variant; did you mean 'onnx-fp32'?"),
    ("reference", None, "reference: missing"),
    ("data", "digits", "data: 'digits' must be a mapping with a name"),
    ("data/name", "digit", "data.name: 'digit': no such file in conf/data/; did you mean 'digits'?"),
    ("data/name", None, "data:"),
    ("data/name", "image_folder", "data.path: missing"),
    ("data/image_sise", 96, "data.image_sise: unknown setting; did you mean 'image_size'?"),
    ("data/image_size", 1, "data.image_size: 1 must be an integer or"),
    ("data/image_size", "big", "data.image_size: 'big'"),
    ("data/path", "/pictures", "data.path: unknown setting"),
    ("model/name", "resnet19", "model.name: 'resnet19': no such file in conf/model/"),
    ("train/epochs", -1, "train.epochs: -1 must be at least 0"),
    ("train/epochs", 1.5, "train.epochs: 1.5 must be an integer"),
    ("train/epochs", True, "train.epochs: True must be an integer"),
    ("train/epoch", 3, "train.epoch: unknown setting; did you mean 'epochs'?"),
    ("train/optimizer", "adam", "train.optimizer: 'adam'; did you mean 'adamw'?"),
    ("train/learning_rate", float("nan"), "train.learning_rate: nan must be a finite number"),
    ("train/learning_rate", 50, "train.learning_rate: 50.0 must be at least 1e-08 and at most 10.0"),
    ("device/name", "board", "device.name: 'board': no such file in conf/device/"),
    ("task", {"name": "detection", "decoding": {"head": "nonsense"}}, "task.decoding.head: 'nonsense'; allowed: yolo, yolox"),
    ("task", {"name": "detection", "decoding": {"head": "grid", "bogus": 1}}, "task.decoding.bogus: head grid has no such setting"),
    ("device/name", "pi", "copy conf/device/ssh.yaml to conf/device/pi.yaml and set its host"),
    ("device/threads", 0, "device.threads: 0 must be at least 1"),
    ("bench/name", "fast", "bench.name: 'fast': no such file in conf/bench/"),
    ("bench/scope", "all", "bench.scope: 'all'"),
    ("bench/margin", 2, "bench.margin: 2.0 must be at least 0.001 and at most 1.0"),
    ("bench/margin", "2 %", "bench.margin: '2 %' must be a number, or none"),
    ("task", {"name": "classification", "margin": 0}, "task.margin: 0.0 must be at least 1e-09"),
    ("task", {"name": "classification", "margin": 250}, "task.margin: 250.0 must be at most 100"),
    ("task", {"name": "none", "margin": 0.5}, "task.margin: 0.5, but the task 'none' has no score"),
    ("budget/name", "tiny", "budget.name: 'tiny': no such file in conf/budget/"),
    ("budget/size_bytes", "unlimited", "budget.size_bytes: 'unlimited' must be an integer, or none to remove"),
    ("budget/latency_p50_ms", "off", "budget.latency_p50_ms: 'off' must be a number, or none"),
    ("budget/prefer", "none", "budget.prefer: 'none'; allowed: latency, memory, size"),
    ("train/epochs", "none", "train.epochs: 'none' must be an integer"),
    ("variants", {}, "variants: empty"),
    ("variants", ["onnx-fp32"], "variants: must be a mapping"),
    ("variants/onnx-fp32", "onnx", "variants.onnx-fp32: 'onnx' must be a mapping"),
    ("variants/onnx-fp32/format", "onx", "variants.onnx-fp32.format: 'onx': no such file in conf/format/; did you mean 'onnx'?"),
    ("variants/onnx-fp32/format", None, "variants.onnx-fp32.format: missing"),
    ("variants/onnx-int8-static/scheme", "int8-statc", "did you mean 'int8-static'?"),
    ("variants/My_Model", {"format": "onnx", "scheme": "fp32"}, "a variant is named <format>-<scheme>[-more]"),
    ("variants/onnx-int8", {"format": "onnx", "scheme": "int8-static"}, "here onnx-int8-static or onnx-int8-static-mine"),
    (
        "variants/onnx-int8-static/calibration/sample",
        5,
        "calibration.sample: unknown setting of onnx int8-static; did you mean 'samples'?",
    ),
    ("variants/onnx-int8-static/calibration/samples", 0, "calibration.samples: 0 must be at least 1"),
    ("variants/onnx-int8-static/calibration/method", "entropie", "calibration.method: 'entropie'; did you mean 'entropy'?"),
    ("variants/tflite-int8-static/calibration/method", "percentile", "calibration.method: 'percentile'; allowed: minmax"),
    ("variants/onnx-int8-static/per_channel", "yes", "per_channel: 'yes'"),
    ("variants/onnx-int8-static/keep_float", "fc", "keep_float: 'fc' must be a list"),
    ("variants/onnx-fp32/min_sqnr_db", "low", "min_sqnr_db: 'low' must be a number"),
    ("variants/onnx-fp32/per_channel", True, "per_channel: unknown setting of onnx fp32"),
    ("variants/onnx-fp32/engine", {"thread": 2}, "engine.thread: unknown setting of the engine of onnx"),
]


@pytest.mark.parametrize(("key", "value", "message"), WRONG, ids=[f"{k}={v}"[:60] for k, v, _ in WRONG])
def test_a_mistake_is_named(key, value, message):
    with pytest.raises(ConfigError) as caught:
        composed(put(choices(), key, value))
    text = str(caught.value)
    assert message in text
    assert "params.yaml" in text and "\n" not in text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"3", "must hold the sections"),
        (b"- a", "must hold the sections"),
        (b"seed: ${nothing}", "Interpolation key 'nothing' not found"),
        (b"seed: ${", "no viable alternative"),
        (b"seed: ${oc.env:NO_SUCH_VARIABLE}", "'NO_SUCH_VARIABLE' not found"),
        (b"seed: ${data}\ndata: ${seed}", "Recursive interpolation"),
        (b"seed: \xe9", "can't decode byte 0xe9"),
        (b"seed: \x00", "special characters are not allowed"),
        (b"~: 1", "key type"),
        (b"seed: !!set {x}", "'set' is not a supported"),
    ],
)
def test_a_file_of_choices_that_is_no_mapping_of_plain_values(tmp_path, content, message):
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"params\.yaml: ") as caught:
        compose.read_choices(tmp_path / "params.yaml")
    assert message in str(caught.value) and "\n" not in str(caught.value)


JUNK = [None, "", "none", "a/b", 0, -1, 1.5, True, 10**400, float("nan"), [], [1], [None], [[]], {}, {"a": 1}, {1: 2}, {"name": []}]
FULL = {
    "task": {"name": "classification"},
    "data": {"name": "digits", "splits": {"test": 0.2}, "normal": "0", "image_size": 64, "merge_defects": False},
    "train": {"name": "default", "epochs": 1, "optimizer": "sgd", "patience": 2, "learning_rate": 1e-3, "flip_horizontal": True},
    "device": {"name": "local", "threads": 1, "cool_down_degc": 50.0},
    "bench": {"name": "quick", "warmup": {"min_runs": 3}, "fits_mb": [64], "block_s": 0.1},
    "budget": {"name": "camera_512mb", "size_bytes": 1, "prefer": "size", "accuracy_drop_points": 1.0},
    "variants/onnx-int8-static/engine": {"graph_optimization": "all"},
    "variants/onnx-int8-static/load": {"mode": "whole"},
    "variants/onnx-int8-static/file": {},
}


def places(tree: dict[str, Any], above: str = "") -> list[str]:
    return [
        place
        for key, value in tree.items()
        for place in (above + key, *(places(value, f"{above}{key}/") if isinstance(value, dict) else ()))
    ]


def test_the_hash_of_the_settings_leaves_out_code_and_runtimes(tmp_path):
    one, other = tmp_path / "one.yaml", tmp_path / "other.yaml"
    one.write_text("seed: 1\ncode: {report: abc}\nruntimes: {onnx: '1.19'}\n")
    other.write_text("runtimes: {onnx: '1.31'}\nseed: 1\ncode: {report: def}\n")
    same = schema.settings_sha256(one)
    assert same == schema.settings_sha256(other)
    other.write_text("seed: 2\n")
    assert same != schema.settings_sha256(other)


@pytest.mark.lengthy
def test_no_value_anywhere_ends_in_anything_but_a_clear_line():
    full = choices()
    for key, value in FULL.items():
        put(full, key, value)
    composed(copy.deepcopy(full))
    for key in places(full):
        for value in JUNK:
            tree = put(copy.deepcopy(full), key, copy.deepcopy(value))
            try:
                composed(tree)
            except ConfigError as error:
                assert "\n" not in str(error)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-m", "stages.compose", *arguments], cwd=folder, env=environment, capture_output=True, text=True)


def test_mistakes_leave_nothing_and_exit_with_2(project):
    text = (project / "params.yaml").read_text()
    (project / "params.yaml").write_text(re.sub(r"bench: {name: \w+", "bench: {name: quik", text))
    done = run(project)
    assert done.returncode == 2
    assert done.stderr.startswith("error: params.yaml: bench.name: 'quik'") and done.stderr.count("\n") == 1
    assert not (project / "models").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "seed: 1\n", "duplicate key seed"),
        (lambda text: text.replace("variants:\n", "variants:\n  onnx-fp32: {format: onnx, scheme: fp32}\n"), "duplicate key onnx-fp32"),
        (lambda text: text.replace("data: {", "data: {{"), "params.yaml: line 7"),
        (lambda text: "", "params.yaml: seed: missing"),
    ],
)
def test_broken_yaml_names_file_and_line(project, change, message):
    path = project / "params.yaml"
    path.write_text(change(path.read_text()))
    done = run(project)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_an_option_file_that_is_wrong_is_named_itself(project):
    path = project / "conf/train/default.yaml"
    path.write_text(path.read_text() + "\nepochz: 3\n")
    done = run(project)
    assert done.returncode == 2 and "conf/train/default.yaml: train.epochz: unknown setting" in done.stderr


@pytest.mark.parametrize("name", ["camera (v2)", "it's", "a,b", "size=1", "[new] {x}"])
def test_an_option_may_have_any_name_that_a_file_may_have(project, monkeypatch, name):
    (project / "conf/budget" / f"{name}.yaml").write_text("size_bytes: 7\n")
    monkeypatch.chdir(project)
    budget = compose.compose_choices(put(choices(), "budget", {"name": name}), Options(Path("conf"))).budget
    assert (budget.name, budget.size_bytes) == (name, 7)


def test_wrong_module_in_an_option(project):
    path = project / "conf/data/mine.yaml"
    path.write_text("module: edgewise.data.mine\n")
    shutil.copy(project / "params.yaml", project / "keep.yaml")
    text = (project / "params.yaml").read_text().replace("name: digits", "name: mine")
    (project / "params.yaml").write_text(text)
    done = run(project)
    assert done.returncode == 2 and "conf/data/mine.yaml: module: 'edgewise.data.mine' cannot be imported" in done.stderr


def test_the_environment_names_another_profile_for_one_run(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    written = Path("params.yaml").read_text()
    monkeypatch.setenv("EDGEWISE_PROFILE", "standard")
    config = compose.compose(Path("params.yaml"), Path("conf"))
    assert (config.bench.name, config.bench.max_s) == ("standard", Options(Path("conf")).load("bench", "standard", "")["max_s"])
    assert "bench.name: standard, as EDGEWISE_PROFILE says" in capsys.readouterr().err
    assert Path("params.yaml").read_text() == written
    monkeypatch.setenv("EDGEWISE_PROFILE", "")
    assert compose.compose(Path("params.yaml"), Path("conf")).bench.name == yaml.safe_load(written)["bench"]["name"]


def test_an_unknown_profile_in_the_environment_is_named(project, monkeypatch):
    monkeypatch.setenv("EDGEWISE_PROFILE", "smok")
    done = run(project)
    assert done.returncode == 2 and done.stderr.startswith("error: EDGEWISE_PROFILE: 'smok'") and "did you mean 'smoke'?" in done.stderr


def test_outside_the_project(tmp_path):
    done = run(tmp_path)
    assert done.returncode == 2 and "run the command from the top folder of the project" in done.stderr


def test_outside_the_environment_says_how_to_enter_it(project):
    """-I -S: a python without any installed package, as the system's own would be."""
    code = f"import runpy, sys; sys.path.insert(0, {str(ROOT)!r}); runpy.run_module('stages.compose', run_name='__main__')"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=project, capture_output=True, text=True)
    assert done.returncode == 1 and ". .venv/bin/activate" in done.stderr and "Traceback" not in done.stderr


GROUPS = [path for path in sorted((ROOT / "conf").glob("*/*.yaml")) if path.parent.name not in ("sweep", "studies")]


@pytest.mark.parametrize("path", GROUPS, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_is_read_without_hydra_is_what_hydra_composes(path):
    """Hydra itself is the oracle. Every option of today is plain."""
    plain = compose.read_plain(path)
    assert plain is not None and plain == OPTIONS._compose_by_hydra(path.parent.name, path.stem)


@pytest.mark.parametrize(
    "text",
    [
        "defaults: [local]\nthreads: 2",
        "defaults:\n  - local\nthreads: 2",
        "'defaults': [local]",
        "# @package _global_\nthreads: 2",
        "threads: ${oc.env:THREADS}",
        "a: 1\na: 2",
        "a: [",
        "[1, 2]",
        "",
    ],
)
def test_what_only_hydra_can_read_or_refuse_is_left_to_it(tmp_path, text):
    path = tmp_path / "option.yaml"
    path.write_text(text)
    assert compose.read_plain(path) is None


def test_an_option_with_a_defaults_list_is_composed(project):
    """A user's own option that builds on another one."""
    local = (project / "conf/device/local.yaml").read_text()
    (project / "conf/device/mine.yaml").write_text("defaults:\n  - local\n  - _self_\nthreads: 3\n")
    found = Options(project / "conf").load("device", "mine", "device.name")
    assert found == {**yaml.safe_load(local), "threads": 3}
