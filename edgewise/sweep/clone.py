"""Shared clones of the repository, the snapshot of the code that they hold, and the programs that run in them.

A clone has a working tree and DVC state of its own; git's objects and DVC's cache are those of the parent repository. Its code is the
working tree as it was when the sweep began, uncommitted changes included, as one git tree object: edits made meanwhile have no effect,
and the user's index is not touched. An untracked file is taken along unless git ignores it, it may be a secret, or it is large:
experiments are commits that others fetch, and what is in a commit stays in it.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import Any

import yaml

from edgewise.artifacts import visits
from edgewise.artifacts.artifact import check_space
from edgewise.config.compose import PROFILE
from edgewise.config.digests import CACHE, LIBRARY, Digests
from edgewise.data import file_digests
from edgewise.data.pictures import printable
from edgewise.errors import ConfigError, InfrastructureError
from edgewise.sweep import kill_with_parent

DVC = (sys.executable, "-m", "dvc")
TAIL_BYTES = 2000
WRITTEN = ("params.yaml", "dvc.lock", "metrics/", "models/")  # the choices, which count separately, and what the pipeline writes
DOCUMENTS = (".md", ".rst")
MOST_BYTES = 10 * 2**20  # of an untracked file
MOST_TOGETHER = 200 * 2**20  # of all untracked files: a folder of small pictures is large, too
SECRETS: tuple[str, ...] = (  # patterns for names of files and folders
    *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "*.jks", "*.keystore", "*.kdbx", "id_rsa", "id_dsa", "id_ecdsa", "id_ed25519"),
    *("*.env", "*.ppk", "*.ovpn", "secrets.yaml", "secrets.yml", "secrets.json", "secrets.toml", "credentials", "credentials.json"),
    *("kaggle.json", "*service*account*.json", ".netrc", ".pgpass", ".htpasswd", ".npmrc", ".pypirc", ".git-credentials"),
    *(".ssh", ".aws", ".azure", ".gnupg", ".kube", ".docker", ".kaggle"),
)
HARMLESS = (".env.example", ".env.sample", ".env.template")
MOST_NAMED = 4  # files that are listed in the terminal; plan.json has all
NOT_COPIED = (".gitignore", ".tmp")  # .gitignore comes with the tree


@dataclass(frozen=True)
class Code:
    """A snapshot of the working tree. head: the parent commit of the experiments. tree: the git tree object. key: a hash of the files that
    results depend on, and of the library. carried: paths that differ from the commit. left_behind: untracked paths that are in no
    experiment, each with the reason in brackets. library: digest of the installed edgewise; "" in a checkout, whose clones hold it."""

    head: str
    tree: str
    key: str
    carried: tuple[str, ...]
    left_behind: tuple[str, ...] = ()
    library: str = ""


@dataclass(frozen=True)
class Parent:
    """The repository that clones are made of. cache: the folder of its DVC cache."""

    root: Path
    code: Code
    cache: Path


def make_clone(parent: Parent, folder: Path, params: str) -> None:
    """Clone into `folder`, which is emptied first, with the snapshot of the code and `params` as params.yaml.

    Raises InfrastructureError where git fails, with the free space where the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        check_out(parent, folder)
    except InfrastructureError as error:  # git lists the files that it could not write, but not always why
        check_space(folder.parent, error)
        raise
    share_cache(parent, folder)
    share_store(visits.STORE, parent.root, folder)
    share_store(file_digests.STORE, parent.root, folder)
    (folder / "params.yaml").write_text(params, encoding="utf-8")
    link_local_files(parent.root, folder, yaml.safe_load(params))


@contextlib.contextmanager
def hold_lock(path: Path, running: str) -> Iterator[None]:
    """Hold the lock of a sweep or a study. ConfigError with the message `running` where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(running) from None
        yield


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
    """Point the clone's DVC at the parent's cache. ConfigObj, which DVC reads the file with, quotes a comma in the path."""
    from configobj import ConfigObj

    settings = ConfigObj(str(parent.root / ".dvc" / "config.local"), encoding="utf-8", interpolation=False)
    settings.setdefault("cache", {})["dir"] = str(parent.cache)
    settings.filename = str(folder / ".dvc" / "config.local")
    settings.write()


def share_store(place: Path, root: Path, folder: Path) -> None:
    """Link a store of the parent: that of the visits, so that points are judged by the device's trust (its keys hold the files, so points
    do not mix), and that of the digests of data files, which are read once."""
    store, link = root / place, folder / place
    store.mkdir(parents=True, exist_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(store.resolve())


def link_local_files(root: Path, folder: Path, choices: dict[str, Any]) -> None:
    """Link data, weights and a teacher that the settings name by a relative path and that are not in git. What lies outside of the project
    is linked outside of the clone, where the same path leads from there, as long as that is in .edgewise."""
    for name in strings_in([choices.get("data"), choices.get("model"), (choices.get("train") or {}).get("teacher")]):
        place = Path(os.path.normpath(folder / name))
        ours = place.is_relative_to(folder) or place.is_relative_to(root / CACHE.parent)
        if name and ours and not Path(name).is_absolute() and os.path.exists(root / name) and not os.path.lexists(place):  # noqa: PTH110
            place.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):  # another point was faster
                place.symlink_to(root / name)


def strings_in(tree: Any) -> Iterator[str]:
    """All strings among the values of nested dictionaries and lists."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, (dict, list)):
        for value in tree.values() if isinstance(tree, dict) else tree:
            yield from strings_in(value)


def copy_results(source: Path, folder: Path) -> None:
    """Copy models/, metrics/ and dvc.lock from another clone. Models are hard links: stages replace files and never edit them."""
    copies: dict[str, Callable[[str, str], object]] = {"models": os.link, "metrics": shutil.copyfile}
    for name, copy in copies.items():
        if (source / name).exists():
            shutil.copytree(
                source / name, folder / name, copy_function=copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*NOT_COPIED)
            )
    if (source / "dvc.lock").exists():  # missing where no stage is common
        shutil.copyfile(source / "dvc.lock", folder / "dvc.lock")


def take_snapshot(root: Path) -> Code:
    """The working tree as it is now. Raises ConfigError for a repository without a commit, for a project in a subfolder of a
    repository, and for a submodule with uncommitted changes."""
    try:
        head = git(root, "rev-parse", "--verify", "HEAD")
    except InfrastructureError:
        raise ConfigError(f"{root} has no commit to attach experiments to: run git init, git add -A, git commit -m Start") from None
    inside = git(root, "rev-parse", "--show-prefix")
    if inside:
        raise ConfigError(
            f"{root} is the folder {inside} of a larger repository: sweeps and studies run in clones, and need a project that is a"
            " repository of its own; edgewise init makes one in a folder outside of the repository"
        )
    refuse_dirty_submodules(root)
    reasons = {path: why_left_behind(root, path) for path in untracked_files(root)}
    added = [path for path, reason in reasons.items() if not reason]
    refuse_too_much(root, added)
    tree = write_tree(root, added)
    carried = split_paths(git(root, "diff-tree", "-r", "-z", "--name-only", "--no-renames", head, tree))
    left = tuple(f"{printable(path)} ({reason})" for path, reason in reasons.items() if reason)
    library = library_digest(root)
    taken = tuple(printable(path) for path in carried if not path.startswith(WRITTEN))
    return Code(head, tree, code_digest(root, tree, library), taken, left, library)


def untracked_files(root: Path) -> list[str]:
    """Paths of untracked files that git does not ignore, without models/."""
    return split_paths(git(root, "ls-files", "-z", "--others", "--exclude-standard", "--", ".", ":(exclude)models"))


def why_left_behind(root: Path, path: str) -> str | None:
    """Why an untracked file stays out of the experiments; None where it is taken along."""
    if path.endswith("/"):
        return "a repository of its own"
    if is_secret(path) or is_private_key(root / path):
        return "may be a secret"
    size = (root / path).lstat().st_size
    return f"{size / 2**20:.1f} MB" if size > MOST_BYTES else None


def refuse_too_much(root: Path, added: Sequence[str]) -> None:
    """Raise ConfigError where the untracked files that would go into git are large together."""
    sizes = Counter[str]()
    for path in added:
        sizes[PurePath(path).parts[0]] += (root / path).lstat().st_size
    if sizes.total() > MOST_TOGETHER:
        (name, size), *_ = sizes.most_common(1)
        raise ConfigError(
            f"{len(added):,} untracked files of {sizes.total() / 2**20:.0f} MB would go into git with each point,"
            f" {size / 2**20:.0f} MB of them in {printable(name)}: name it in .gitignore (clones link what the settings name), or commit it"
        )


def is_secret(path: str) -> bool:
    """Whether the name of the file, or of a folder above it, is that of a secret."""
    names = [part.casefold() for part in PurePath(path).parts]
    return names[-1] not in HARMLESS and any(fnmatchcase(name, pattern) for name in names for pattern in SECRETS)


def is_private_key(path: Path) -> bool:
    """Whether the first line is that of a PEM private key."""
    if path.is_symlink() or not path.is_file() or not os.access(path, os.R_OK):
        return False
    with path.open("rb") as stream:
        line = stream.readline(100)
    return line.startswith(b"-----BEGIN") and b"PRIVATE KEY" in line


def refuse_dirty_submodules(root: Path) -> None:
    """Raise ConfigError for a submodule with uncommitted changes."""
    if not (root / ".gitmodules").exists():
        return
    for line in git(root, "status", "--porcelain=v2", "--ignore-submodules=none").splitlines():
        fields = line.split(" ")
        if fields[0] == "1" and fields[2].startswith("S") and fields[2] != "S...":
            raise ConfigError(
                f"the submodule {' '.join(fields[8:])} has uncommitted changes, which a clone would miss: commit them, then commit the "
                "submodule here"
            )


def write_tree(root: Path, added: Sequence[str]) -> str:
    """Write a git tree object of the tracked files as they are now and of `added`, without models/; returns its id."""
    with tempfile.TemporaryDirectory() as folder:
        index, listed = Path(folder, "index"), Path(folder, "added")
        own = Path(git(root, "rev-parse", "--path-format=absolute", "--git-path", "index"))
        if own.exists():
            shutil.copy2(own, index)  # its stat cache saves hashing the unchanged files; by its time git tells which may have changed since
        git(root, "add", "--update", "--", ".", ":(exclude)models", GIT_INDEX_FILE=str(index))
        if added:
            listed.write_bytes(b"\0".join(os.fsencode(path) for path in added))
            literal = {"GIT_INDEX_FILE": str(index), "GIT_LITERAL_PATHSPECS": "1"}
            git(root, "add", f"--pathspec-from-file={listed}", "--pathspec-file-nul", **literal)
        return git(root, "write-tree", GIT_INDEX_FILE=str(index))


def code_digest(root: Path, tree: str, library: str) -> str:
    """Of Python files what config.digests takes of them, so that comments and docstrings do not count; of other files the content.
    Documents do not count."""
    found, digests = hashlib.sha256(library.encode()), Digests(root)
    for entry in split_paths(git(root, "ls-tree", "-r", "-z", tree)):
        about, _, path = entry.partition("\t")
        if not path.startswith(WRITTEN) and not path.endswith(DOCUMENTS):
            found.update(os.fsencode(f"{path} {python_digest(digests, root / path) or about}\n"))
    if (root / CACHE.parent).exists():  # git may not ignore a new one
        digests.save()
    return found.hexdigest()


def python_digest(digests: Digests, path: Path) -> str | None:
    """None for what is no Python file, or is written for another Python."""
    if path.suffix != ".py" or path.is_symlink():
        return None
    try:
        return digests.file(path)
    except ConfigError:
        return None


def library_digest(root: Path) -> str:
    """Of the installed edgewise, which a project outside of a checkout runs with; "" for a checkout."""
    return "" if (root / "edgewise" / "__init__.py").is_file() else Digests(root).digest(["edgewise"])


def check_library(code: Code, root: Path) -> None:
    """Raise ConfigError where the installed edgewise is another one than when the snapshot was taken: later, or on another machine."""
    found = library_digest(root)
    if found != code.library:
        raise ConfigError(
            f"the edgewise in {LIBRARY} is not the one that the sweep began with (digest {found[:10]}, then {code.library[:10]}); "
            "install the same one, or run the same command again to sweep with this one"
        )


def split_paths(listed: str) -> list[str]:
    """The paths in the output of a git command with -z, which quotes nothing."""
    return [path for path in listed.split("\0") if path]


def describe_code(code: Code) -> str:
    """The code that runs, as a line for the terminal."""
    if not code.carried and not code.left_behind:
        return f"the code is that of commit {code.head[:10]}"
    taken = f"uncommitted files included: {list_paths(code.carried)}" if code.carried else f"the code is that of commit {code.head[:10]}"
    return taken + (f"; not included: {list_paths(code.left_behind)}" if code.left_behind else "")


def list_paths(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - MOST_NAMED} more" if len(paths) > MOST_NAMED else ""
    return f"{', '.join(paths[:MOST_NAMED])}{more}"


def git(folder: Path, *arguments: str, **environment: str) -> str:
    """What git prints; bytes of names that are not UTF-8 as os.fsdecode has them. Raises InfrastructureError with git's own message."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=folder,
        capture_output=True,
        env={**os.environ, **environment},
        encoding="utf-8",
        errors="surrogateescape",
    )
    if done.returncode:
        raise InfrastructureError(f"git {arguments[0]} failed in {folder}: {printable(summarize_error(done.stderr))}")
    return done.stdout.rstrip("\n")


def run_command(command: tuple[str, ...], folder: Path, log: Path, code: Path | None = None) -> None:
    """Run a command in `folder`, in a process group of its own that does not outlive this process.

    code: the folder that `stages` and `edgewise` are imported from, `folder` by default. The output is appended to `log`.
    Raises InfrastructureError with the last error that the command printed if its exit code is not 0.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = log.stat().st_size if log.exists() else 0
    with (
        log.open("ab") as stream,
        subprocess.Popen(
            [sys.executable, kill_with_parent.__file__, *command],
            cwd=folder,
            env=environment(code or folder),
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    if status:
        said = log.read_bytes()[start:][-TAIL_BYTES:].decode(errors="replace")
        raise InfrastructureError(f"`{' '.join(command[2:4])}` {describe_exit(status)}: {summarize_error(said)} (see {log})")


def describe_exit(status: int) -> str:
    """A signal comes as 128 + its number from kill_with_parent.py for its command, and as a negative number from Popen."""
    number = -status if status < 0 else status - 128
    if number not in set(signal.Signals):
        return f"ended with exit code {status}"
    return f"was ended by {signal.Signals(number).name}, as schedulers do by scancel or at the time limit"


def summarize_error(text: str) -> str:
    """The last lines that begin with error or fatal, at most three; else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith(("error", "fatal"))]
    return " | ".join(errors[-3:]) or (lines[-1] if lines else "it printed nothing")


def environment(code: Path) -> Mapping[str, str]:
    """The variables with which `python` is this interpreter and `stages` and `edgewise` are those of the folder `code`.

    EDGEWISE_PROFILE is left out: what a point measures stands in its params.yaml alone.
    """
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    modules = os.pathsep.join(filter(None, (str(code), os.environ.get("PYTHONPATH"))))
    kept = {name: value for name, value in os.environ.items() if name != PROFILE}
    return {**kept, "PATH": path, "PYTHONPATH": modules}
