"""`edgewise compare`: environments with another release, and one file under both."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgewise.config import schema
from edgewise.config.schema import Plugin
from edgewise.devices import environments
from edgewise.devices.environments import Requirement
from edgewise.errors import EdgewiseError, InfrastructureError, UserError
from edgewise.measure import releases
from edgewise.stats.agreement import GroupAgreement
from tests.conftest import ROOT
from tests.unit.test_bench_stage import BENCH, configure, make_data, make_variant

OTHER = Requirement("fake-runtime", "1.2")


@pytest.mark.parametrize(
    "text", ["onnxruntime", "onnxruntime>=1.20", "onnxruntime==", "==1.20", "onnxruntime==1.20 --index-url x", "-e .", ""]
)
def test_a_release_is_named_exactly(text):
    with pytest.raises(UserError, match="PACKAGE==VERSION"):
        Requirement.parse(text)
    assert Requirement.parse(" onnxruntime==1.20.1 ") == Requirement("onnxruntime", "1.20.1")


def fake_pip(monkeypatch, tmp_path, code: int, stderr: str) -> list[list[str]]:
    """Commands that are run, of which pip ends with this code."""
    commands = []

    def run(command, **_):
        commands.append(command)
        Path(command[-1]).mkdir(parents=True, exist_ok=True) if "venv" in command else None
        return SimpleNamespace(returncode=0 if "venv" in command else code, stderr=stderr, stdout="")

    monkeypatch.setattr(environments.subprocess, "run", run)
    return commands


@pytest.mark.parametrize(
    ("said", "error", "code"),
    [
        ("ERROR: Could not find a version that satisfies the requirement fake-runtime==1.2 (from versions: 1.0)", UserError, 2),
        ("ERROR: Could not install packages due to an OSError: No space left on device", InfrastructureError, 3),
        ("WARNING: Retrying ... Connection refused", InfrastructureError, 3),
    ],
)
def test_what_pip_says_comes_after_our_words_and_nothing_is_left(tmp_path, monkeypatch, said, error, code):
    fake_pip(monkeypatch, tmp_path, 1, said)
    with pytest.raises(error) as caught:
        environments.make_environment(OTHER, folder=tmp_path)
    assert str(caught.value).startswith("fake-runtime==1.2") and said in str(caught.value) and caught.value.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_an_environment_is_made_once(tmp_path, monkeypatch):
    commands = fake_pip(monkeypatch, tmp_path, 0, "")
    first, second = (environments.make_environment(OTHER, folder=tmp_path) for _ in range(2))
    assert first == second == tmp_path / f"fake-runtime-1.2-py3.{sys.version_info.minor}" / "bin" / "python"
    assert len(commands) == 2 and commands[1][0] == str(first) and commands[1][-2:] == ["fake-runtime==1.2", "numpy"]


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Of a variant `fake-b` beside the reference; the other release runs in the same Python, by another name of its file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    make_data()
    settings = replace(BENCH, processes=1, max_processes=1, blocks=2, agreement_samples=2)
    configure({name: make_variant(name, does) for name, does in (("fake-a", {"sleep_ms": 1}), ("fake-b", {"sleep_ms": 5}))}, settings)
    other = tmp_path / "python-of-the-other"
    other.write_text(f'#!/bin/sh\necho other >> {tmp_path}/started\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    monkeypatch.setattr(releases.environments, "make_environment", lambda requirement: other)
    return tmp_path


def test_one_file_runs_under_both_releases_in_turns(project):
    found = releases.compare_releases(schema.read(), "fake-b", OTHER)
    assert (project / "started").read_text().count("other") >= 2, "for the outputs, and in the pair"
    assert found.samples == 2 and found.ratio_ci95 is None and 0.3 < found.ratio < 3
    lines = list(releases.describe_compared(found))
    assert "identical bit by bit" in lines[1] and "in turns" in lines[-1] and "without an interval" in lines[-1]


def test_a_file_that_one_release_refuses_is_said_with_its_release(project):
    (project / "models/variants/fake-b/model.json").write_text('{"load": "refuse"}')
    with pytest.raises(EdgewiseError, match="fake-b"):
        releases.compare_releases(schema.read(), "fake-b", OTHER)


@pytest.mark.parametrize(
    ("change", "requirement", "said"),
    [
        ({}, Requirement("onnxruntime", "1.20"), "give --with fake-runtime==..."),
        ({"device": Plugin("pi", "edgewise.devices.ssh", {})}, OTHER, "is not this machine"),
    ],
)
def test_what_cannot_be_compared_is_refused(project, change, requirement, said):
    with pytest.raises(UserError, match=said):
        releases.compare_releases(replace(schema.read(), **change), "fake-b", requirement)


def test_each_output_has_a_line():
    groups = (GroupAgreement("boxes", "[0:4]", 41.26, 0.034, False), GroupAgreement("scores", "", 200.0, 0.0, False))
    found = releases.Compared("v", "onnxruntime 1.31.1", "onnxruntime 1.20.1", 16, groups, 1.04, (1.02, 1.06), False)
    assert list(releases.describe_compared(found)) == [
        "v: one file under onnxruntime 1.31.1, which is installed, and under onnxruntime 1.20.1",
        "  output boxes[0:4]: SQNR 41.3 dB, largest difference 0.034, 16 samples",
        "  output scores: identical bit by bit, 16 samples",
        "  latency: onnxruntime 1.20.1 takes 1.040 [1.020, 1.060] of the time of onnxruntime 1.31.1, in turns, within this visit",
    ]


def test_the_code_goes_along_so_that_no_package_of_this_environment_is_imported(tmp_path):
    code = environments.ship_code("edgewise.formats.onnx.run", tmp_path / "code")
    program = "import edgewise.agent.jobs, edgewise; print(edgewise.__file__)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(code)}
    )
    assert done.returncode == 0 and str(code) in done.stdout and (code / "edgewise/formats/onnx/run.py").exists()


def test_a_pip_that_hangs_is_a_failure_of_the_network_and_leaves_nothing(tmp_path, monkeypatch):
    def hang(command, **_):
        raise environments.subprocess.TimeoutExpired(command, environments.INSTALL_S)

    monkeypatch.setattr(environments.subprocess, "run", hang)
    with pytest.raises(InfrastructureError, match=r"^fake-runtime==1.2 was not installed within 30 minutes"):
        environments.make_environment(OTHER, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
