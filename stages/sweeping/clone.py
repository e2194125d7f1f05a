"""A shared clone of the repository: its own working tree and DVC state, the parent's objects and cache."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stages.core.artifact import check_space
from stages.core.errors import SurroundingsError
from stages.sweeping.code import Code
from stages.sweeping.commands import git

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
