"""The files of a new project. There is one copy of them: the wheel is built from the repository's own, and a checkout uses these.

setup.py imports this module before anything is installed: standard library only.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

INSTALLED = Path(__file__).parent / "project"  # setup.py fills it in the wheel
CHECKOUT = Path(__file__).parents[2]
PARTS = (
    ".dvc/.gitignore",
    ".dvc/config",
    ".dvc/plots",
    ".dvcignore",
    ".gitignore",
    "conf",
    "params.yaml",
    "stages",
    "dvc.yaml",
)


def root() -> Path:
    """The folder that holds the files: part of the installed package, or the checkout that this module was imported from."""
    return INSTALLED if INSTALLED.is_dir() else CHECKOUT


def files(where: Path) -> Iterator[Path]:
    """Every file of a new project, relative to `where`; nothing that Python compiled."""
    for part in PARTS:
        path = where / part
        if not path.exists():
            raise FileNotFoundError(f"{path}: a file of a new project is missing; install edgewise again")
        found = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
        yield from (p.relative_to(where) for p in found if "__pycache__" not in p.parts and p.suffix != ".pyc")


def copy(source: Path, target: Path) -> None:
    """Copy the files below `source` to the same places below `target`; the copies can be written, even if the package cannot."""
    for name in files(source):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
        (target / name).chmod((source / name).stat().st_mode | 0o200)
