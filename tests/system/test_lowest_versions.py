"""The lowest versions that pyproject.toml promises: the statistics and the agent with them, and every scheme of ONNX on such a device.

Each environment gets exactly the floor, numpy 1.26 as 1.26.0, from the registry; where that cannot be reached the test is skipped.
"""

import re
import subprocess
import sys
import tomllib
from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.agent import sessions
from edgewise.devices import shipping
from edgewise.devices.local import LocalDevice
from edgewise.formats.onnx import run as onnx_run
from edgewise.proof import checks
from tests.conftest import ROOT
from tests.support.formats import PAIRS, form, part
from tests.system.bundles import interpreter
from tests.system.test_bundle_alone import OLDEST

pytestmark = pytest.mark.system
RUNNER = "edgewise.formats.onnx.run"
SCHEMES = [scheme for name, scheme in PAIRS if name == "onnx" and scheme not in ("int8-mixed", "int8-qat")]
ON_DEVICE = ("numpy", "onnxruntime")
ON_HOST = (*ON_DEVICE, "pillow", "pyyaml", "tqdm", "jinja2", "matplotlib", "rich")
# what needs no more than these and the tools of testing
TESTS = (
    *("paired_stats", "timing_stats", "numpy_floor", "protocol", "preprocess", "turns"),
    *("measuring", "device_outputs", "output_agreement", "sensors"),
    *("report", "report_findings", "report_judging", "results"),
)
WARMUP = {"min_runs": 3, "min_s": 0.0, "max_s": 0.05, "spread": 0.05}


class Device(LocalDevice):
    """Another Python that sees nothing of Edgewise but what is shipped."""

    def __init__(self, python: Path, code: Path):
        super().__init__((str(python), "-m", "edgewise.agent.program"))
        self.code = code

    def environment(self) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.code), "PYTHONNOUSERSITE": "1"}


def floors(names: Sequence[str]) -> list[str]:
    """pip's words for the lowest versions of pyproject.toml."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    found = dict(re.match(r"([\w.-]+)>=([\d.]+)", text).groups() for text in declared)
    return [f"{name}=={found[name]}" for name in names]


def environment(folder: Path, version: str, packages: Sequence[str]) -> Path:
    """The interpreter of a new virtual environment with these packages."""
    subprocess.run([interpreter(version), "-m", "venv", folder], check=True)
    command = [folder / "bin/python", "-m", "pip", "install", "-q", *packages]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    if done.returncode:
        pytest.skip(f"cannot install {' '.join(packages)}: {done.stderr.strip()[-300:]}")
    return folder / "bin/python"


@pytest.fixture(scope="module", params=[OLDEST, f"{sys.version_info[0]}.{sys.version_info[1]}"])
def device(request, tmp_path_factory) -> Device:
    folder = tmp_path_factory.mktemp("device")
    code = folder / "code"
    for name, path in shipping.code_tree(RUNNER).files.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_bytes(path.read_bytes())
    return Device(environment(folder / "venv", request.param, floors(ON_DEVICE)), code)


@pytest.fixture(scope="module")
def float_model(floats, source) -> tuple[Path, Path]:
    """The float ONNX model, and the source that it is of."""
    return floats["onnx"], source


@pytest.fixture
def variant(float_model, tmp_path, request) -> Path:
    parent, source = float_model
    folder = tmp_path / "variant"
    folder.mkdir()
    settings = {"per_channel": None, "calibration": None, **form("onnx")["schemes"][request.param]}
    inputs, _ = checks.read_probe(source)
    feeds = [{name: array[i : i + 1] for name, array in inputs.items()} for i in range(16)] if settings["calibration"] else []
    part("onnx", "make").quantize(parent, source, folder, request.param, settings, feeds, [])
    return folder


@pytest.mark.parametrize(("variant", "scheme"), [(scheme, scheme) for scheme in SCHEMES], indirect=["variant"])
def test_a_variant_answers_like_its_source(device, variant, scheme, source, tmp_path):
    inputs, expected = checks.read_probe(source)
    np.savez(tmp_path / "inputs.npz", **inputs)
    job = {"runner": RUNNER, "model": str(variant), "settings": {"threads": 1}, "inputs": str(tmp_path / "inputs.npz")}
    job |= {"scope": "model", "preprocessing": None, "answer": None}
    hello, *events = device.run({"kind": "outputs", **job}, 60)
    lowest = dict(text.split("==") for text in floors(ON_DEVICE))
    assert hello["versions"]["onnxruntime"].startswith(lowest["onnxruntime"])
    answers = np.concatenate([decoded(event) for event in events if event["event"] == "outputs"])
    limit = yaml.safe_load((ROOT / f"conf/scheme/{scheme}.yaml").read_text())["min_sqnr_db"]
    checks.check_outputs(expected, dict.fromkeys(expected, answers), limit)
    here = sessions.load(onnx_run, str(variant), {"threads": 1}).run(inputs)
    checks.check_outputs(here, dict.fromkeys(here, answers), 40.0)  # the same file by the runtime of this environment


def decoded(event: dict) -> np.ndarray:
    (packed,) = event["arrays"].values()
    return np.frombuffer(b64decode(packed["base64"]), packed["dtype"]).reshape(packed["shape"])


@pytest.mark.parametrize("variant", ["int8-static"], indirect=True)
def test_a_variant_is_measured(device, variant, source, tmp_path):
    inputs, _ = checks.read_probe(source)
    np.savez(tmp_path / "inputs.npz", **inputs)
    job = {
        "model": str(variant),
        "settings": {"threads": 1},
        "inputs": str(tmp_path / "inputs.npz"),
        "scope": "model",
        "preprocessing": None,
        "answer": None,
    }
    timing = {"warmup": WARMUP, "blocks": 2, "block_s": 0.05, "min_runs": 4}
    blocks = [e for e in device.run({"kind": "latency", "runner": RUNNER, **job, **timing}, 60) if e["event"] == "block"]
    assert len(blocks) == 2 and all(min(block["wall_ns"]) > 0 for block in blocks)
    used = [e for e in device.run({"kind": "memory", "runner": RUNNER, **job, "runs": 2}, 60) if e["event"] == "memory"]
    assert len(used) >= 4
    (facts,) = [e for e in device.run({"kind": "probe", "packages": list(ON_DEVICE)}, 60) if e["event"] == "facts"]
    assert facts["facts"]["packages"].keys() == set(ON_DEVICE)


@pytest.mark.timeout(1200)
def test_the_library_passes_its_tests(tmp_path):
    # old releases warn of one another, and that is not ours to mend
    tools = ["pytest", "pytest-timeout", "scipy", "hypothesis", "hydra-core>=1.3,<1.4"]
    python = environment(tmp_path / "venv", f"{sys.version_info[0]}.{sys.version_info[1]}", [*floors(ON_HOST), *tools])
    files = [f"tests/unit/test_{name}.py" for name in TESTS]
    done = subprocess.run([python, "-m", "pytest", "-W", "default", *files], cwd=ROOT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout[-3000:]
