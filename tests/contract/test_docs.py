"""The documentation: the site builds, the generated pages are current, and the commands that pages name exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from benchmarks import reference
from edgewise.bundle import contents
from edgewise.cli.commands import COMMANDS

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", *DOCS]
QUIET = {"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}


def build(config: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(target)]
    return subprocess.run(command, capture_output=True, text=True, env=QUIET, timeout=300)


def test_the_site_builds_and_has_every_page(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'edgewise[docs]'")
    done = build(ROOT / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 0, done.stderr
    assert all((tmp_path / "site" / page.relative_to(ROOT / "docs")).with_suffix(".html").is_file() for page in DOCS)


def test_a_broken_link_fails_the_build(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed: pip install 'edgewise[docs]'")
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    given = yaml.safe_load((tmp_path / "mkdocs.yml").read_text())
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(given | {"nav": [{"Start": "index.md"}], "theme": {"name": "mkdocs"}}))
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/index.md").write_text("# Start\n\n[gone](nowhere.md)\n")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode == 1 and "nowhere.md" in done.stderr + done.stdout


def test_the_generated_pages_say_what_the_code_says() -> None:
    old = [path.name for path, text in reference.pages().items() if path.read_text(encoding="utf-8") != text]
    assert not old, f"{', '.join(old)}: run `python -m benchmarks.reference`"


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    code = "\n".join([*re.findall(r"`([^`\n]+)`", text), *re.findall(r"^ {4}(.*)$", text, re.M)])
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.M))
    used = set(re.findall(r"(?:^|&& |; )edgewise ([a-z][a-z-]*)", code, re.M)) - {"run"}
    made = set(re.findall(r"(?:^|&& |; )make ([a-z][a-z0-9-]*)", code, re.M))
    assert used <= COMMANDS.keys(), used - COMMANDS.keys()
    assert made <= targets, made - targets


@pytest.mark.parametrize("page", [ROOT / "README.md", *DOCS, *(ROOT / "conf/device").glob("*.yaml")], ids=lambda path: path.name)
def test_what_a_page_installs_on_a_board_runs_a_bundle(page: Path) -> None:
    """The newest Pillow that pip may choose is one that bundles accept."""
    oldest, too_new = contents.INPUT_PACKAGES["image"]["pillow"]
    for command in re.findall(r"pip install (numpy [^`#\n]*)", page.read_text(encoding="utf-8")):
        (pillow,) = (need for need in map(Requirement, shlex.split(command)) if need.name == "pillow")
        assert oldest in pillow.specifier and too_new not in pillow.specifier and "1000" not in pillow.specifier, command


def test_pages_open_with_what_they_are_about() -> None:
    """A page begins with its title and at least a sentence, not with another heading."""
    for page in DOCS:
        lines = [line for line in page.read_text(encoding="utf-8").splitlines() if line and not line.startswith("<!--")]
        assert lines[0].startswith("# ") and not lines[1].startswith("#"), page.name
