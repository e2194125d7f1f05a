"""What the guides say is there."""

import re
import subprocess

import pytest

from edgewise import plugins
from edgewise.agent import ports, sessions
from edgewise.artifacts import artifact
from tests.conftest import ROOT
from tests.support.protocols import members

PROTOCOLS = {
    **{"run": plugins.Runner, "make": plugins.Maker, "profile": plugins.Profiler, "split": plugins.Splitter},
    **{"store": plugins.Storer, "facts": plugins.Facts},
}


def describe_parts() -> dict[str, str]:
    """What the section on formats says of each module."""
    section = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("\n## A format\n")[2].partition("\n## ")[0]
    found = re.findall(r"^\d+\. `(\w+)\.py`(.*?)(?=^\d+\. |\Z)", section, re.M | re.S)
    return dict(found)


@pytest.mark.parametrize("which", PROTOCOLS)
def test_the_guide_to_a_format_names_all_that_the_protocol_asks_for(which):
    told = set(re.findall(r"`(\w+)[`(]", describe_parts()[which]))
    assert set(members(PROTOCOLS[which])) - told == set()


def test_the_guide_names_nothing_of_run_py_that_the_protocol_does_not_have():
    table = re.findall(r"^ *\| (`[^|]+`) \|", describe_parts()["run"], re.M)
    assert {name for cell in table for name in re.findall(r"`(\w+)[`(]", cell)} == set(members(plugins.Runner))


@pytest.mark.parametrize("guide", ["README.md", "CONTRIBUTING.md"])
def test_every_file_that_a_guide_names_exists(guide):
    """Paths in backticks; those with a word in capitals (NAME, FORMAT) are patterns."""
    text = (ROOT / guide).read_text()
    paths = [p for p in re.findall(r"`([\w./-]+/[\w./-]*)`", text) if not re.search(r"\b[A-Z]{2,}\b|^\.\.?/|^/|^models/|^metrics/", p)]
    missing = [path for path in paths if not (ROOT / path).exists()]
    assert not missing


def test_the_guide_names_the_files_that_the_library_writes_beside_a_formats_own():
    told = set(
        re.findall(
            r"`([\w.]+)`",
            (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("writes files of its own")[2].partition("reserved")[0],
        )
    )
    assert told >= {artifact.MANIFEST, ports.PORTS_FILE, sessions.PARTS_FILE, sessions.GATE_FILE, "layers.json"}


def test_a_profile_leaves_params_yaml_as_it_is():
    """`dvc exp run -S` would write the profile into it."""
    for argument, command in (("PROFILE=smoke", "EDGEWISE_PROFILE=smoke dvc repro"), ("PROFILE=", "dvc repro")):
        asked = ["make", "--no-print-directory", "-n", "-o", "setup", "repro", argument]
        done = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[0] == command


def test_every_make_target_that_the_readme_names_exists():
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`make ([a-z0-9-]+)", (ROOT / "README.md").read_text())) <= targets
