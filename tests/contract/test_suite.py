"""The options of the suite itself: --fast fails for a test that imports a framework, --hide hides a package in every process."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.formats import FORMATS, needs, part

CHILD = "import importlib.util; print(importlib.util.find_spec('openvino'))"
HIDDEN = f"""
import importlib.metadata, importlib.util, subprocess, sys
import pytest
def test_here():
    assert importlib.util.find_spec("openvino") is None and importlib.util.find_spec("numpy") is not None
    with pytest.raises(importlib.metadata.PackageNotFoundError):
        importlib.metadata.version("openvino")
def test_in_another_process():
    assert subprocess.check_output([sys.executable, "-c", {CHILD!r}], text=True).strip() == "None"
"""
FAST = """
import sys, types
import pytest
def test_light(): pass
def test_heavy(): sys.modules["torch"] = types.ModuleType("torch")
def test_light_again(): pass
@pytest.mark.framework
def test_marked(): raise AssertionError
"""


@pytest.mark.slow
@pytest.mark.framework
@pytest.mark.parametrize("hidden", [name for name in FORMATS if name != "torch"])
def test_without_its_runtime_a_format_skips_and_no_other_fails(hidden):
    """Not torch: the source of this contract is a torch model."""
    package = part(hidden, "run").RUNTIME.partition(".")[0]
    test = "test_float_model_gives_the_sources_outputs"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:xdist",
        "-m",
        "formats",
        "-rA",
        "--hide",
        package,
        f"tests/contract/test_formats_contract.py::{test}",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    passed = set(re.findall(rf"^PASSED .*::{test}\[(\w+)\]$", done.stdout, re.M))
    rest = {name for name in FORMATS if package not in needs(name) and all(importlib.util.find_spec(needed) for needed in needs(name))}
    assert done.returncode == 0 and passed == rest, done.stdout
    assert f"format {hidden} needs {package}, which is not installed" in done.stdout


def suite(path: Path, code: str, *options: str) -> subprocess.CompletedProcess:
    path.write_text(code)
    command = [sys.executable, "-m", "pytest", "-p", "pytest_timeout", "-p", "tests.conftest", "-c", str(ROOT / "pyproject.toml"), *options]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # loading those of all packages takes longest
    return subprocess.run([*command, str(path.parent)], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_a_hidden_package_is_in_no_process(tmp_path):
    done = suite(tmp_path / "test_hidden.py", HIDDEN, "--hide", "openvino")
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout


def test_fast_leaves_marked_tests_out_and_fails_where_a_mark_is_missing(tmp_path):
    done = suite(tmp_path / "test_fast.py", FAST, "--fast")
    assert "3 passed, 1 deselected, 1 error" in done.stdout, done.stdout
    assert "test_heavy imports torch: mark it with `framework`" in done.stdout


def test_fast_does_not_even_import_a_file_that_is_marked(tmp_path):
    done = suite(tmp_path / "test_marked.py", "import pytest\npytestmark = pytest.mark.framework\nraise AssertionError\n", "--fast")
    assert "no tests ran" in done.stdout and "AssertionError" not in done.stdout, done.stdout
    assert "AssertionError" in suite(tmp_path / "test_marked.py", "import pytest\nraise AssertionError\n", "--fast").stdout
