"""What several tests read and none changes, made once for all workers of a run.

shared.folder("source", sources.write)      the folder, made by the worker that asks first; the others wait for it
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone in the block, among processes."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Shared:
    def __init__(self, root: Path):
        self.root = root

    def folder(self, name: str, make: Callable[[Path], object]) -> Path:
        """root/name, which `make` fills where it does not exist yet. A `make` that fails leaves nothing behind."""
        target = self.root / name
        with locked(self.root / f"{name}.lock"):
            if not target.exists():
                draft = self.root / f"{name}.draft"
                shutil.rmtree(draft, ignore_errors=True)
                make(draft)
                draft.rename(target)
        return target


def of_run(factory: pytest.TempPathFactory) -> Shared:
    """Below the temporary folder of the whole run: with xdist each worker has one of its own below that."""
    base = factory.getbasetemp()
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    root.mkdir(exist_ok=True)
    return Shared(root)
