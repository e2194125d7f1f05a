"""The pipeline by running DVC: what runs again after which edit, what a kill leaves, what a failed variant takes along (nothing)."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import yaml

from edgewise.artifacts import artifact
from edgewise.config import schema, stage_code
from edgewise.config.digests import Digests, expand
from tests.contract.test_stage_code import exempt, label
from tests.support.closure import closure, says_anything
from tests.support.workspace import ALWAYS, TINY, Workspace

pytestmark = [pytest.mark.framework, pytest.mark.pipeline]

OWN = ("quantize", "evaluate", "bench-on-device")
LAST = ("report", "bundle")
RUNNER, MODEL = "edgewise/formats/onnx/run.py", "model.onnx"
ONNX = {"onnx-fp32", "onnx-int8-static"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("workspace"), TINY)
    made.more = {"EDGEWISE_TESTS_MODULES": str(tmp_path_factory.mktemp("modules"))}
    stages = yaml.safe_load((made.folder / "dvc.yaml").read_text())["stages"]
    assert len(made.repro()) == len(stages.keys() - ALWAYS - {*OWN}) + 3 * len(OWN)  # each once, and each variant's own
    return made


def test_what_stages_really_import_is_under_their_code(workspace):
    """The other side of tests/contract/test_stage_code.py, which reads imports: plugins that are found by name at run time count too."""
    config, digests = schema.read(workspace.folder / schema.PATH), Digests(workspace.folder, workspace.folder)
    common, checked = stage_code.plugins(config), set()
    for record in sorted(Path(workspace.more["EDGEWISE_TESTS_MODULES"]).glob("*.txt")):
        name, _, key = record.stem.removeprefix("stages.").partition(" ")
        declared = stage_code.read_declared(workspace.folder / f"stages/{name}.py")
        if declared is None:
            continue
        special = stage_code.for_each(config, declared.foreach)[key] if declared.foreach else {}
        covered = {file for part in expand(declared.code, **common, **special) for file in digests.files(part)}
        stage = name.replace("_", "-")
        beyond = set().union(*(closure(module) for module in exempt(stage) - exempt("")))  # of what only some stages may leave out
        if stage == "train-export":  # only asks the task whether it judges an output with one value for each label
            beyond |= closure(config.task.module)
        imported = set(record.read_text().splitlines()) - exempt(stage) - beyond
        files = {label(module) for module in filter(says_anything, imported)}
        assert files <= covered, f"{record.stem}: {sorted(files - covered)}"
        checked.add(name)
    assert len(checked) == 11


def stages(*variants: str, of: tuple[str, ...] = OWN) -> set[str]:
    return {f"{stage}@{variant}" for variant in variants for stage in of}


def test_nothing_but_the_always_changed_stages_runs_again(workspace):
    done = workspace.run("dvc", "repro")
    assert {line.split("'")[1] for line in done.stdout.splitlines() if line.startswith("Running stage")} == ALWAYS


def summary(workspace):
    return json.loads((workspace.folder / "metrics/summary.json").read_text())


def test_summary_holds_every_variant(workspace):
    result = summary(workspace)
    assert set(result["variants"]) == set(TINY["variants"]) and result["reference"] == "onnx-fp32"
    for name, variant in result["variants"].items():
        assert variant["status"] == "ok", (name, variant)
        assert (
            variant["file"]["size_bytes"] > 0
            and variant["latency"]["p50_ms"] > 0
            and variant["memory"]["peak_rss_bytes"] > variant["memory"]["peak_rss_above_baseline_bytes"] > 0
        )
        assert variant["latency"]["ratio_ci95"] is None  # smoke claims nothing


def replace(old: str, new: str):
    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new)

    return change


FUNCTION = "\n\ndef another() -> int:\n    return 1\n"
EDITED = (
    *("params.yaml", "conf/format/onnx.yaml"),
    *("edgewise/formats/onnx/make.py", "edgewise/tasks/classification.py", "edgewise/artifacts/artifact.py", "edgewise/agent/sessions.py"),
    *("stages/train_qat.py", "stages/prepare_data.py"),
)


def prose(workspace: Workspace) -> None:
    """Another comment at the end of each file, another docstring at its head, and no annotation of what functions return."""
    for name in EDITED:
        if name.endswith(".py"):
            workspace.edit(
                name, lambda text: '"""Other words."""\n' + re.sub(r"\) -> [\w.\[\], ]+:\n", "):\n", undocumented(text)) + "\n# More.\n"
            )


def undocumented(text: str) -> str:
    assert text.startswith('"""')
    return text[text.index('"""', 3) + 3 :]


EDITS = {
    "an option of one variant in params.yaml": (
        lambda w: w.params(lambda p: p["variants"]["onnx-int8-static"]["calibration"].update(samples=12)),
        {*LAST, *stages("onnx-int8-static")},
    ),
    "an option of one variant in conf": (
        lambda w: w.edit("conf/format/onnx.yaml", replace("method: minmax", "method: percentile")),
        {*LAST, *stages("onnx-int8-static")},
    ),
    "a new variant": (
        lambda w: w.params(lambda p: p["variants"].update({"onnx-fp16": {"format": "onnx", "scheme": "fp16"}})),
        {*LAST, "prune", *stages("onnx-fp16")},
    ),
    "a removed variant": (lambda w: w.params(lambda p: p["variants"].pop("openvino-fp32")), {*LAST, "prune", "convert-openvino"}),
    "the device": (
        lambda w: w.params(lambda p: p["device"].update(threads=2)),
        {*LAST, *stages(*TINY["variants"], of=("bench-on-device",))},
    ),
    "a function of make.py of one format": (
        lambda w: w.edit("edgewise/formats/onnx/make.py", lambda text: text + FUNCTION),
        {"convert-onnx", *stages(*ONNX, of=("quantize",))},
    ),
    "a function of what judges": (
        lambda w: w.edit("edgewise/tasks/classification.py", lambda text: text + FUNCTION),
        {"report", *stages(*TINY["variants"], of=("evaluate",))},
    ),
    "a stage script": (lambda w: w.edit("stages/train_qat.py", lambda text: text + FUNCTION), {"train-qat"}),
    "comments, docstrings and annotations everywhere": (prose, set()),
    "the reference": (
        lambda w: w.params(lambda p: p.update(reference="openvino-fp32")),
        {*LAST, *stages(*TINY["variants"], of=("bench-on-device",))},
    ),
}


OFTEN = ("an option of one variant in params.yaml", "comments, docstrings and annotations everywhere")


@pytest.mark.parametrize("name", [name if name in OFTEN else pytest.param(name, marks=pytest.mark.slow) for name in EDITS])
def test_an_edit_reruns_what_it_touches_and_reverting_runs_nothing(workspace, name):
    edit, expected = EDITS[name]
    files = {path: (workspace.folder / path).read_text() for path in EDITED}
    edit(workspace)
    try:
        assert workspace.repro() == expected
        if name == "a new variant":
            assert summary(workspace)["variants"]["onnx-fp16"]["status"] == "ok"
    finally:
        for path, text in files.items():
            (workspace.folder / path).write_text(text)
        again = workspace.repro()
    removed = {"bundle"} if name == "a new variant" else set()  # reverting that one is removing a variant
    assert again == (expected & {"report"}) | removed  # DVC does not cache runs of report, whose summary is a plain output


def test_a_failed_variant_takes_no_other_with_it_and_the_gate_says_so(workspace):
    lacking = {"onnx-int16x8-static": {"format": "onnx", "scheme": "int16x8-static"}}
    lost = {"onnx-int8-static-lost": {"format": "onnx", "scheme": "int8-static", "keep_float": ["no_such_layer"]}}
    before = workspace.params(lambda p: p["variants"].update({**lacking, **lost}))
    try:
        workspace.repro()
        variants = summary(workspace)["variants"]
        assert [name for name, v in variants.items() if v["status"] == "failed"] == ["onnx-int16x8-static", "onnx-int8-static-lost"]
        assert "does not offer int16x8-static; it has" in variants["onnx-int16x8-static"]["reason"]
        assert "'no_such_layer' matches no layer of the source" in variants["onnx-int8-static-lost"]["reason"]
        assert variants["onnx-fp32"]["status"] == "ok"
        gate = workspace.run("edgewise", "report", "--check")
        assert gate.returncode == 1 and "onnx-int16x8-static" in gate.stdout + gate.stderr
    finally:
        (workspace.folder / "params.yaml").write_text(before)
    workspace.repro()
    assert workspace.run("edgewise", "report", "--check").returncode == 0


@pytest.mark.slow
def test_a_missing_runtime_fails_its_variants_and_installing_it_makes_them_and_nothing_else(workspace):
    """Hidden here and on the device, which is the same machine."""
    own = {"convert-openvino", *stages("openvino-fp32"), *LAST}
    workspace.hidden = ("openvino",)
    try:
        assert workspace.repro() == own
        lacking = summary(workspace)["variants"]
        assert [name for name, variant in lacking.items() if variant["status"] == "failed"] == ["openvino-fp32"]
        assert "'openvino' is not installed; " in lacking["openvino-fp32"]["reason"]
        assert "pip install" in lacking["openvino-fp32"]["reason"] and "[openvino]" in lacking["openvino-fp32"]["reason"]
        assert workspace.repro() == set()
    finally:
        workspace.hidden = ()
        again = workspace.repro()
    assert again <= own  # what was made before it was hidden comes out of DVC's run cache
    assert summary(workspace)["variants"]["openvino-fp32"]["status"] == "ok"


@pytest.mark.slow
def test_a_model_that_aborts_its_runtime_takes_no_other_with_it(workspace):
    aborting = f"""    if b"QuantizeLinear" in open(os.path.join(folder, "{MODEL}"), "rb").read():\n        os.abort()\n"""
    opened = "    return Session(open_file(folder, settings))\n"
    before = workspace.edit(RUNNER, replace(opened, aborting + opened))
    try:
        workspace.repro()
        variants = summary(workspace)["variants"]
        assert [name for name, v in variants.items() if v["status"] == "failed"] == ["onnx-int8-static"]
        assert "aborts on this file (SIGABRT)" in variants["onnx-int8-static"]["reason"]
    finally:
        (workspace.folder / RUNNER).write_text(before)
    workspace.repro()
    assert summary(workspace)["variants"]["onnx-int8-static"]["status"] == "ok"


def test_dvcs_own_hydra_stays_off_because_it_misses_edits_in_conf(workspace):
    assert workspace.run("dvc", "config", "hydra.enabled").stdout.strip() in ("", "false")


SLOW_KILLS = [pytest.param(f"{stage}@onnx-int8-static", marks=pytest.mark.slow) for stage in ("quantize", "bench-on-device")]


@pytest.mark.parametrize("stage", ["train-export", *SLOW_KILLS])
def test_killed_in_the_middle_the_next_run_finishes_right(workspace, tmp_path, stage):
    """SIGKILL of DVC and everything below it, a moment after the stage began; then a plain `dvc repro`."""
    expected = (workspace.folder / "models/source/weights.safetensors").read_bytes()
    log = tmp_path / "log"
    process = workspace.start("dvc", "repro", "--single-item", "--force", stage, log=log)
    deadline = time.monotonic() + 120
    while f"Running stage '{stage}'" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    workspace.repro()
    assert (workspace.folder / "models/source/weights.safetensors").read_bytes() == expected
    for manifest in (workspace.folder / "models").glob("[!.]*/**/manifest.json"):
        assert artifact.describe_files(manifest.parent) == artifact.read(manifest.parent).files, manifest
    assert all(variant["status"] == "ok" for variant in summary(workspace)["variants"].values())
