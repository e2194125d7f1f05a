"""A sweep without room for its clones: one line, and nothing of the project is touched."""

import subprocess

import pytest

from tests.support import toy_pipeline
from tests.support.toy_pipeline import VARIANT

pytestmark = pytest.mark.system


def test_no_space_for_the_clones_is_one_line(root, tmp_path):
    toy, place = toy_pipeline.make(tmp_path), tmp_path / ".edgewise"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)], check=True)
    try:
        sweep = ("python", "-m", "edgewise.cli.main", "sweep", "--name", "full", f"variants.{VARIANT}.calibration.samples=10,20")
        done = toy.run("env", f"TOY_LOG={tmp_path}/toy.log", *sweep)
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert done.returncode == 3 and "No space left on device" in done.stderr, done.stdout + done.stderr
    assert len(done.stderr.strip().splitlines()) == 1 and "free some space" in done.stderr
    assert not (tmp_path / "toy.log").exists() and not toy.run("git", "for-each-ref", "refs/exps").stdout
