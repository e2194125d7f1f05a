"""The code that a sweep runs: the working tree as it is now, with what is not committed, as one tree object of git.

A file that git does not know yet is taken along unless git ignores it, it may be a secret, or it is large: experiments are commits, which
others get, and what is in one stays in it.

A sweep keeps to it from the first point to the last, whatever is edited meanwhile. Nothing of the user's is touched: the
tree is written with an index of its own.
"""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath

from stages.core.errors import ConfigError, SurroundingsError
from stages.sweeping.commands import git

WRITTEN = ("params.yaml", "dvc.lock", "metrics/", "models/")  # the choices, which are looked at apart, and what the pipeline writes


MOST_BYTES = 10 * 2**20  # of a file that git does not know
SECRETS: tuple[str, ...] = (  # names of files and folders
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
    *(".netrc", ".npmrc", ".pypirc", ".git-credentials", "credentials", "credentials.json", ".ssh", ".aws", ".gnupg"),
)
HARMLESS = (".env.example", ".env.sample", ".env.template")
MOST_NAMED = 20  # files in the terminal; plan.json has all


@dataclass(frozen=True)
class Code:
    """head: the commit that the experiments hang on. tree: the files. key: a hash of those that results depend on.
    carried: paths that differ from the commit, as they were at the start. left_behind: paths that git does not know and that are in no
    experiment, each with the reason in brackets."""

    head: str
    tree: str
    key: str
    carried: tuple[str, ...]
    left_behind: tuple[str, ...] = ()


def snapshot(root: Path) -> Code:
    """ConfigError where the repository has no commit, or a submodule with changes that no clone could see."""
    try:
        head = git(root, "rev-parse", "--verify", "HEAD")
    except SurroundingsError:
        raise ConfigError(f"{root} has no commit, and experiments hang on one: git init, git add -A, git commit -m Start") from None
    refuse_dirty_submodules(root)
    reasons = {path: reason_to_leave(root, path) for path in unknown(root)}
    tree = write_tree(root, [path for path, reason in reasons.items() if not reason])
    carried = split(git(root, "diff-tree", "-r", "-z", "--name-only", "--no-renames", head, tree))
    left = tuple(f"{path} ({reason})" for path, reason in reasons.items() if reason)
    return Code(head, tree, code_key(root, tree), tuple(path for path in carried if not path.startswith(WRITTEN)), left)


def described(code: Code) -> str:
    """What runs, in words, for the terminal."""
    if not code.carried and not code.left_behind:
        return f"the code is that of commit {code.head[:10]}"
    taken = f"uncommitted files taken along: {named(code.carried)}" if code.carried else f"the code is that of commit {code.head[:10]}"
    return taken + (f"; not taken along: {named(code.left_behind)}" if code.left_behind else "")


def named(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return f"{', '.join(paths[:MOST_NAMED])}{more}"


def unknown(root: Path) -> list[str]:
    """Files that git neither knows nor ignores, without models/, which the pipeline makes."""
    return split(git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", ".", ":(exclude)models"))


def split(listed: str) -> list[str]:
    """The paths of an output of git with -z, which quotes no character of them."""
    return [path for path in listed.split("\0") if path]


def reason_to_leave(root: Path, path: str) -> str | None:
    """Why a file that git does not know stays out of the experiments; None where it is taken along."""
    if path.endswith("/"):
        return "a repository of its own"
    if is_secret(path) or is_private_key(root / path):
        return "may be a secret"
    size = (root / path).lstat().st_size
    return f"{size / 2**20:.1f} MB" if size > MOST_BYTES else None


def is_secret(path: str) -> bool:
    """By the name of the file or of a folder above it."""
    names = [part.casefold() for part in PurePath(path).parts]
    return names[-1] not in HARMLESS and any(fnmatchcase(name, pattern) for name in names for pattern in SECRETS)


def is_private_key(path: Path) -> bool:
    """By its first line, whatever it is called."""
    if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
        return False
    with path.open("rb") as stream:
        line = stream.readline(100)
    return line.startswith(b"-----BEGIN") and b"PRIVATE KEY" in line


def refuse_dirty_submodules(root: Path) -> None:
    if not (root / ".gitmodules").exists():
        return
    for line in git(root, "status", "--porcelain=v2", "--ignore-submodules=none").splitlines():
        fields = line.split(" ")
        if fields[0] == "1" and fields[2].startswith("S") and fields[2] != "S...":
            raise ConfigError(
                f"the submodule {' '.join(fields[8:])} has changes that no clone can see: commit them in it, then the submodule here"
            )


def write_tree(root: Path, added: Sequence[str]) -> str:
    """The files that git knows as they are now, and those of `added`, without models/."""
    with tempfile.TemporaryDirectory() as folder:
        index, listed = Path(folder, "index"), Path(folder, "added")
        own = Path(git(root, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        if own.exists():
            shutil.copy(own, index)  # with what git knows of unchanged files, which saves it from hashing them
        git(root, "add", "--update", "--", ".", ":(exclude)models", GIT_INDEX_FILE=str(index))
        if added:
            listed.write_bytes(b"\0".join(os.fsencode(path) for path in added))
            literal = {"GIT_INDEX_FILE": str(index), "GIT_LITERAL_PATHSPECS": "1"}
            git(root, "add", f"--pathspec-from-file={listed}", "--pathspec-file-nul", **literal)
        return git(root, "write-tree", GIT_INDEX_FILE=str(index))


def code_key(root: Path, tree: str) -> str:
    entries = git(root, "ls-tree", "-r", tree).splitlines()
    counted = [entry for entry in entries if not entry.partition("\t")[2].startswith(WRITTEN)]
    return hashlib.sha256("\n".join(counted).encode()).hexdigest()
