"""The emulated arm64 device without its emulator; tests/system/test_arm64.py runs the real one."""

import os
from pathlib import Path

import pytest

from edgewise.agent.protocol import Fault
from edgewise.config.schema import Plugin, to_plain
from edgewise.devices import emulated
from edgewise.devices.access import connect
from edgewise.errors import DeviceError, VariantFailed
from edgewise.measure.runs import PlacedVariant

MODEL = {
    "runner": "edgewise.formats.torch.run",
    "model": "m",
    "settings": {},
    "inputs": "i",
    "scope": "model",
    "preprocessing": None,
    "answer": None,
}


@pytest.fixture
def sysroot(tmp_path, monkeypatch) -> Path:
    """A folder as `make arm64` leaves it, in which `qemu` is a shell script that plays an agent without torch."""
    folder = tmp_path / "arm64"
    (folder / "site" / "numpy-2.4.6.dist-info").mkdir(parents=True)
    (folder / "qemu-aarch64").write_text(AGENT)
    (folder / "qemu-aarch64").chmod(0o755)
    (folder / "key").write_text("k")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("VIRTUAL_ENV", "/x86")
    return folder


AGENT = """#!/bin/sh
read job
env > "$(dirname "$0")/environment"
echo "$@" > "$(dirname "$0")/arguments"
echo '{"event": "error", "n": 0, "fault": "runtime_missing", "phase": "import", "message": "No module named torch"}'
"""


def plugin(folder: Path) -> Plugin:
    return Plugin("arm64_emulated", "edgewise.devices.emulated", to_plain(emulated.Settings(sysroot=str(folder), cpu="cortex-a53")))


def test_without_its_system_one_line_names_make_arm64(tmp_path):
    said = r"^no_emulator: .*/none holds no arm64 system; make one with `make arm64`, or name the folder of one in device.sysroot$"
    with pytest.raises(DeviceError, match=said) as caught, connect(plugin(tmp_path / "none")):
        pass
    assert caught.value.exit_code == 3


def test_a_half_made_system_is_none(sysroot):
    (sysroot / "key").unlink()
    with pytest.raises(DeviceError, match="holds no arm64 system"), connect(plugin(sysroot)):
        pass


def test_a_runtime_that_it_lacks_fails_the_variant_and_not_the_pipeline(sysroot):
    said = r"torch-fp32 on the device: edgewise.formats.torch.run needs a runtime that is not in .*/arm64 \(numpy-2.4.6\)"
    with connect(plugin(sysroot)) as connection, pytest.raises(VariantFailed, match=said):
        PlacedVariant("torch-fp32", MODEL, connection, 5.0, {}).outputs("i", 2)


def test_nothing_of_this_machine_reaches_the_emulated_one(sysroot):
    with connect(plugin(sysroot)) as connection, pytest.raises(Fault):
        list(connection.run({"kind": "outputs", **MODEL}, 5.0))
    found = dict(line.split("=", 1) for line in (sysroot / "environment").read_text().splitlines())
    assert set(found) - {"PWD", "OLDPWD", "SHLVL", "_"} == {"PATH", "PYTHONHOME", "PYTHONPATH", "PYTHONNOUSERSITE"}
    assert all("site-packages" not in path for path in found["PYTHONPATH"].split(os.pathsep))
    assert (
        (sysroot / "arguments").read_text().startswith(f"-cpu cortex-a53 -L {sysroot}/root {sysroot}/root/usr/bin/python3.11 -m edgewise.")
    )


@pytest.mark.parametrize("job", [{"kind": "pair", "sides": [], "blocks": 1}, {"kind": "probe", "packages": []}])
def test_a_runtime_that_it_lacks_is_named_for_a_job_without_a_model_too(sysroot, job):
    with connect(plugin(sysroot)) as connection, pytest.raises(Fault, match="needs a runtime that is not in") as caught:
        list(connection.run(job, 5.0))
    assert caught.value.word == "not_offered"
