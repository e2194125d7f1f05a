"""A bundle of each format whose runtime is one small package, or two, in environments of its own: the answers of the evaluation."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from tests.support.workspace import TINY, Workspace
from tests.system.bundles import check_answers, infer, make_environment, write_pictures

pytestmark = pytest.mark.system
CURRENT, OLDEST = f"{sys.version_info[0]}.{sys.version_info[1]}", "3.9"
SMALL = {"calibration": {"samples": 16}}
VARIANTS = {
    "executorch-int8-static": {"format": "executorch", "scheme": "int8-static", **SMALL},
    "mnn-int8-static": {"format": "mnn", "scheme": "int8-static", **SMALL},
    "ncnn-int8-static": {"format": "ncnn", "scheme": "int8-static", **SMALL},
    "tract-fp16": {"format": "tract", "scheme": "fp16"},
}
NO_WHEEL = {"executorch": (OLDEST,)}  # for these Pythons
INSTALLED = {
    name: chosen for name, chosen in VARIANTS.items() if importlib.util.find_spec({"mnn": "MNN"}.get(chosen["format"], chosen["format"]))
}


@pytest.fixture(scope="module", params=VARIANTS)
def workspace(request, tmp_path_factory) -> Workspace:
    """One that has measured the variant; it is the name of the fixture's parameter."""
    if request.param not in INSTALLED:
        pytest.skip(f"{VARIANTS[request.param]['format']} is not installed")
    variants = {"onnx-fp32": TINY["variants"]["onnx-fp32"], request.param: VARIANTS[request.param]}
    made = Workspace(tmp_path_factory.mktemp("workspace"), {**TINY, "train": {"name": "default", "epochs": 8}, "variants": variants})
    done = made.run("dvc", "repro", "report", timeout=1500)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return made


def bundle(workspace: Workspace, name: str) -> Path:
    """The bundle of this variant, as if it had been chosen."""
    workspace.edit("metrics/summary.json", lambda text: json.dumps({**json.loads(text), "chosen": name, "chosen_reason": "a test asks"}))
    done = workspace.run(sys.executable, "-m", "stages.bundle")
    assert done.returncode == 0, done.stderr
    return workspace.folder / "models/bundle"


@pytest.mark.parametrize("version", sorted({CURRENT, OLDEST}))
def test_a_bundle_answers_as_the_evaluation_with_its_own_packages_alone(version, workspace, tmp_path):
    name = next(name for name in VARIANTS if (workspace.folder / "models/variants" / name).exists())
    if version in NO_WHEEL.get(VARIANTS[name]["format"], ()):
        pytest.skip(f"{VARIANTS[name]['format']} has no wheel for Python {version}")
    folder = bundle(workspace, name)
    python = make_environment(version, folder / "requirements.txt", tmp_path / "environment")
    assert infer(python, folder, "--check").returncode == 0
    pictures = write_pictures(workspace.folder / "models/data/splits.json", tmp_path / "pictures")
    check_answers(python, folder, workspace.folder / "models/evaluate" / name, pictures)
