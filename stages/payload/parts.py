"""A model that was cut into parts, run one after the other, so that not all of its weights are in memory at once.

A folder with parts.json holds one artifact folder for each part, in their order; every other folder is one whole model.
Standard library and numpy; Python 3.9.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
from typing import Any, Callable, Dict, List, Mapping

import numpy as np

FILE = "parts.json"  # {"parts": [folder names, first to last], "keep": bool, "inputs": [...], "outputs": [...]} as a manifest has them


def load(runner: Any, folder: str, settings: Mapping[str, Any], keep: bool = False) -> Any:
    """A plugins.Session of `folder` by a format's run.py, whole or in parts. keep: hold all parts, whatever the folder says."""
    path = os.path.join(folder, FILE)
    if not os.path.exists(path):
        return runner.load(folder, settings)
    with open(path, encoding="utf-8") as stream:
        plan = json.load(stream)
    opens = [_opener(runner, os.path.join(folder, part), settings) for part in plan["parts"]]
    return Chain(opens, keep or plan["keep"], plan["inputs"], plan["outputs"])


class Chain:
    """A session over parts. keep: all stay loaded once they were used (the speed of the whole); else each is released before the
    next one is loaded (the memory of the largest)."""

    def __init__(self, opens: List[Callable[[], Any]], keep: bool, inputs: List[Mapping[str, Any]], outputs: List[Mapping[str, Any]]):
        self._opens, self._keep = opens, keep
        self._held = [part() for part in opens] if keep else []
        self.inputs, self.outputs = inputs, outputs

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        known: Dict[str, np.ndarray] = dict(feeds)
        for number, opener in enumerate(self._opens):
            session = self._held[number] if self._keep else opener()
            known.update(session.run({entry["name"]: known[entry["name"]] for entry in session.inputs}))
            del session
            if not self._keep:
                release()
        return {entry["name"]: known[entry["name"]] for entry in self.outputs}

    def profile(self) -> Mapping[str, Any]:
        """What the parts, all held, tell of each run: their operators one after the other. A trace is of one session only."""
        found = [session.profile() for session in self._held]
        return {"runs": [list(itertools.chain(*run)) for run in zip(*(part["runs"] for part in found))], "trace": None}


def release() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise. Other C libraries have no such call and need none."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _opener(runner: Any, folder: str, settings: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: runner.load(folder, settings)
