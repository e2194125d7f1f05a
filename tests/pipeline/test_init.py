"""`edgewise init`: a project anywhere, all of it or nothing, and nothing of the user's touched."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from edgewise.cli import init, template
from edgewise.cli.main import dispatch
from edgewise.config.compose import compose
from edgewise.errors import InfrastructureError, UserError
from tests.conftest import ROOT
from tests.support.formats import FORMATS

ODD = """it's a "small" camera, (v2)"""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder with what is in it."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder outside of any repository, and a git that knows the user and nothing else of this machine."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    folder = tmp_path / "here"
    folder.mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home/.gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.invalid\n")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def every_format(monkeypatch):
    """As if everything were installed, whatever this environment has."""
    monkeypatch.setattr(init, "missing_extra", lambda module: None)


def without(monkeypatch, *names: str) -> None:
    monkeypatch.setattr(init, "missing_extra", lambda module: (name := module.rpartition(".")[2]) in names and name or None)


def test_a_new_project_holds_the_files_of_the_package(here, every_format, capsys):
    assert dispatch(["init", "camera"]) is None
    made = here / "camera"
    own = {str(name): (ROOT / name).read_bytes() for name in template.files(ROOT)}
    assert {name: text for name, text in tree(made).items() if text is not None and not name.startswith(".git/")} == own
    assert git(made, "status", "--porcelain") == "" and git(made, "log", "--format=%s") == "Start\n"
    assert sorted(git(made, "ls-files").split()) == sorted(own)
    assert list(here.iterdir()) == [made]
    assert capsys.readouterr().out.endswith(f"next:\n  cd camera\n{init.OWN_MODEL}\n  dvc repro\n  edgewise report\n")


@pytest.mark.parametrize("missing", [("tflite", "openvino"), ("onnx",), ("onnx", "openvino", "tflite"), ("torch",)])
def test_variants_whose_format_is_not_installed_are_comments(here, monkeypatch, capsys, missing):
    without(monkeypatch, *missing)
    dispatch(["init", "camera"])
    shipped = yaml.safe_load((ROOT / "params.yaml").read_text())
    text = (here / "camera/params.yaml").read_text()
    params = yaml.safe_load(text)
    kept = {name: v for name, v in shipped["variants"].items() if v["format"] not in missing}
    assert params["variants"] == kept and list(params["variants"]) == list(kept)
    assert params["reference"] == (shipped["reference"] if "onnx" not in missing else "torch-fp32")
    assert {k: v for k, v in params.items() if k not in ("variants", "reference")} == {
        k: v for k, v in shipped.items() if k not in ("variants", "reference")
    }
    said = capsys.readouterr().out
    for name in FORMATS:
        named = name in missing and any(variant["format"] == name for variant in shipped["variants"].values())
        assert (f"pip install 'edgewise[{name}]'" in said) == (f"pip install 'edgewise[{name}]'" in text) == named
    monkeypatch.chdir(here / "camera")
    config = compose(Path("params.yaml"), Path("conf"))
    assert set(config.variants) == set(kept) and config.reference == params["reference"]


def test_a_comment_taken_away_brings_the_variant_back(here, monkeypatch):
    without(monkeypatch, "tflite")
    init.create(here / "camera")
    text = re.sub(r"^  # (?!pip )", "  ", (here / "camera/params.yaml").read_text(), flags=re.MULTILINE)
    assert yaml.safe_load(text)["variants"] == yaml.safe_load((ROOT / "params.yaml").read_text())["variants"]


def test_without_any_format_there_is_no_project(here, monkeypatch):
    without(monkeypatch, *FORMATS)
    with pytest.raises(InfrastructureError, match=r"pip install 'edgewise\[train,onnx\]'"):
        init.create(here / "camera")
    assert not list(here.iterdir())


def test_what_is_installed_is_found_by_the_format_s_own_declarations(monkeypatch):
    from edgewise.formats.openvino import make, run

    module = "edgewise.formats.openvino"
    monkeypatch.setattr(run, "RUNTIME", "numpy")
    monkeypatch.setattr(make, "REQUIRES", {"no_such_package": "sources of one kind", "numpy": "mine", "yaml": "mine"})
    assert init.missing_extra(module) is None
    monkeypatch.setattr(make, "REQUIRES", {"numpy": "mine", "no_such_package": "mine"})
    assert init.missing_extra(module) == "mine"
    monkeypatch.setattr(run, "RUNTIME", "no_such_runtime.interpreter")
    monkeypatch.setattr(make, "REQUIRES", {"no_such_runtime": "mine", "yaml": "mine"})
    assert init.missing_extra(module) == "mine"


def test_what_the_model_needs_is_said(here, monkeypatch, every_format, capsys):
    found = init.util.find_spec
    monkeypatch.setattr(init.util, "find_spec", lambda name, *more: None if name == "transformers" else found(name, *more))
    dispatch(["init", "camera"])
    assert "the example's model resnet18 needs transformers: pip install 'edgewise[train]'; an ONNX file" in capsys.readouterr().out


@pytest.mark.parametrize("given", [".", "", "deep/er/camera", ODD])
def test_any_folder(here, given, every_format, capsys, monkeypatch):
    """`.`, an empty folder, folders that do not exist yet, blanks and quotes. '' stands for an empty folder that exists."""
    folder = here / (given or "empty")
    if not given:
        folder.mkdir()
    dispatch(["init", given or "empty"])
    said = capsys.readouterr().out
    assert (folder / "dvc.yaml").is_file() and git(folder, "status", "--porcelain") == ""
    command = said[said.index("next:\n") :].splitlines()[1].strip()
    assert command == "edgewise compose --check" if given == "." else command.startswith("cd ")
    # what is printed can be pasted
    entered = subprocess.run(["bash", "-euc", f"{command.replace('edgewise compose --check', ':')}; pwd"], capture_output=True, text=True)
    assert entered.stdout == f"{folder}\n"
    monkeypatch.chdir(folder)
    assert dispatch(["compose", "--check"]) is None


REFUSED = ["dvc.yaml", "params.yaml", "conf/", "stages/", ".gitignore", ".dvc/", "models/", "metrics/", "dvc.lock"]


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in a repository"])
def test_a_folder_that_has_such_files_is_left_alone(here, name, inside, every_format):
    folder = here / "mine"
    (folder / name).mkdir(parents=True) if name.endswith("/") else (folder.mkdir(), (folder / name).write_text("mine"))
    (folder / "notes.txt").write_text("mine")
    if inside:
        git(here, "init", "-q")
    before = tree(here)
    with pytest.raises(UserError, match=r"edgewise init mine/edge$") as error:
        init.create(Path("mine"))
    assert f"mine has {name.strip('/')} already" in str(error.value) and "\n" not in str(error.value)
    assert tree(here) == before


def test_a_dangling_link_counts_as_a_file_and_a_file_is_no_folder(here, every_format):
    (here / "params.yaml").symlink_to("gone")
    with pytest.raises(UserError, match=r"has params\.yaml already"):
        init.create(Path())
    (here / "file").write_text("mine")
    with pytest.raises(UserError, match="file is a file; name a folder"):
        init.create(Path("file"))
    assert sorted(p.name for p in here.iterdir()) == ["file", "params.yaml"]


def test_a_folder_with_other_files_keeps_them(here, every_format):
    (here / "README.md").write_text("mine")
    init.create(Path())
    assert (here / "README.md").read_text() == "mine" and (here / "stages/compose.py").is_file()
    assert git(here, "status", "--porcelain") == "?? README.md\n"


@pytest.mark.parametrize("given", ["tools/camera", "."])
def test_in_a_repository_of_the_user_nothing_of_it_is_touched(here, given, every_format, capsys):
    git(here, "init", "-q")
    (here / "mine.txt").write_text("mine")
    git(here, "add", "mine.txt")
    before, index = tree(here), (here / ".git/index").read_bytes()
    dispatch(["init", given])
    after = tree(here)
    assert {name: after[name] for name in before} == before and (here / ".git/index").read_bytes() == index
    assert not (here / "tools/camera/.git").exists()
    said = capsys.readouterr().out
    assert f"nothing is committed in {here}" in said and f"git add {given}" in said


@pytest.mark.lengthy
def test_dvc_works_in_the_subfolder_of_a_repository(here, every_format):
    """As after `dvc init --subdir`: the folder is a DVC project of its own, kept by the user's git."""
    git(here, "init", "-q")
    init.create(Path("tools/camera"))
    git(here, "add", ".")
    git(here, "commit", "-qm", "Start")
    folder = here / "tools/camera"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def dvc(*arguments: str) -> str:
        done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert dvc("root") == ".\n"
    dvc("repro", "compose")
    assert (folder / "models/config.yaml").is_file()
    assert "accuracy-latency" in dvc("plots", "templates") + str(sorted(p.name for p in (folder / ".dvc/plots").iterdir()))
    assert not (here / ".dvc").exists()


def test_git_without_a_name_makes_no_commit_and_says_what_to_do(here, every_format, monkeypatch, capsys):
    (Path(os.environ["HOME"]) / ".gitconfig").write_text("[user]\n\tuseConfigOnly = true\n")
    dispatch(["init", "my camera"])
    said = capsys.readouterr().out
    assert 'git config --global user.name "Your Name"; git config --global user.email you@example.com' in said
    commands = said[said.index("  git config") :].splitlines()[:2]
    assert subprocess.run(["bash", "-euc", "\n".join(commands)], cwd=here, capture_output=True).returncode == 0
    assert git(here / "my camera", "log", "--format=%s by %an") == "Start by Your Name\n"
    assert git(here / "my camera", "status", "--porcelain") == ""


def test_a_hook_that_refuses_the_commit_is_quoted(here, every_format, capsys):
    hooks = Path(os.environ["HOME"]) / "hooks"
    hooks.mkdir()
    (hooks / "pre-commit").write_text("#!/bin/sh\necho no commits today >&2\nexit 1\n")
    (hooks / "pre-commit").chmod(0o755)
    git(here, "config", "--global", "core.hooksPath", str(hooks))
    dispatch(["init", "camera"])
    assert "git could not make the first commit: no commits today; " in capsys.readouterr().out
    assert (here / "camera/dvc.yaml").is_file()


def test_without_git_nothing_is_left(here, every_format, monkeypatch):
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(InfrastructureError, match="git is not installed"):
        init.create(Path("camera"))
    assert not list(here.iterdir())


@pytest.mark.parametrize("given", ["new/camera", "empty"])
@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full disk", "ctrl-c"])
@pytest.mark.parametrize("step", ["copy", "first_commit", "rename"])
def test_a_failure_leaves_nothing(here, every_format, monkeypatch, given, failure, step):
    (here / "empty").mkdir()
    (here / "empty/notes.txt").write_text("mine")
    before = tree(here)

    def fail(*_):
        raise failure

    def late(path, target, rename=Path.rename):
        """The last of the entries, where there are several."""
        return fail() if path.name in ("stages", "project") else rename(path, target)

    where, name, replacement = {
        "copy": (template, "copy", lambda source, target: (shutil.copytree(source / "conf", target / "conf"), fail())),
        "first_commit": (init, "first_commit", fail),
        "rename": (Path, "rename", late),
    }[step]
    monkeypatch.setattr(where, name, replacement)
    with pytest.raises(type(failure)):
        init.create(Path(given))
    assert tree(here) == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_leaves_nothing(here, number):
    code = (
        "from edgewise.cli import init; from edgewise.cli.main import main; import sys, time; sys.argv = ['edgewise', 'init', 'camera']\n"
        "init.missing_extra = lambda module: None\n"
        # short sleeps: Python sees a signal that comes just before a sleep after it
        "init.first_commit = lambda folder: (print('there', flush=True), [time.sleep(0.05) for _ in range(1200)])\n"
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored where the tests run in the background
        "main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "there\n"
    assert len(list(here.iterdir())) == 1
    process.send_signal(number)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 128 + number and "Traceback" not in said
    assert not list(here.iterdir())


def test_two_at_once_make_one_project(here, every_format):
    """Whoever comes second fails and leaves the first one's project whole."""
    code = (
        "from edgewise.cli import init; from edgewise.cli.main import main; import sys; sys.argv = ['edgewise', 'init', 'camera']\n"
        "init.missing_extra = lambda module: None\nmain()"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    both = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[1] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes[0] == 0, said
    assert git(here / "camera", "status", "--porcelain") == "" and [p.name for p in here.iterdir()] == ["camera"]
    assert codes[1] == 2, "refused, as if it had been called later"


def test_a_hooks_index_of_another_repository_is_left_alone(here, every_format, monkeypatch):
    """git sets GIT_INDEX_FILE and GIT_DIR for its hooks."""
    other = here.parent / "other"
    other.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=other, check=True)
    (other / "file").write_text("x")
    subprocess.run(["git", "add", "file"], cwd=other, check=True)
    index = (other / ".git/index").read_bytes()
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    init.create(here / "camera")
    assert (other / ".git/index").read_bytes() == index and (here / "camera/.git").is_dir()


def test_the_files_of_a_read_only_package_can_be_written_in_the_project(here, every_format, monkeypatch):
    source = here.parent / "package"
    template.copy(template.root(), source)
    for path in source.rglob("*"):
        path.chmod(0o444) if path.is_file() else None
    monkeypatch.setattr(template, "root", lambda: source)
    init.create(here / "camera")
    assert all(path.stat().st_mode & 0o200 for path in (here / "camera/conf").rglob("*.yaml"))


def test_a_package_that_lacks_a_part_is_named(here, every_format, monkeypatch):
    source = here.parent / "package"
    template.copy(template.root(), source)
    shutil.rmtree(source / ".dvc/plots")
    monkeypatch.setattr(template, "root", lambda: source)
    with pytest.raises(FileNotFoundError, match=r"\.dvc/plots: a file of a new project is missing; install edgewise again"):
        init.create(here / "camera")
    assert not (here / "camera").exists()
