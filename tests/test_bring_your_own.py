"""docs/bring-your-own.md by doing what it says: the commands of each section, in a project of its own.

The ONNX section is in every run of the suite; the others take a minute each and carry the marker of `make test-system`.
"""

import json
import re
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.workspace import TINY, Workspace

PAGE = (ROOT / "docs/bring-your-own.md").read_text(encoding="utf-8")
SECTIONS = {part.split("\n", 1)[0]: re.findall(r"```bash\n(.*?)```", part, re.S) for part in PAGE.split("\n## ")}
EXAMPLES = [name for name, blocks in SECTIONS.items() if blocks and not name.startswith("#")]
NEEDS = {"ONNX": "onnx", "A torch program": "torch", "TFLite": "tflite", "Keras": "keras", "A SavedModel directory": "keras"}


def test_every_importer_has_its_example():
    page = PAGE.lower()
    for path in (ROOT / "stages/importers").glob("*_file.py"):
        assert path.stem.removesuffix("_file") in page
    for path in (ROOT / "conf/data").glob("*.yaml"):
        if path.stem not in ("digits", "surface", "image_folder"):  # the two that ship, and the one that all others use
            assert f"data.name={path.stem}" in page


@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n == "ONNX" else pytest.mark.system) for n in EXAMPLES])
def test_the_commands_of_the_page_work(name: str, tmp_path: Path) -> None:
    if NEEDS.get(name) == "keras":
        pytest.importorskip("tensorflow")
    workspace = Workspace(tmp_path, {**TINY, "model": {"name": "callable", "path": None, "weights": None}})
    kinds = [NEEDS[name]] if name in NEEDS else ["torch"]
    for command in (f"python -m benchmarks.example_files own {' '.join(kinds)}", *SECTIONS[name]):
        done = workspace.run("bash", "-euc", command)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    summary = json.loads((tmp_path / "metrics/summary.json").read_text())
    assert summary["variants"], name
    for variant, row in summary["variants"].items():
        assert row["status"] == "ok", (variant, row["reason"])
        assert row["accuracy_top1"] > (0.85 if name in NEEDS else 0.5), variant
    assert not [warning for warning in summary["warnings"] if "preprocessed" in warning]
