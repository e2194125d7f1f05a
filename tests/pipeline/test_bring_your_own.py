"""docs/bring-your-own.md, model-files.md and data.md by doing what they say: the commands of each section, with the params.yaml that ships,
only fewer variants.

The sections are run by `make test-all`. All share one project, emptied between
them, and so the example files and DVC's cache.
"""

import json
import re

import pytest
import yaml

from tests.conftest import ROOT
from tests.support.workspace import TINY, Workspace

pytestmark = pytest.mark.framework

TEXT = "\n".join((ROOT / "docs" / page).read_text(encoding="utf-8") for page in ("bring-your-own.md", "model-files.md", "data.md"))
SECTIONS = {part.split("\n", 1)[0]: re.findall(r"```bash\n(.*?)```", part, re.S) for part in re.split(r"\n##+ ", TEXT)}
EXAMPLES = [name for name, blocks in SECTIONS.items() if blocks and not name.startswith("#")]
NEEDS = {"ONNX": "onnx", "A torch program": "torch", "TFLite": "tflite", "Keras": "keras", "A SavedModel directory": "keras"}
FEW = ("onnx-fp32", "onnx-int8-dynamic")


def test_every_importer_has_its_example():
    page = TEXT.lower()
    for path in (ROOT / "edgewise/sources").glob("*_file.py"):
        assert path.stem.removesuffix("_file") in page
    for path in (ROOT / "conf/data").glob("*.yaml"):
        if path.stem not in ("digits", "surface", "image_folder"):  # the two that ship, and the one that all others use
            assert f"data.name={path.stem}" in page


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    """A fresh clone, whose variants are few and measured for a moment."""
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    variants = {name: shipped["variants"][name] for name in FEW}
    return Workspace(tmp_path_factory.mktemp("clone"), {**shipped, "bench": TINY["bench"], "variants": variants})


@pytest.fixture
def clone(workspace: Workspace) -> Workspace:
    """As it was cloned (`dvc exp run` puts params.yaml into git's index); the example files of the page and the cache stay."""
    for command in (["git", "reset", "-q", "--hard"], ["git", "clean", "-fdxq", "-e", ".dvc", "-e", "own", "-e", "mlflow.db"]):
        assert workspace.run(*command).returncode == 0
    return workspace


def do(clone: Workspace, command: str) -> None:
    done = clone.run("bash", "-euc", command)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_commands_of_the_pages_work(name: str, clone: Workspace) -> None:
    if NEEDS.get(name) == "keras":
        pytest.importorskip("tensorflow")
    kind = NEEDS.get(name, "onnx")
    if not (clone.folder / f"own/digits.{kind}").exists():
        do(clone, f"python -m benchmarks.example_files own {kind}")
    for command in SECTIONS[name]:
        do(clone, command)
    summary = json.loads((clone.folder / "metrics/summary.json").read_text())
    assert summary["variants"], name
    for variant, row in summary["variants"].items():
        assert row["status"] == "ok", (variant, row["reason"])
        if summary["primary_metric"]:
            assert row["quality"]["score"] > (0.85 if name in NEEDS else 0.5), variant
    assert not [warning for warning in summary["warnings"] if "preprocessed" in warning]
