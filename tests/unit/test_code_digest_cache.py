"""What is kept of digests from run to run: only unchanged files, and only as long as it is whole."""

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from edgewise.config import digests, syntax
from edgewise.config.digests import Digests
from tests.support.code_project import Project

PACKAGE = "library/edgewise/toys/"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Names of the files that were parsed since the last call."""
    names: list[str] = []
    parse = syntax.parse

    def counted(source: bytes, filename: str) -> ast.Module:
        names.append(Path(filename).name)
        return parse(source, filename)

    def taken() -> list[str]:
        found = sorted(names)
        names.clear()
        return found

    monkeypatch.setattr(syntax, "parse", counted)
    return taken


def test_only_what_was_edited_is_parsed_again(project: Project, parsed: Callable[[], list[str]]) -> None:
    project.write(PACKAGE + "one.py", "x = 1")
    project.write(PACKAGE + "two.py", "x = 2")
    first = project.digest("edgewise.toys")
    assert parsed() == ["one.py", "two.py"]
    assert project.digest("edgewise.toys") == first and parsed() == []
    project.write(PACKAGE + "two.py", "x = 3")
    assert project.digest("edgewise.toys") != first and parsed() == ["two.py"]


def test_an_edit_is_seen_though_size_and_time_of_the_file_are_the_same(project: Project) -> None:
    file = project.write(PACKAGE + "one.py", "x = 1")
    os.utime(file, ns=(10**18, 10**18))
    before = project.digest("edgewise.toys")
    file.write_text("x = 2")
    os.utime(file, ns=(10**18, 10**18))
    assert project.digest("edgewise.toys") != before


def test_a_cache_by_another_canonical_form_is_ignored(
    project: Project, parsed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write(PACKAGE + "one.py", "x = 1")
    project.digest("edgewise.toys")
    parsed()
    monkeypatch.setattr(digests, "_scheme", lambda: "other")
    project.digest("edgewise.toys")
    assert parsed() == ["one.py"]


@pytest.mark.parametrize("damage", ["", "not json", "flipped", "cut", "scheme"])
def test_a_damaged_cache_is_ignored_and_written_anew(project: Project, parsed: Callable[[], list[str]], damage: str) -> None:
    project.write(PACKAGE + "one.py", "x = 1")
    right = project.digest("edgewise.toys")
    cache = project.root / digests.CACHE
    good = cache.read_bytes()
    mark = next(iter(Digests(project.root, project.library).files("edgewise.toys").values())).encode()
    bad = {
        "flipped": good.replace(mark, mark[::-1]),
        "cut": good[:-9],
        "scheme": b"0" + good[1:] if good[:1] != b"0" else b"1" + good[1:],
    }
    cache.write_bytes(bad.get(damage, damage.encode()))
    parsed()
    assert project.digest("edgewise.toys") == right and parsed() == ["one.py"]
    assert cache.read_bytes() == good
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]


def test_a_cache_that_cannot_be_written_stops_nothing(project: Project) -> None:
    project.write(PACKAGE + "one.py", "x = 1")
    project.write("project/.edgewise", "a file where the folder should be")
    assert project.digest("edgewise.toys") == project.digest("edgewise.toys")


def test_the_cache_does_not_grow_for_ever(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(digests, "CACHED_FILES", 3)
    for number in range(9):
        project.write(PACKAGE + "one.py", f"x = {number}")
        project.digest("edgewise.toys")
        kept = json.loads((project.root / digests.CACHE).read_bytes().partition(b"\n")[2])
        assert 1 <= len(kept) <= 3
