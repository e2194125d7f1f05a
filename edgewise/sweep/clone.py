"""Other programs, as a sweep runs them: git for an answer, DVC on a leash with its output in a log."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

import yaml

from edgewise.artifacts.artifact import check_space
from edgewise.errors import ConfigError, SurroundingsError
from edgewise.sweep import kill_with_parent

DVC = (sys.executable, "-m", "dvc")
TAIL_BYTES = 2000


def git(folder: Path, *arguments: str, **environment: str) -> str:
    """What git prints. SurroundingsError with its own words where it fails."""
    done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SurroundingsError(f"git {arguments[0]} failed in {folder}: {last_words(done.stderr)}")
    return done.stdout.rstrip("\n")


def run(command: tuple[str, ...], folder: Path, log: Path, code: Path | None = None) -> None:
    """Run a command in `folder`, in a process group of its own that does not outlive this process.

    code: where `stages` is imported from, if not there. The output is added to `log`. SurroundingsError with what the
    command said last where its exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, kill_with_parent.__file__, *command],
            cwd=folder,
            env=environment(code or folder),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if status:
        said = log.read_bytes()[start:][-TAIL_BYTES:].decode(errors="replace")
        raise SurroundingsError(f"`{' '.join(command[2:4])}` {ended(status)}: {last_words(said)} (see {log})")


def ended(status: int) -> str:
    """leash.py gives the signal that ended its command as 128 + its number; Popen that of leash.py itself as a negative number."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"ended with exit code {status}"
    return f"was ended by {signal.Signals(number).name}, as schedulers do by scancel or at the time limit"


def environment(code: Path) -> Mapping[str, str]:
    """So that `python` is this one, and `stages` those of `code`."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    modules = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PATH": path, "PYTHONPATH": modules}


def last_words(text: str) -> str:
    """The line that tells what went wrong: the last one that says error, else the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return " | ".join(errors[-3:]) or (lines[-1] if lines else "it printed nothing")


# The code that a sweep runs: the working tree as it is now, with what is not committed, as one tree object of git.
#
# A file that git does not know yet is taken along unless git ignores it, it may be a secret, or it is large: experiments are commits, which
# others get, and what is in one stays in it.
#
# A sweep keeps to it from the first point to the last, whatever is edited meanwhile. Nothing of the user's is touched: the
# tree is written with an index of its own.

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


# A shared clone of the repository: its own working tree and DVC state, the parent's objects and cache.

LEFT_BEHIND = (".gitignore", ".tmp")  # the first comes with the tree


@dataclass(frozen=True)
class Parent:
    """The repository that a sweep runs for. cache: the folder of its DVC cache."""

    root: Path
    code: Code
    cache: Path


def make(parent: Parent, folder: Path, params: str) -> None:
    """Clone into `folder`, which is emptied first: the code as it was at the start, `params` as params.yaml."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        check_out(parent, folder)
    except SurroundingsError as error:  # git names the files that it could not write, and not always why
        check_space(folder.parent, error)
        raise
    share_cache(parent, folder)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    link_local_files(parent.root, folder, yaml.safe_load(params))


def check_out(parent: Parent, folder: Path) -> None:
    git(parent.root, "clone", "--quiet", "--shared", "--no-checkout", "--no-tags", str(parent.root), str(folder))
    git(folder, "update-ref", "HEAD", parent.code.head)
    git(folder, "read-tree", parent.code.tree)
    git(folder, "checkout-index", "--all", "--force")
    if (folder / ".gitmodules").exists():
        git(folder, "submodule", "update", "--init", "--recursive")
    for key in ("user.name", "user.email"):
        git(folder, "config", key, git(parent.root, "config", "--default", "edgewise", "--get", key))


def share_cache(parent: Parent, folder: Path) -> None:
    """Written by the library that DVC reads it with, which quotes a comma in the path."""
    from configobj import ConfigObj

    settings = ConfigObj(str(parent.root / ".dvc" / "config.local"), encoding="utf-8", interpolation=False)
    settings.setdefault("cache", {})["dir"] = str(parent.cache)
    settings.filename = str(folder / ".dvc" / "config.local")
    settings.write()


def link_local_files(root: Path, folder: Path, choices: dict[str, Any]) -> None:
    """Data and weights that lie in the project but not in git: the settings name them by a relative path."""
    for name in texts([choices.get("data"), choices.get("model")]):
        path = Path(name)
        if name and not path.is_absolute() and ".." not in path.parts and (root / path).exists() and not (folder / path).exists():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).symlink_to(root / path)


def texts(tree: Any) -> Iterator[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from texts(value)


def copy_results(warm: Path, folder: Path) -> None:
    """What was made once, for a clone that goes on from there. Models are hard links: stages replace files, they never edit them."""
    copies: dict[str, Callable[[str, str], object]] = {"models": os.link, "metrics": shutil.copyfile}
    for name, copy in copies.items():
        if (warm / name).exists():
            shutil.copytree(warm / name, folder / name, copy_function=copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*LEFT_BEHIND))
    if (warm / "dvc.lock").exists():  # not where no stage is common
        shutil.copyfile(warm / "dvc.lock", folder / "dvc.lock")
