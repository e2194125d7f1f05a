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
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional

import numpy as np

from .gate import FILE as GATE  # relative: beside this file in a registered model too, where no Edgewise is
from .gate import Gate, passed

FILE = "parts.json"  # {"parts": [folder names, first to last], "keep": bool, "inputs": [...], "outputs": [...]} as a manifest has them


def names(folder: str) -> List[str]:
    """The folders of the parts, first to last."""
    with open(os.path.join(folder, FILE), encoding="utf-8") as stream:
        return list(json.load(stream)["parts"])


def load(runner: Any, folder: str, settings: Mapping[str, Any], keep: bool = False) -> Any:
    """A plugins.Session of `folder` by a format's run.py, whole or in parts. keep: hold all parts, whatever the folder says."""
    path = os.path.join(folder, FILE)
    if not os.path.exists(path):
        return runner.load(folder, settings)
    with open(path, encoding="utf-8") as stream:
        plan = json.load(stream)
    opens = [_opener(runner, os.path.join(folder, part), settings) for part in plan["parts"]]
    gate = Gate(folder) if os.path.exists(os.path.join(folder, GATE)) else None
    return Chain(opens, keep or plan["keep"], plan["inputs"], plan["outputs"], gate)


class Chain:
    """A session over parts. keep: all stay loaded once they were used (the speed of the whole); else each is released before the
    next one is loaded (the memory of the largest). gate: the first part stays; the others are loaded for the samples that pass."""

    def __init__(
        self,
        opens: List[Callable[[], Any]],
        keep: bool,
        inputs: List[Mapping[str, Any]],
        outputs: List[Mapping[str, Any]],
        gate: Optional[Gate] = None,
    ):
        self._opens, self._gate = opens, gate
        self._kept = set(range(len(opens))) if keep else ({0} if gate else set())
        self._held: Dict[int, Any] = {}
        self.inputs, self.outputs = inputs, outputs
        for number in {0} & self._kept if gate else self._kept:
            self._part(number)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        every = range(len(self._opens))
        if self._gate is None:
            return self._answers(self._through(every, feeds))
        known = self._through(every[:1], feeds)
        opened = self._gate.opens(known)
        if not opened.any():
            return passed(self._gate.answers, opened, {})
        rest = self._through(every[1:], {name: array[opened] for name, array in known.items()})
        return passed(self._gate.answers, opened, self._answers(rest))

    def _through(self, numbers: Iterable[int], known: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """All that is known after these parts: what was, and their outputs."""
        found = dict(known)
        for number in numbers:
            session = self._part(number)
            found.update(session.run({entry["name"]: found[entry["name"]] for entry in session.inputs}))
            del session
            if number not in self._kept:
                release()
        return found

    def _part(self, number: int) -> Any:
        session = self._held.get(number) or self._opens[number]()
        if number in self._kept:
            self._held[number] = session
        return session

    def _answers(self, known: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return {entry["name"]: known[entry["name"]] for entry in self.outputs}

    def profile(self) -> Mapping[str, Any]:
        """What the parts, all held, tell of each run: their operators one after the other. A trace is of one session only."""
        found = [self._part(number).profile() for number in range(len(self._opens))]
        return {"runs": [list(itertools.chain(*run)) for run in zip(*(part["runs"] for part in found))], "trace": None}


def release() -> None:
    """Give freed memory back to the system; glibc keeps it otherwise. Other C libraries have no such call and need none."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _opener(runner: Any, folder: str, settings: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: runner.load(folder, settings)
