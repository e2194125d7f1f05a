"""Files that a measured run should read anew: pages in the cache are charged to whoever touched them first."""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import os
from pathlib import Path
from typing import List


def files(runner: str, model: str) -> List[Path]:
    """All files below a model's folder, and the shared objects of its runtime and of numpy, found without importing either."""
    packages = ["numpy", _runtime(runner).partition(".")[0]]
    folders = [Path(place) for name in packages for place in _places(name)]
    return [path for path in Path(model).rglob("*") if path.is_file()] + [p for f in folders for p in f.rglob("*.so*") if p.is_file()]


def _runtime(runner: str) -> str:
    """RUNTIME of a run.py, read from its text: importing it would load numpy into this process."""
    spec = importlib.util.find_spec(runner)
    tree = ast.parse(Path(spec.origin).read_text() if spec and spec.origin else "")
    names = {t.id: n.value for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)}
    return str(ast.literal_eval(names["RUNTIME"]))


def _places(package: str) -> List[str]:
    spec = importlib.util.find_spec(package)
    return list(spec.submodule_search_locations or []) if spec else []


def forget(paths: List[Path]) -> None:
    """Drop files from the page cache, as far as nobody maps them."""
    for path in paths:
        with contextlib.suppress(OSError), path.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
