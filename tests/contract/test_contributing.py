"""What the guides say is there."""

import re
import subprocess

import pytest

from tests.conftest import ROOT


@pytest.mark.parametrize("guide", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_guide_names_exists(guide):
    """Paths in backticks; those with a word in capitals (NAME, FORMAT) are patterns."""
    text = (ROOT / guide).read_text()
    paths = [p for p in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if not re.search(r"\b[A-Z]{2,}\b|^\.\.?/|^/|^models/|^metrics/", p)]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_a_profile_leaves_params_yaml_as_it_is():
    """`dvc exp run -S` would write the profile into it."""
    for argument, command in (("PROFILE=smoke", "EDGEWISE_PROFILE=smoke dvc repro"), ("PROFILE=", "dvc repro")):
        asked = ["make", "--no-print-directory", "-n", "-o", "setup", "repro", argument]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == command


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z0-9-]+)", (ROOT / "README.md").read_text())) <= targets
