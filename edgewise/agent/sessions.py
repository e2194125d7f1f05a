"""Any number of samples through a session, in batches as large as the file allows. Standard library and numpy; Python 3.9."""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

import numpy as np

Arrays = Dict[str, np.ndarray]


def run_batched(session: Any, feeds: Arrays, batch: int = 64) -> Arrays:
    """Outputs of `session` for all samples of `feeds`, batched as far as the file's first dimension allows."""
    fixed = [entry["shape"][0] for entry in session.inputs if entry["shape"]]
    step = next((size for size in fixed if size is not None), batch)
    count = len(next(iter(feeds.values())))
    parts = [session.run(_chunk(feeds, start, step, exact=any(fixed))) for start in range(0, count, step)]
    return {name: np.concatenate([p[name] for p in parts])[:count] for name in parts[0]}


def _chunk(feeds: Arrays, start: int, step: int, exact: bool) -> Arrays:
    """Samples start to start + step; where the batch is fixed the last chunk is filled up with copies of its last sample."""
    chunk = {name: array[start : start + step] for name, array in feeds.items()}
    short = step - len(next(iter(chunk.values())))
    if exact and short > 0:
        chunk = {name: np.concatenate([array, array[-1:].repeat(short, axis=0)]) for name, array in chunk.items()}
    return chunk


# A model that was cut into parts, run one after the other, so that not all of its weights are in memory at once.
#
# A folder with parts.json holds one artifact folder for each part, in their order; every other folder is one whole model.
# Standard library and numpy; Python 3.9.

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
    gate = Gate(folder) if os.path.exists(os.path.join(folder, GATE_FILE)) else None
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


# Whether a sample needs the rest of a model: how far its features lie from those of normal samples.
#
# The distance is the mean of ((feature - mean) / std)^2 over the channels, each averaged over the picture: the squared Mahalanobis
# distance with a diagonal covariance, per channel. Standard library and numpy; Python 3.9.

GATE_FILE = (
    "gate.npz"  # names, channel_axis, mean, std: of the features; limit: the largest distance at which the gate stays shut; answer:NAME
)


class Gate:
    """answers: what is said of a sample that does not pass, by output: what the whole model says of such samples in the mean."""

    def __init__(self, folder: str):
        with np.load(os.path.join(folder, GATE_FILE)) as stored:
            self._names = [str(name) for name in stored["names"]]
            self._axis, self._limit = int(stored["channel_axis"]), float(stored["limit"])
            self._mean, self._std = stored["mean"], stored["std"]
            self.answers = {key[len("answer:") :]: stored[key] for key in stored.files if key.startswith("answer:")}

    def opens(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool [n]: the samples that the rest of the model has to look at."""
        return distances(pooled(known, self._names, self._axis), self._mean, self._std) > self._limit


def pooled(known: Mapping[str, np.ndarray], names: Sequence[str], channel_axis: int) -> np.ndarray:
    """float32 [n, channels of all features]: each channel averaged over all else of a sample."""
    return np.concatenate([_channels(np.asarray(known[name], np.float32), channel_axis) for name in names], axis=1)


def _channels(feature: np.ndarray, channel_axis: int) -> np.ndarray:
    if feature.ndim == 1:
        return feature[:, None]
    means: np.ndarray = np.moveaxis(feature, channel_axis, 1).reshape(len(feature), feature.shape[channel_axis], -1).mean(axis=2)
    return means


def distances(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """float32 [n]."""
    distances: np.ndarray = (((features - mean) / std) ** 2).mean(axis=1)
    return distances


def passed(answers: Mapping[str, np.ndarray], opened: np.ndarray, rest: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The outputs for all samples: `rest` holds those of the samples that passed, in their order."""
    every = {name: np.repeat(answer[None], len(opened), axis=0) for name, answer in answers.items()}
    for name, array in rest.items():
        every[name][opened] = array
    return every
