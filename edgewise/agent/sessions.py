"""Sessions: load a model from its folder, whole or in parts, and run samples through it. Standard library and numpy; Python 3.9.

A folder with parts.json holds one artifact folder for each part of a model that was cut, in their order; every other folder is one
whole model. ports.json beside either says how samples become what the file takes (see ports). Beside parts.json may lie gate.npz: a
sample whose features lie near those of normal samples then gets a stored answer, and the parts after the first are neither loaded nor
run for it.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import os
from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Sequence

import numpy as np

from edgewise.agent import ports, ragged

# {"parts": [folder names, first to last], "keep": bool, "inputs": [...], "outputs": [...]}, the latter two as a manifest has them
PARTS_FILE = "parts.json"
# names, channel_axis, mean, std: of the features; limit: a larger distance opens the gate; answer:NAME: for each output
GATE_FILE = "gate.npz"
Arrays = Dict[str, np.ndarray]


def load(runner: Any, folder: str, settings: Mapping[str, Any], keep: bool = False) -> Any:
    """A plugins.Session of `folder` by a format's run.py, whole or in parts. keep: keep all parts loaded, whatever parts.json says."""
    return ports.wrap(_load_file(runner, folder, settings, keep), folder)


def _load_file(runner: Any, folder: str, settings: Mapping[str, Any], keep: bool) -> Any:
    path = os.path.join(folder, PARTS_FILE)
    if not os.path.exists(path):
        return runner.load(folder, settings)
    with open(path, encoding="utf-8") as stream:
        plan = json.load(stream)
    opens = [_make_opener(runner, os.path.join(folder, part), settings) for part in plan["parts"]]
    gate = Gate(folder) if os.path.exists(os.path.join(folder, GATE_FILE)) else None
    return PartsSession(opens, keep or plan["keep"], plan["inputs"], plan["outputs"], gate)


def part_names(folder: str) -> List[str]:
    """Names of the folders of the parts, first to last."""
    with open(os.path.join(folder, PARTS_FILE), encoding="utf-8") as stream:
        return list(json.load(stream)["parts"])


def _make_opener(runner: Any, folder: str, settings: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: runner.load(folder, settings)


def run_batched(session: Any, feeds: Arrays, batch: int = 64) -> Arrays:
    """Outputs of `session` for all samples of `feeds`, [n, ...] each: `batch` samples at a time, or as many as the file's fixed batch;
    samples of various sizes one by one (see ragged)."""
    count = len(next(iter(feeds.values())))
    if any(map(ragged.is_ragged, feeds.values())):
        single = [run_batched(session, {name: ragged.take(array, i) for name, array in feeds.items()}, batch) for i in range(count)]
        return {name: ragged.join([one[name] for one in single]) for name in single[0]}
    fixed = [entry["shape"][0] for entry in session.inputs if entry["shape"]]
    step = next((size for size in fixed if size is not None), batch)
    parts = [session.run(_take_batch(feeds, start, step, exact=any(fixed))) for start in range(0, count, step)]
    return {name: np.concatenate([p[name] for p in parts])[:count] for name in parts[0]}


def _take_batch(feeds: Arrays, start: int, step: int, exact: bool) -> Arrays:
    """Samples start to start + step. exact: the batch is fixed, so a short last one is filled with copies of its last sample."""
    chunk = {name: array[start : start + step] for name, array in feeds.items()}
    short = step - len(next(iter(chunk.values())))
    if exact and short > 0:
        chunk = {name: np.concatenate([array, array[-1:].repeat(short, axis=0)]) for name, array in chunk.items()}
    return chunk


class PartsSession:
    """A session over parts. keep: every part stays loaded (as fast as the whole model); otherwise each is released before the next
    one is loaded (as much memory as the largest part). gate: the first part stays; the others are loaded only for samples that need
    them."""

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
        self._loaded: Dict[int, Any] = {}
        self.inputs, self.outputs = inputs, outputs
        for number in {0} & self._kept if gate else self._kept:
            self._get_part(number)

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        numbers = range(len(self._opens))
        if self._gate is None:
            return self._select_outputs(self._run_parts(numbers, feeds))
        known = self._run_parts(numbers[:1], feeds)
        opened = self._gate.find_unusual(known)
        if not opened.any():
            return fill_in_outputs(self._gate.answers, opened, {})
        rest = self._run_parts(numbers[1:], {name: array[opened] for name, array in known.items()})
        return fill_in_outputs(self._gate.answers, opened, self._select_outputs(rest))

    def _run_parts(self, numbers: Iterable[int], known: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """`known` and the outputs of these parts, run in order."""
        found = dict(known)
        for number in numbers:
            session = self._get_part(number)
            found.update(session.run({entry["name"]: found[entry["name"]] for entry in session.inputs}))
            del session
            if number not in self._kept:
                release_memory()
        return found

    def _get_part(self, number: int) -> Any:
        session = self._loaded.get(number) or self._opens[number]()
        if number in self._kept:
            self._loaded[number] = session
        return session

    def _select_outputs(self, known: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        return {entry["name"]: known[entry["name"]] for entry in self.outputs}

    def profile(self) -> Mapping[str, Any]:
        """The operators of each run, part after part; all parts must be kept loaded. There is no trace: it would cover one part only."""
        found = [self._get_part(number).profile() for number in range(len(self._opens))]
        return {"runs": [list(itertools.chain(*run)) for run in zip(*(part["runs"] for part in found))], "trace": None}


def release_memory() -> None:
    """Return freed memory to the system, which glibc does not do by itself. Other C libraries lack malloc_trim and need none."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


class Gate:
    """Decides whether a sample needs the parts after the first: whether its features lie far from those of normal samples.

    answers: by output, the mean output of the whole model for normal samples, given to the samples that need no further part.
    """

    def __init__(self, folder: str):
        with np.load(os.path.join(folder, GATE_FILE)) as stored:
            self._names = [str(name) for name in stored["names"]]
            self._axis, self._limit = int(stored["channel_axis"]), float(stored["limit"])
            self._mean, self._std = stored["mean"], stored["std"]
            self.answers = {key[len("answer:") :]: stored[key] for key in stored.files if key.startswith("answer:")}

    def find_unusual(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """The samples that need the rest of the model: bool [n]."""
        return squared_distances(pool_channels(known, self._names, self._axis), self._mean, self._std) > self._limit


def pool_channels(known: Mapping[str, np.ndarray], names: Sequence[str], channel_axis: int) -> np.ndarray:
    """Features as rows, float32 [n, channels of all features]: each channel averaged over the other axes of a sample."""
    return np.concatenate([_pool_feature(np.asarray(known[name], np.float32), channel_axis) for name in names], axis=1)


def _pool_feature(feature: np.ndarray, channel_axis: int) -> np.ndarray:
    if feature.ndim == 1:
        return feature[:, None]
    means: np.ndarray = np.moveaxis(feature, channel_axis, 1).reshape(len(feature), feature.shape[channel_axis], -1).mean(axis=2)
    return means


def squared_distances(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """The mean over the channels of ((feature - mean) / std)^2, float32 [n]: per channel the squared Mahalanobis distance with a diagonal
    covariance."""
    distances: np.ndarray = (((features - mean) / std) ** 2).mean(axis=1)
    return distances


def fill_in_outputs(answers: Mapping[str, np.ndarray], opened: np.ndarray, rest: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The outputs for all samples: those in `rest` for the samples of `opened`, bool [n], and the stored answers for all others."""
    outputs = {name: np.repeat(answer[None], len(opened), axis=0) for name, answer in answers.items()}
    for name, array in rest.items():
        outputs[name][opened] = array
    return outputs
