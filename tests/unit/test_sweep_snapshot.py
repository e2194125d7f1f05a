"""The code that a sweep runs: the snapshot of the working tree, what it takes along and what it leaves behind, and its clones."""

import os
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgewise.config.compose import Options
from edgewise.errors import ConfigError
from edgewise.sweep import clone, execution, plan, points
from tests.conftest import ROOT

pytestmark = pytest.mark.usefixtures("parsed_once")


@pytest.fixture
def repository(tmp_path):
    def git(*arguments, folder=tmp_path):
        identity = ("-c", "user.name=T", "-c", "user.email=t@example.invalid", "-c", "protocol.file.allow=always")
        return subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout

    git("init", "-q")
    tmp_path.joinpath("a.py").write_text("a")
    return tmp_path, git


def test_a_repository_without_a_commit_is_refused(repository):
    with pytest.raises(ConfigError, match="has no commit"):
        clone.take_snapshot(repository[0])


def test_a_project_in_a_subfolder_of_a_repository_is_refused(repository):
    root, git = repository
    (root / "tools/camera").mkdir(parents=True)
    (root / "tools/camera/params.yaml").write_text("seed: 0\n")
    git("add", "-A")
    git("commit", "-qm", "Start")
    with pytest.raises(ConfigError, match=r"is the folder tools/camera/ of a larger repository"):
        clone.take_snapshot(root / "tools/camera")


def test_the_snapshot_has_what_is_not_committed_and_leaves_the_index_alone(repository):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    clean = clone.take_snapshot(root)
    root.joinpath("a.py").write_text("b")
    root.joinpath("new.py").write_text("n")
    root.joinpath("params.yaml").write_text("seed: 0")
    status = git("status", "--porcelain")
    dirty = clone.take_snapshot(root)
    assert git("show", f"{dirty.tree}:a.py") == "b" and git("show", f"{dirty.tree}:new.py") == "n"
    assert clean.carried == () and dirty.carried == ("a.py", "new.py") and git("status", "--porcelain") == status
    root.joinpath("params.yaml").write_text("seed: 1")
    assert clone.take_snapshot(root).key == dirty.key != clean.key


def test_comments_docstrings_and_documents_do_not_change_the_key(repository):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    before = clone.take_snapshot(root).key
    root.joinpath("a.py").write_text('"""What a is."""\n\na  # a\n')
    root.joinpath("README.md").write_text("new")
    assert clone.take_snapshot(root).key == before
    root.joinpath("a.py").write_text("a = 1")
    changed = clone.take_snapshot(root).key
    root.joinpath("conf.yaml").write_text("a: 1")
    assert len({before, changed, clone.take_snapshot(root).key}) == 3


def test_a_file_for_another_python_counts_by_its_content(repository):
    root, git = repository
    root.joinpath("old.py").write_text("print 1")
    git("add", "-A")
    git("commit", "-qm", "Start")
    before = clone.take_snapshot(root).key
    root.joinpath("old.py").write_text("print 2")
    assert clone.take_snapshot(root).key != before


def test_a_change_in_the_second_of_the_commit_counts(repository):
    """Git compares sizes and seconds, and reads a file again where its index is as old as the file."""
    root, git = repository
    git("config", "core.trustctime", "false")
    file, a_minute_ago = root / "same_size.yaml", time.time() - 60
    file.write_text("a: 1")
    os.utime(file, (a_minute_ago, a_minute_ago))
    git("add", "-A")
    git("commit", "-qm", "Start")
    os.utime(root / ".git/index", (a_minute_ago, a_minute_ago))
    before = clone.take_snapshot(root).key
    file.write_text("a: 2")
    os.utime(file, (a_minute_ago, a_minute_ago))
    assert clone.take_snapshot(root).key != before


def test_a_clone_of_a_checkout_has_its_own_library(repository):
    """There an edit of the installed edgewise changes nothing; elsewhere it is part of the key."""
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    outside = clone.take_snapshot(root)
    root.joinpath("edgewise").mkdir()
    root.joinpath("edgewise/__init__.py").write_text("")
    checkout = clone.take_snapshot(root)
    assert outside.library and checkout.library == ""
    clone.check_library(checkout, root)
    assert str(clone.environment(root)["PYTHONPATH"]).startswith(str(root))


def test_a_point_with_another_library_than_at_the_start_is_refused(repository):
    root, git = repository
    root.joinpath("params.yaml").write_text((ROOT / "params.yaml").read_text())
    git("add", "-A")
    git("commit", "-qm", "Start")
    code = clone.take_snapshot(root)
    clone.check_library(code, root)
    made = plan.Plan("s", str(root), str(root), replace(code, library="0" * 64), (ROOT / "params.yaml").read_text(), (), ("seed",), ())
    (point,) = points.compose_all((ROOT / "params.yaml").read_text(), points.grid_points(["seed=1"]), Options(ROOT / "conf"))
    blank = execution.Outcome("sweep-0123456789", point.overrides, "failed", code.head, code.tree, "e")
    done = execution.try_point(made, point, blank, execution.Clock())
    assert not done.ok and not (made.folder / "work").exists()
    assert f"is not the one that the sweep began with (digest {code.library[:10]}, then 0000000000); " in str(done.reason)
    assert "\n" not in str(done.reason)


SECRETS = (
    *(".env", "conf/.env.local", "deploy/server.pem", "id_ed25519", "home/.ssh/config", "API.KEY", ".netrc"),
    *("deploy/prod.env", "conf/secrets.yaml", "kaggle.json", "my-service-account.json", ".kube/config"),
)
PLAIN = (".env.example", "credentials.py", "secrets.py", "environment.yaml", "id_ed25519.pub", "keys.py", "[a]*.txt", "name with space.py")


def test_secrets_and_large_files_that_git_does_not_know_stay_behind(repository):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    for name in (*SECRETS, *PLAIN, "other"):
        root.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        root.joinpath(name).write_text("x")
    root.joinpath("signing").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    for name, size in (("large.bin", 10 * 2**20 + 1), ("small.bin", 10 * 2**20)):
        with root.joinpath(name).open("wb") as stream:
            stream.truncate(size)
    root.joinpath(".gitignore").write_text("other\n")
    root.joinpath("a.py").write_text("b")
    git("init", "-q", str(root / "nested"))
    status = git("status", "--porcelain")
    made = clone.take_snapshot(root)
    assert set(made.carried) == {*PLAIN, "small.bin", ".gitignore", "a.py"}
    assert set(git("ls-tree", "-r", "-z", "--name-only", made.tree).strip("\0").split("\0")) == set(made.carried)
    reasons = dict(entry.rsplit(" (", 1) for entry in made.left_behind)
    assert set(reasons) == {*SECRETS, "signing", "large.bin", "nested/"}
    assert reasons[".env"] == reasons["signing"] == "may be a secret)" and reasons["large.bin"] == "10.0 MB)"
    assert git("status", "--porcelain") == status


def test_many_small_files_that_git_does_not_know_are_refused_with_their_folder(repository, monkeypatch):
    root, git = repository
    git("add", "-A")
    git("commit", "-qm", "Start")
    monkeypatch.setattr(clone, "MOST_TOGETHER", 2**20)
    (root / "pictures").mkdir()
    for number in range(5):
        (root / f"pictures/{number}.bin").write_bytes(bytes(2**18))
    with pytest.raises(
        ConfigError, match=r"5 untracked files of 1 MB would go into git .* 1 MB of them in pictures: name it in .gitignore"
    ):
        clone.take_snapshot(root)
    (root / ".gitignore").write_text("pictures/\n")
    assert clone.take_snapshot(root).carried == (".gitignore",)


def test_names_that_are_not_utf_8_stop_no_sweep(repository):
    root, git = repository
    odd = Path(os.fsdecode(b"gr\xf6\xdfe.py"))
    (root / odd).write_text("x = 1")
    git("add", "-A")
    git("commit", "-qm", "Start")
    known = clone.take_snapshot(root)
    (root / odd).write_text("x = 2")
    (root / Path(os.fsdecode(b"\xe9.txt"))).write_text("new")
    made = clone.take_snapshot(root)
    assert made.carried == (r"gr\xf6\xdfe.py", r"\xe9.txt") and made.key != known.key
    clone.describe_code(made).encode("utf-8")


def test_paths_of_the_settings_lead_to_the_same_files_from_a_clone(tmp_path):
    """Inside of the project, beside it, and not at all: a long text is no path."""
    root = tmp_path / "a project (v2), 'mine'"
    for path in ("data/set.npz", "../beside/net.onnx", "teacher/source/model.pt"):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(path)
    choices = {
        "data": {"path": "data/set.npz", "arguments": {"text": "x" * 5000, "gone": "data/absent.npz", "top": ".", "up": ".."}},
        "model": {"path": "../beside/net.onnx", "weights": "../../../../../../../../etc/hostname"},
        "train": {"teacher": "teacher/source"},
    }
    folder = root / ".edgewise/sweeps/one/work/sweep-1"
    folder.mkdir(parents=True)
    for _ in range(2):
        clone.link_local_files(root, folder, choices)
    for path in ("data/set.npz", "../beside/net.onnx", "teacher/source/model.pt"):
        assert (folder / path).read_text() == path
    assert sorted(path.name for path in folder.iterdir()) == ["data", "teacher"] and not (folder / "data/absent.npz").is_symlink()


def test_a_secret_that_git_knows_and_a_deleted_file_are_as_they_are_in_the_tree(repository):
    root, git = repository
    root.joinpath("test.pem").write_text("1")
    git("add", "-A")
    git("commit", "-qm", "Start")
    root.joinpath("test.pem").write_text("2")
    root.joinpath("a.py").unlink()
    made = clone.take_snapshot(root)
    assert git("show", f"{made.tree}:test.pem") == "2" and made.carried == ("a.py", "test.pem") and made.left_behind == ()


def test_the_start_of_a_sweep_lists_what_is_carried_and_what_is_not():
    made = clone.Code("0123456789abcdef", "tree", "key", ("a.py", "b.py", "c.py", "d.py"), (".env (may be a secret)",))
    assert clone.describe_code(made) == "uncommitted files included: a.py, b.py, c.py, d.py; not included: .env (may be a secret)"
    assert clone.describe_code(replace(made, carried=(), left_behind=())) == "the code is that of commit 0123456789"
    assert "f3 and 21 more" in clone.describe_code(replace(made, carried=tuple(f"f{i}" for i in range(25))))


def test_a_dirty_submodule_is_refused(repository, tmp_path_factory):
    root, git = repository
    other = tmp_path_factory.mktemp("other")
    git("init", "-q", folder=other)
    other.joinpath("lib.py").write_text("1")
    git("add", "-A", folder=other)
    git("commit", "-qm", "Lib", folder=other)
    git("submodule", "add", "-q", str(other), "lib")
    git("add", "-A")
    git("commit", "-qm", "Start")
    clone.take_snapshot(root)
    root.joinpath("lib/lib.py").write_text("2")
    with pytest.raises(ConfigError, match="submodule lib has uncommitted changes"):
        clone.take_snapshot(root)
