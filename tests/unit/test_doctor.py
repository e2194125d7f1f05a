"""`edgewise doctor`: each finding with its next step, and the exit code."""

import os
import subprocess
from pathlib import Path

import pytest

from edgewise.cli import doctor, init, template
from edgewise.cli.doctor import FAULT, NOTE, OK
from edgewise.errors import DeviceError
from edgewise.measure import device_facts
from tests.conftest import ROOT

FACTS = {"facts": {"cpu": "Cortex-A76", "cores_allowed": 4}, "packages": {"numpy": "2.0"}}


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A new project without a repository, that nothing has run in."""
    template.copy(ROOT, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def states(found) -> dict[str, str]:
    return {finding.what: finding.state for finding in found}


def test_nothing_stops_a_run_in_this_checkout(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert doctor.print_findings() == 0
    said = capsys.readouterr().out
    assert said.endswith("\nnothing here would stop a run: dvc repro\n") and "fault" not in said
    assert {"python", "disk", "folder", "dvc", "git", "settings", "model", "device"} <= {line.split()[1] for line in said.splitlines()[:-2]}


def test_outside_of_a_project_it_says_how_to_make_one(tmp_path):
    found = list(doctor.examine(tmp_path))
    assert states(found)["settings"] == NOTE and "device" not in states(found) and states(found)["onnx"] == OK
    assert "edgewise init" in next(f.advice for f in found if f.what == "settings")


def test_a_mistake_in_the_settings_is_a_fault(project, capsys):
    (project / "params.yaml").write_text((project / "params.yaml").read_text().replace("name: quick", "name: quik"))
    assert doctor.print_findings(Path()) == 1
    said = capsys.readouterr().out
    assert "did you mean 'quick'?" in next(line for line in said.splitlines() if line.startswith("fault  settings"))


def test_git_is_looked_at(project, monkeypatch):
    assert states(doctor.check_git(project))["git"] == FAULT, "a DVC project without a repository"
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    assert [(f.state, "no commit yet" in f.found) for f in doctor.check_git(project) if f.what == "git"] == [(NOTE, True)]
    monkeypatch.setattr(init, "knows_user", lambda folder: False)
    assert states(doctor.check_git(project))["git user"] == NOTE


def test_data_that_dvc_keeps_and_that_is_not_here_is_a_fault(project, capsys):
    init.git(project, "init", "--quiet")
    assert not list(doctor.check_pulled(project))
    (project / "sets").mkdir()
    (project / "sets/pictures.dvc").write_text("outs:\n- md5: 0.dir\n  path: pictures\n")
    (project / "odd.dvc").write_text("outs: 3\n")
    odd, missing = doctor.check_pulled(Path())
    assert (missing.state, missing.advice) == (FAULT, "dvc pull")
    assert missing.found.startswith("sets/pictures is not here, sets/pictures.dvc says")
    assert odd.state == FAULT and "odd.dvc is no file of `dvc add`" in odd.found
    init.git(project, "add", ".")
    (project / "odd.dvc").unlink()
    assert doctor.print_findings(Path()) == 1 and "dvc pull" in capsys.readouterr().out
    (project / "sets/pictures").mkdir()
    assert not list(doctor.check_pulled(project))


def test_a_format_that_variants_need_is_a_fault_where_it_is_missing(project, monkeypatch):
    monkeypatch.setattr(init, "missing_formats", lambda conf: {"openvino": "openvino", "torch": "torch"})
    settings, _ = doctor.check_settings(project)
    found = {f.what: f for f in doctor.check_formats(project, settings)}
    assert found["openvino"].state == FAULT and found["openvino"].advice == "pip install 'edgewise[openvino]'"
    assert {f.state for f in doctor.check_formats(project, None)} == {OK, NOTE}, "without a project nothing is needed"


def test_what_the_device_lacks_is_named_with_its_variants(project, monkeypatch):
    settings, _ = doctor.check_settings(project)
    monkeypatch.setattr(
        device_facts, "probe", lambda settings: {**FACTS, "packages": {"onnxruntime": "1.2", "torch": "2", "openvino": "1"}}
    )
    reached, lacking = doctor.check_device(settings)
    assert reached.state == OK and "Cortex-A76, 4 cores" in reached.found
    assert lacking.state == FAULT and "tflite-int4-weight" in lacking.found and "pip install ai-edge-litert" in lacking.advice


def test_a_device_that_is_not_reached_is_a_fault(project, monkeypatch):
    def unreachable(settings):
        raise DeviceError("unreachable", "no route to host")

    settings, _ = doctor.check_settings(project)
    monkeypatch.setattr(device_facts, "probe", unreachable)
    (found,) = doctor.check_device(settings)
    assert found.state == FAULT and "unreachable: no route to host" in found.found and "docs/devices.md" in found.advice


def test_too_little_disk_and_a_folder_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 4e8}))
    assert doctor.check_disk(tmp_path).state == FAULT

    def refuse(dir):
        raise PermissionError(13, "Permission denied")

    assert doctor.check_writable(tmp_path).state == OK and not list(tmp_path.iterdir())
    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = doctor.check_writable(tmp_path)
    assert found.state == FAULT and "cannot be written: Permission denied" in found.found


def test_a_repository_whose_name_is_not_utf_8_is_found(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    folder.mkdir()
    init.git(folder, "init", "--quiet")
    assert init.repository_of(folder) == folder
