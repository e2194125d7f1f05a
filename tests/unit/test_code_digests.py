"""Digests of code: what changes them, what does not, and which files they read."""

import importlib.metadata
import os
import sys
from pathlib import Path

import pytest

from edgewise.config import digests
from edgewise.config.digests import Digests, digest, expand
from edgewise.errors import ConfigError
from tests.support.code_project import Project


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


PACKAGE = "library/edgewise/toys/"


def test_a_package_is_all_that_lies_below_it_but_what_python_compiled(project: Project) -> None:
    for name in (
        "__init__.py",
        "one.py",
        "sub/two.py",
        "page/page.html",
        "page/.page.html.swp",
        "__pycache__/one.cpython-311.pyc",
        "__pycache__/one.nbi",
        "old.pyc",
    ):
        project.write(PACKAGE + name, "")
    below = {f"edgewise/toys/{name}" for name in ("__init__.py", "one.py", "sub/two.py", "page/page.html")}
    assert project.files("edgewise.toys") == below
    assert project.files("edgewise.toys:fn") == {"edgewise/toys/__init__.py"}
    assert project.files("edgewise.toys.sub.two") == {"edgewise/toys/sub/two.py"}
    assert project.files("edgewise") == {"edgewise/__init__.py", *below}


@pytest.mark.parametrize("file", ["one.py", "sub/two.py", "page/page.js", "words.yaml"])
def test_each_file_of_a_package_counts(project: Project, file: str) -> None:
    for name in ("__init__.py", "one.py", "sub/two.py", "page/page.js", "words.yaml"):
        project.write(PACKAGE + name, "x = 1\n")
    assert project.changed(PACKAGE + file, "x = 2\n", "edgewise.toys")


def test_a_comment_in_package_data_counts_and_so_does_its_name(project: Project) -> None:
    project.write(PACKAGE + "__init__.py", "")
    page = project.write(PACKAGE + "page.js", "// old\nf()\n")
    assert project.changed(PACKAGE + "page.js", "// new\nf()\n", "edgewise.toys")
    before = project.digest("edgewise.toys")
    page.rename(page.with_name("other.js"))
    assert project.digest("edgewise.toys") != before


def test_a_module_counts_with_what_it_imports_of_its_own_package(project: Project) -> None:
    project.write(PACKAGE + "one.py", "def f():\n    from edgewise.toys.two import x")
    project.write(PACKAGE + "two.py", "from edgewise.toys import parts")
    project.write(PACKAGE + "parts/__init__.py", "")
    project.write(PACKAGE + "parts/found_by_name.py", "x = 1")
    project.write(PACKAGE + "alone.py", "from edgewise.toys import one")
    assert project.changed(PACKAGE + "two.py", "from edgewise.toys import parts\nx = 2", "edgewise.toys.one")
    assert project.changed(PACKAGE + "parts/found_by_name.py", "x = 2", "edgewise.toys.one")
    assert not project.changed(PACKAGE + "alone.py", "x = 2", "edgewise.toys.one")


def test_a_module_of_another_package_that_nobody_named_does_not_count(project: Project) -> None:
    project.write(PACKAGE + "one.py", "import edgewise.others.two")
    project.write("library/edgewise/others/two.py", "x = 1")
    assert not project.changed("library/edgewise/others/two.py", "x = 2", "edgewise.toys.one")


def test_a_module_at_the_top_of_the_library_counts_alone(project: Project) -> None:
    project.write("library/edgewise/top.py", "from edgewise.toys import one")
    project.write(PACKAGE + "one.py", "x = 1")
    assert project.files("edgewise.top") == {"edgewise/top.py"}


def test_order_and_repetition_of_names_do_not_count(project: Project) -> None:
    project.write(PACKAGE + "__init__.py", "")
    project.write(PACKAGE + "one.py", "x = 1")
    project.write("project/stages/toy.py", "y = 1")
    whole = project.digest("edgewise.toys", "stages.toy")
    assert whole == project.digest("stages.toy", "edgewise.toys.one", "edgewise.toys", "stages.toy")
    assert whole != project.digest("edgewise.toys")


def test_the_folder_of_the_project_does_not_count(tmp_path: Path) -> None:
    for name in ("here", "there"):
        place = Project(tmp_path / name)
        place.write("project/my_nets.py", "import math\ndef tiny(): ...")
        place.write("project/stages/toy.py", "y = 1")
    here, there = (Project(tmp_path / name).digest("my_nets.tiny", "stages.toy") for name in ("here", "there"))
    assert here == there


def test_an_installed_library_counts_by_its_files(tmp_path: Path) -> None:
    site = Project(tmp_path)
    site.library = tmp_path / "site-packages"
    site.write("site-packages/edgewise/one.py", "x = 1")
    site.write("site-packages/edgewise-1.0.dist-info/METADATA", "Name: edgewise\nVersion: 1.0\n")
    site.write("project/my_data.py", "import edgewise.one")
    assert site.changed("site-packages/edgewise/one.py", "x = 2", "edgewise.one")
    assert site.changed("site-packages/edgewise/one.py", "x = 3", "my_data:load")


def test_the_default_library_is_the_one_that_runs(tmp_path: Path) -> None:
    assert Path(digests.__file__).resolve() == digests.LIBRARY / "edgewise/config/digests.py"
    assert "edgewise/config/syntax.py" in Digests(tmp_path).files("edgewise.config")
    assert digest(["edgewise.config.digests"], tmp_path) == digest(["edgewise.config.digests:File"], tmp_path)


# Stage scripts and the user's own modules


def test_a_stage_script_counts_with_what_it_imports_of_the_project_but_not_of_the_library(project: Project) -> None:
    project.write(PACKAGE + "one.py", "x = 1")
    project.write("project/stages/toy.py", "import my_helpers\nimport edgewise.toys.one\n")
    project.write("project/my_helpers.py", "x = 1")
    assert project.files("stages.toy") == {"stages/toy.py", "my_helpers.py"}
    assert project.changed("project/stages/toy.py", "import my_helpers\nprint(1)\n", "stages.toy")
    assert project.changed("project/my_helpers.py", "x = 2", "stages.toy")


@pytest.mark.parametrize("name", ["my_nets.tiny", "my_nets:tiny", "my_nets"])
def test_a_users_module_counts_with_what_it_imports_of_the_project(project: Project, name: str) -> None:
    project.write("project/my_nets.py", "import json, numpy, not_there\nfrom my_parts import blocks\ndef tiny(): ...")
    project.write("project/my_parts/__init__.py", "from .sizes import *")
    project.write("project/my_parts/blocks.py", "def f():\n    from . import deep\n    import my_nets")
    project.write("project/my_parts/deep/__init__.py", "import importlib\nimportlib.import_module('my_late')")
    project.write("project/my_parts/sizes.py", "x = 1")
    project.write("project/my_late.py", "x = 1")
    project.write("project/my_parts/unused.py", "raise SystemExit")
    parts = {f"my_parts/{part}.py" for part in ("__init__", "blocks", "deep/__init__", "sizes")}
    assert project.files(name) == {"my_nets.py", "my_late.py", *parts}
    assert project.changed("project/my_late.py", "x = 2", name)


def test_what_a_users_module_imports_of_the_library_counts(project: Project) -> None:
    project.write("project/my_data.py", "from edgewise.toys.one import x")
    project.write(PACKAGE + "__init__.py", "")
    project.write(PACKAGE + "one.py", "from edgewise.toys import two")
    project.write(PACKAGE + "two.py", "x = 1")
    assert project.changed(PACKAGE + "two.py", "x = 2", "my_data:load")


def test_something_in_a_package_counts_with_the_packages_around_it(project: Project) -> None:
    project.write("project/my_nets/__init__.py", "x = 1")
    project.write("project/my_nets/sub.py", "def fn(): ...")
    project.write("project/my_nets/other.py", "")
    assert project.files("my_nets.sub.fn") == project.files("my_nets.sub:fn") == {"my_nets/__init__.py", "my_nets/sub.py"}
    assert project.files("my_nets:fn") == {"my_nets/__init__.py"}
    assert project.files("my_nets") == {"my_nets/__init__.py", "my_nets/sub.py", "my_nets/other.py"}


def test_packages_without_init_are_found(project: Project) -> None:
    project.write("project/my_forms/ncnn/run.py", "from . import common")
    project.write("project/my_forms/ncnn/common.py", "")
    project.write("project/my_forms/ncnn/notes.txt", "")
    assert project.files("my_forms.ncnn.run") == {"my_forms/ncnn/run.py", "my_forms/ncnn/common.py"}
    assert project.files("my_forms.ncnn") == {f"my_forms/ncnn/{name}" for name in ("run.py", "common.py", "notes.txt")}


def test_nothing_is_imported(project: Project) -> None:
    project.write("project/my_bomb/__init__.py", "raise SystemExit('imported')")
    project.write("project/my_bomb/fuse.py", "raise SystemExit('imported')")
    project.digest("my_bomb.fuse.light", "my_bomb")
    assert not {name for name in sys.modules if name.startswith("my_bomb")}


def test_a_file_that_cannot_be_read_is_named(project: Project) -> None:
    link = project.root / "my_pack/broken.txt"
    project.write("project/my_pack/__init__.py", "")
    link.symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"broken\.txt"):
        project.digest("my_pack")


def test_modules_on_sys_path_are_found_and_those_of_the_project_come_first(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("elsewhere/my_nets.py", "x = 1")
    monkeypatch.syspath_prepend(str(project.root.parent / "elsewhere"))
    assert project.changed("elsewhere/my_nets.py", "x = 2", "my_nets.tiny")
    assert project.changed("project/my_nets.py", "x = 3", "my_nets.tiny")
    assert not project.changed("elsewhere/my_nets.py", "x = 4", "my_nets.tiny")


@pytest.mark.parametrize(("name", "owner"), [("numpy.linalg.norm", "numpy"), ("yaml:safe_load", "pyyaml"), ("PIL.Image.open", "pillow")])
def test_an_installed_package_is_its_distribution_and_version(project: Project, name: str, owner: str) -> None:
    assert project.files(name) == {f"{owner}=={importlib.metadata.version(owner)}"}


def test_an_installed_file_that_no_distribution_claims_counts_by_itself(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.write("site-packages/dropped_in.py", "x = 1")
    monkeypatch.syspath_prepend(str(project.root.parent / "site-packages"))
    before = project.digest("dropped_in:net")
    project.write("site-packages/dropped_in.py", "x = 2")
    assert project.files("dropped_in:net") and project.digest("dropped_in:net") != before


def test_another_version_of_an_installed_package_is_another_digest(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    def install(version: str) -> None:
        project.write("site-packages/my_wheel/__init__.py", f"version = {version!r}")
        project.write("site-packages/My_Wheel.dist-info/METADATA", f"Name: My_Wheel\nVersion: {version}\n")
        project.write("site-packages/My_Wheel.dist-info/RECORD", "my_wheel/__init__.py,,\n")

    install("1.0")
    monkeypatch.syspath_prepend(str(project.root.parent / "site-packages"))
    before = project.digest("my_wheel:net")
    assert project.files("my_wheel:net") == {"my-wheel==1.0"}
    install("1.1")
    assert project.digest("my_wheel:net") != before


@pytest.mark.parametrize("name", ["json.loads", "math.sqrt", "os.path", "builtins.dict"])
def test_the_standard_library_is_the_same_for_every_python(project: Project, name: str) -> None:
    assert project.files(name) == {"python"}


def test_a_module_is_found_right_after_it_was_written(project: Project) -> None:
    project.write("project/my_one.py", "")
    os.utime(project.root, ns=(10**18, 10**18))
    project.digest("my_one")
    project.write("project/my_two.py", "")
    os.utime(project.root, ns=(10**18, 10**18))  # as where the clock of the file system did not move on
    assert project.files("my_two") == {"my_two.py"}


# Errors


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("my_nest.tiny", ["my_nest", "sys.path"]),
        ("my_pack.tiny", ["my_pack has no module 'tiny'", "it has real;"]),
        ("my_pack:tiny", ["my_pack has no module 'tiny'", "it has real;"]),
        ("my_file.sub:tiny", ["my_file has no module 'sub'"]),
        ("edgewise.toys.oen", ["edgewise.toys has no module 'oen'", "it has one"]),
        ("stages.tyo", ["stages has no module 'tyo'", "it has toy"]),
        ("my nets", ["my nets", "package.module:function"]),
        ("", ["package.module:function"]),
    ],
)
def test_a_name_that_is_nowhere_is_an_error_that_says_what_there_is(
    project: Project, monkeypatch: pytest.MonkeyPatch, name: str, named: list[str]
) -> None:
    monkeypatch.syspath_prepend(str(project.root))
    project.write(PACKAGE + "__init__.py", "")
    project.write(PACKAGE + "one.py", "")
    project.write("project/stages/toy.py", "")
    project.write("project/my_pack/real.py", "")
    project.write("project/my_file.py", "")
    with pytest.raises(ConfigError) as error:
        project.digest(name)
    assert all(part in str(error.value) for part in [repr(name), *named])


@pytest.mark.parametrize("source", ["x = 1\ny = (\n", "x = 1\n\0\n", "x = 1\nx = '\\N{no such}'\n"])
def test_a_syntax_error_names_file_and_line(project: Project, source: str) -> None:
    path = project.write("project/my_parts.py", source)
    project.write("project/my_nets.py", "import my_parts")
    with pytest.raises(ConfigError) as error:
        project.digest("my_nets.tiny")
    assert str(error.value).startswith(str(path))
    assert "\0" in source or f"{path}, line 2" in str(error.value)


# CODE


def test_expand_repeats_a_name_for_each_of_several_plugins_and_drops_it_for_none() -> None:
    code = ("edgewise.proof", "{formats}.run", "{scanner}", "{task}")
    expanded = expand(code, formats=("a.onnx", "a.torch"), scanner=(), task=("t.none", "my.tasks:judge"))
    assert expanded == ("edgewise.proof", "a.onnx.run", "a.torch.run", "t.none", "my.tasks:judge")


def test_expand_puts_plugins_in_their_places() -> None:
    code = ("edgewise.proof", "edgewise.formats.{format}.make", "edgewise.tasks.{task}")
    assert expand(code, format="onnx", task="none") == ("edgewise.proof", "edgewise.formats.onnx.make", "edgewise.tasks.none")


@pytest.mark.parametrize("name", ["edgewise.formats.{fromat}.make", "edgewise.{}", "edgewise.{format", "edgewise.{format.x}"])
def test_expand_refuses_what_it_cannot_replace(name: str) -> None:
    with pytest.raises(ConfigError) as error:
        expand((name,), format="onnx", task="none")
    assert repr(name) in str(error.value) and "{format}, {task}" in str(error.value)
