"""Memory limits, enforced by this machine's kernel where it allows."""

import os
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.agent import memory
from edgewise.config.schema import Bench
from edgewise.devices.local import LocalDevice
from edgewise.errors import ConfigError
from edgewise.measure import passes
from edgewise.measure.runs import PlacedVariant, Run, check_limits
from tests.unit.test_agent import make_job

pytestmark = pytest.mark.lengthy  # agents that run, and waits for them

BENCH = Bench("smoke", memory=False, fits_mb=(64, 300))


@pytest.fixture
def kernel_limit():
    limit = memory.create_limit(64 << 20)
    if limit is None:
        pytest.skip("this machine lets the user set no memory limit")
    limit.remove()
    return limit


def subject(folder: Path, does: dict) -> PlacedVariant:
    job = make_job(folder, does=does)
    fields = {key: job[key] for key in ("runner", "model", "settings", "inputs", "scope", "preprocessing", "answer")}
    return PlacedVariant("fake-b", fields, LocalDevice(), 120.0, {})


def test_what_fits_and_what_is_killed(tmp_path, kernel_limit):
    measured = passes.Passes.measure(subject(tmp_path, {"hold_mib": 120}), BENCH)
    found = passes.make_limited_runs(measured.fits)
    assert {limit: run.verdict for limit, run in found.items()} == {"64": "oom", "300": "ok"}
    assert "oom_kill 1" in found["64"].evidence and kernel_limit.how in found["64"].evidence
    assert found["64"].p50_ms is found["64"].major_faults is None
    assert found["300"].p50_ms is not None and found["300"].p50_ms >= 0 and found["300"].major_faults is not None
    assert not kernel_limit.folder or removed(kernel_limit.folder.parent.glob("edgewise-*")), "no group is left behind"


def removed(groups: Iterable[Path], within_s: float = 60.0) -> bool:
    """Whether all of them are gone soon: another test may have made a group of its own just now."""
    end, left = time.monotonic() + within_s, list(groups)
    while left and time.monotonic() < end:
        time.sleep(0.05)
        left = [group for group in left if group.exists()]
    return not left


@pytest.mark.parametrize(("does", "last"), [({"load": "refuse"}, "Frobnicate"), ({"load": "kill"}, "hello")])
def test_another_failure_is_not_taken_for_memory(tmp_path, kernel_limit, does, last):
    told = subject(tmp_path, does).fits(300).one("limited")
    assert told["verdict"] == "failed" and "without a kill for memory" in told["evidence"] and last in told["evidence"]


def test_not_tested_where_no_limit_can_be_set(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("4:memory:/a\n0::/b\n")
    monkeypatch.setattr(memory, "GROUP_ROOTS", {"v1": tmp_path / "absent", "v2": tmp_path / "absent"})
    monkeypatch.setenv("PATH", str(tmp_path))
    told = memory.run_limited({"limit_bytes": 64 << 20, "inner_deadline_s": 1.0})
    found = passes.make_limited_runs([Run(({"event": "limited", **told},))])
    assert set(found) == {"64"} and found["64"].verdict == "not tested" and "no memory limit" in found["64"].evidence
    assert found["64"].p50_ms is None


def test_version_2_is_found_and_a_group_without_the_controller_is_left_alone(tmp_path, monkeypatch):
    """A fixture tree: a plain folder takes the files that the kernel would offer."""
    (tmp_path / "user").mkdir()
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    (tmp_path / "cgroup").write_text("0::/user/session\n")
    monkeypatch.setattr(memory, "GROUP_ROOTS", {"v1": tmp_path, "v2": tmp_path})
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.create_limit(64 << 20) is None and [path.name for path in tmp_path.rglob("edgewise-*")] == []
    make_folder = Path.mkdir

    def mkdir(self, *arguments, **more):
        make_folder(self, *arguments, **more)
        if self.parent.name == "user":
            (self / "memory.max").write_text("max\n")
            (self / "memory.events").write_text("low 0\noom 4\noom_kill 3\n")
            (self / "memory.swap.max").write_text("max\n")

    monkeypatch.setattr(Path, "mkdir", mkdir)
    limit = memory.create_limit(64 << 20)
    assert limit.how == "cgroup v2" and limit.folder == tmp_path / f"user/edgewise-{os.getpid()}" and limit.oom_kills() == 3
    assert (limit.folder / "memory.max").read_text().startswith(str(64 << 20)) and (limit.folder / "memory.swap.max").read_text() == "0"


def test_not_tested_on_a_kernel_without_control_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "absent")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert memory.available_method() == "none"


@pytest.mark.parametrize("limit_mb", [0, -4, 7, 1 << 30])
def test_a_limit_out_of_range_is_named(limit_mb):
    with pytest.raises(ConfigError, match=f"bench.fits_mb: {limit_mb} must be at least 8"):
        check_limits(replace(BENCH, fits_mb=(64, limit_mb)).fits_mb)


def test_a_run_that_never_ends_at_a_limit_is_no_fit(tmp_path, kernel_limit, monkeypatch):
    monkeypatch.setattr("edgewise.measure.runs.LIMITED_S", 1.0)
    told = subject(tmp_path, {"load": "hang"}).fits(300).one("limited")
    assert told["verdict"] == "failed" and "no end after 1 s" in told["evidence"]


def test_the_parts_of_a_cut_model_are_read_anew_too(tmp_path):
    """Pages that are in the cache already are charged to nobody: every file of the model counts, in folders too."""
    for name in ("parts.json", "part-0/model.onnx", "part-1/weights.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = {
        str(path.relative_to(tmp_path))
        for path in memory.list_files("edgewise.formats.onnx.run", str(tmp_path))
        if tmp_path in path.parents
    }
    assert found == {"parts.json", "part-0/model.onnx", "part-1/weights.bin"}
