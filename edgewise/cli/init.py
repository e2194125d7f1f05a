"""A new project: the files of the package, params.yaml with the variants that can be made here, and git where there is none yet."""

import contextlib
import importlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import util
from pathlib import Path
from typing import Any

import yaml

from edgewise.cli import template
from edgewise.config.runtimes import own_packages
from edgewise.errors import InfrastructureError, UserError

OURS = ("dvc.yaml", "params.yaml", "conf", "stages", ".gitignore", ".dvcignore", ".dvc", "dvc.lock", "models", "metrics")
MESSAGE = "Start"
DEEPER = "   "  # begins a line of params.yaml that belongs to the variant above it


@dataclass(frozen=True)
class Created:
    """repository: that of the user, which the project lies in. committed: whether the project's own repository has its first commit;
    why not: git's error message."""

    folder: Path
    variants: tuple[str, ...]
    missing: Mapping[str, str]  # format -> the extra that installs it
    repository: Path | None
    committed: bool = False
    why_not: str = ""


def create(folder: Path) -> Created:
    """Make a project in `folder`, which is made too if it is not there. On failure or interruption nothing is left of it.

    Raises UserError for a folder that is a file or has files of these names already, InfrastructureError where no format can be used
    and where git is missing or fails.
    """
    refuse_what_is_there(folder)
    source = template.root()
    missing = missing_formats(source / "conf")
    params = choose((source / "params.yaml").read_text(encoding="utf-8"), missing)
    repository = repository_of(folder)
    with moved_in(folder) as workshop:
        template.copy(source, workshop)
        (workshop / "params.yaml").write_text(params, encoding="utf-8")
        committed, why_not = (False, "") if repository else first_commit(workshop)
    return Created(folder, tuple(yaml.safe_load(params)["variants"]), missing, repository, committed, why_not)


def refuse_what_is_there(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file; name a folder that is empty or does not exist yet")
    found = [name for name in OURS if os.path.lexists(folder / name)]
    if found:
        example = shlex.quote(str(folder / "edge"))
        raise UserError(f"{folder} has {', '.join(found)} already, which init does not touch; name another folder: edgewise init {example}")


# Which variants


def missing_formats(conf: Path) -> dict[str, str]:
    """The formats that cannot be made or run here, with the extra of Edgewise that installs what they need."""
    modules = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["module"] for path in sorted((conf / "format").glob("*.yaml"))}
    return {name: extra for name, module in modules.items() if (extra := missing_extra(module))}


def missing_extra(module: str) -> str | None:
    """The extra with the runtime of a format and with what makes its files, if any of that is missing. module: edgewise.formats.NAME."""
    packages = own_packages(module)
    there = all(util.find_spec(package) for package in packages)
    return None if there else next(iter(packages.values()))


def choose(params: str, missing: Mapping[str, str]) -> str:
    """The text of params.yaml, in which the variants of the missing formats are comments and the reference is one of the others."""
    tree = yaml.safe_load(params)
    formats = {name: variant["format"] for name, variant in tree["variants"].items()}
    kept = [name for name, form in formats.items() if form not in missing]
    if not kept:
        raise InfrastructureError(f"no format can be used here: what makes and runs its files is not installed; {pip('train,onnx')}")
    reference = tree["reference"] if tree["reference"] in kept else kept[0]
    text = re.sub(r"^reference: \S+", f"reference: {reference}", params, flags=re.MULTILINE)
    return "".join(comment_out(text, formats, missing))


def comment_out(params: str, formats: Mapping[str, str], missing: Mapping[str, str]) -> Iterator[str]:
    """The lines of params.yaml with each variant of a missing format as a comment, below one that says how to install what it needs."""
    head, said = params.partition("\nvariants:\n")[0], set()
    yield from (head, "\nvariants:\n")
    form = ""
    for line in params[len(head) + len("\nvariants:\n") :].splitlines(keepends=True):
        if not line.startswith(DEEPER):
            form = formats.get(line.partition(":")[0].strip(), "")
        if form in missing and form not in said:
            said.add(form)
            yield f"  # {pip(missing[form])}    # then uncomment:\n"
        yield f"  # {line[2:]}" if form in missing else line


def pip(extra: str) -> str:
    return f"pip install 'edgewise[{extra}]'"


# Git


def git_environment() -> dict[str, str]:
    """The environment without what a hook sets: GIT_INDEX_FILE or GIT_DIR would lead git to another repository."""
    kept = ("GIT_AUTHOR_", "GIT_COMMITTER_", "GIT_CONFIG")
    return {**{key: value for key, value in os.environ.items() if not key.startswith("GIT_") or key.startswith(kept)}, "LC_ALL": "C"}


def git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, encoding="utf-8", errors="surrogateescape", env=git_environment()
        )
    except FileNotFoundError:
        raise InfrastructureError("git is not installed, and DVC keeps the project's history in it; install git, then try again") from None


def repository_of(folder: Path) -> Path | None:
    """The top folder of the git repository that `folder` lies or would lie in."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.is_dir())
    done = git(there, "rev-parse", "--show-toplevel")
    if done.returncode and "not a git repository" not in done.stderr:
        raise InfrastructureError(f"git rev-parse failed in {there}: {' '.join(done.stderr.split())}")
    return None if done.returncode else Path(done.stdout.rstrip("\n"))


def first_commit(folder: Path) -> tuple[bool, str]:
    """Make a repository and commit everything. (False, git's words) where it cannot commit, as without a user's name."""
    for command in (("init", "--quiet"), ("add", "--all")):
        done = git(folder, *command)
        if done.returncode:
            raise InfrastructureError(f"git {command[0]} failed: {' '.join(done.stderr.split())}")
    done = git(folder, "commit", "--quiet", "--message", MESSAGE)
    return done.returncode == 0, " ".join(done.stderr.split())


def knows_user(folder: Path) -> bool:
    return all(git(folder, "var", name).returncode == 0 for name in ("GIT_AUTHOR_IDENT", "GIT_COMMITTER_IDENT"))


# All or nothing


@contextlib.contextmanager
def moved_in(folder: Path) -> Iterator[Path]:
    """A temporary folder whose content is in `folder` when the block ends well, and nowhere otherwise.

    It lies beside `folder`, or in it where that exists, so that it can be renamed. SIGTERM ends the block like Ctrl-C.
    """
    target = folder.absolute()
    home = next(path for path in (target, *target.parents) if path.is_dir())
    private = Path(tempfile.mkdtemp(prefix=".edgewise-init-", dir=home))  # of this user alone, under a name that nobody can foresee
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    workshop = private / "project"
    try:
        workshop.mkdir()
        yield workshop
        move(workshop, target)
    finally:
        shutil.rmtree(private, ignore_errors=True)
        signal.signal(signal.SIGTERM, before)


def move(workshop: Path, target: Path) -> None:
    """Rename the whole folder, or each entry of it where `target` exists; undo that where one of them fails."""
    refuse_what_is_there(target)  # another process may have made it meanwhile
    new = [path for path in (target, *target.parents) if not path.exists()]
    moved: list[Path] = []
    try:
        if new:
            target.parent.mkdir(parents=True, exist_ok=True)
            workshop.rename(target)
            return
        for entry in sorted(workshop.iterdir()):
            entry.rename(target / entry.name)
            moved.append(target / entry.name)
    except BaseException as error:
        for path in moved:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in new:
            with contextlib.suppress(OSError):  # not made yet, or another process uses it by now
                path.rmdir()
        if isinstance(error, OSError):
            refuse_what_is_there(target)
        raise


# What is said at the end


OWN_MODEL = "  edgewise inspect ../my.onnx --data ../pictures/ --output params.yaml  # for a model file of your own"


def describe_project(made: Created) -> str:
    """What was made, what is missing, and the next commands."""
    folder = shlex.quote(str(made.folder))
    choices = yaml.safe_load((made.folder / "params.yaml").read_text(encoding="utf-8"))
    said = [
        f"{made.folder}: a project with data {choices['data']['name']}, model {choices['model']['name']} and "
        f"{len(made.variants)} variants: {', '.join(made.variants)}",
        *missing_lines(made, choices),
        *git_lines(made),
        "next:",
        f"  cd {folder}" if made.folder != Path() else "  edgewise compose --check",
        OWN_MODEL,
        "  dvc repro",
        "  edgewise report",
    ]
    return "\n".join([*said[:-5], *environment_lines(), *said[-5:]])


def missing_lines(made: Created, choices: Mapping[str, Any]) -> list[str]:
    """How to add formats, and what the model needs."""
    found = [f"  {name:10} {pip(extra)}" for name, extra in made.missing.items()]
    lines = ["formats that are not installed; their variants are comments in params.yaml:", *found] if found else []
    name = choices["model"]["name"]
    option = yaml.safe_load((made.folder / f"conf/model/{name}.yaml").read_text(encoding="utf-8"))
    requires: Mapping[str, str] = importlib.import_module(option["module"]).REQUIRES
    lacking = [package for package in requires if not util.find_spec(package)]
    if not lacking:
        return lines
    example = f"the example's model {name} needs {', '.join(lacking)}: {pip(requires[lacking[0]])}"
    return [*lines, f"{example}; an ONNX file of your own does not"]


def git_lines(made: Created) -> Sequence[str]:
    folder = shlex.quote(str(made.folder))
    if made.repository:
        return [f"nothing is committed in {made.repository}; experiments and sweeps need that: git add {folder}; git commit -m {MESSAGE}"]
    if made.committed:
        return []
    if knows_user(made.folder):
        return [f"git could not make the first commit: {made.why_not}; later: git commit -m {MESSAGE}"]
    return [
        "git does not know your name, so nothing is committed yet; experiments and sweeps need a first commit:",
        '  git config --global user.name "Your Name"; git config --global user.email you@example.com',
        f"  git -C {folder} commit -m {MESSAGE}",
    ]


def environment_lines() -> list[str]:
    """How to enter this environment, where `dvc` and `python` are those of another one, in which the stages would run."""
    own = Path(sys.executable).parent
    found = shutil.which("python")
    if found and Path(found).parent == own and shutil.which("dvc"):
        return []
    activate = own / "activate"
    return [f"enter the environment first: . {shlex.quote(str(activate))}" if activate.exists() else f"put {own} first in PATH"]
