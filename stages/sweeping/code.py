"""The code that a sweep runs: the working tree as it is now, with what is not committed, as one tree object of git.

A sweep keeps to it from the first point to the last, whatever is edited meanwhile. Nothing of the user's is touched: the
tree is written with an index of its own.
"""

import hashlib
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from stages.core.errors import ConfigError, SurroundingsError
from stages.sweeping.commands import git

WRITTEN = ("params.yaml", "dvc.lock", "metrics/", "models/")  # the choices, which are looked at apart, and what the pipeline writes


@dataclass(frozen=True)
class Code:
    """head: the commit that the experiments hang on. tree: the files. key: a hash of those that results depend on.
    carried: paths that differ from the commit, as they were at the start."""

    head: str
    tree: str
    key: str
    carried: tuple[str, ...]


def snapshot(root: Path) -> Code:
    """ConfigError where the repository has no commit, or a submodule with changes that no clone could see."""
    try:
        head = git(root, "rev-parse", "--verify", "HEAD")
    except SurroundingsError:
        raise ConfigError(f"{root} has no commit, and experiments hang on one: git init, git add -A, git commit -m Start") from None
    refuse_dirty_submodules(root)
    tree = write_tree(root)
    carried = git(root, "diff-tree", "-r", "--name-only", "--no-renames", head, tree).splitlines()
    return Code(head, tree, code_key(root, tree), tuple(path for path in carried if not path.startswith(WRITTEN)))


def refuse_dirty_submodules(root: Path) -> None:
    if not (root / ".gitmodules").exists():
        return
    for line in git(root, "status", "--porcelain=v2", "--ignore-submodules=none").splitlines():
        fields = line.split(" ")
        if fields[0] == "1" and fields[2].startswith("S") and fields[2] != "S...":
            raise ConfigError(f"the submodule {fields[-1]} has changes that no clone can see: commit them in it, then the submodule here")


def write_tree(root: Path) -> str:
    """Everything that git does not ignore, as `git add -A` sees it, without models/, which the pipeline makes."""
    with tempfile.TemporaryDirectory() as folder:
        index = Path(folder, "index")
        own = Path(git(root, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        if own.exists():
            shutil.copy(own, index)  # with what git knows of unchanged files, which saves it from hashing them
        git(root, "add", "--all", "--", ".", ":(exclude)models", GIT_INDEX_FILE=str(index))
        return git(root, "write-tree", GIT_INDEX_FILE=str(index))


def code_key(root: Path, tree: str) -> str:
    entries = git(root, "ls-tree", "-r", tree).splitlines()
    counted = [entry for entry in entries if not entry.partition("\t")[2].startswith(WRITTEN)]
    return hashlib.sha256("\n".join(counted).encode()).hexdigest()
