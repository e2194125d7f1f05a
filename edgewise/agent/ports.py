"""Ports: run a model whose inputs and outputs are not all [samples, ...]. Standard library and numpy; Python 3.9.

Callers always give and get arrays with the samples first. The file may count samples on another axis or on none, take a constant that no
sample changes, or carry state from step to step. ports.json beside the model says which of its ports do so; without it, none does.

    {"inputs": {"sr": {"dtype": "int64", "value": 16000}, "state": {"dtype": "float32", "sample_axis": 1, "shape": [2, null, 128],
                "state": "stateN"}}, "outputs": {"stateN": {"sample_axis": 1}}}

A sample of a model with state is a sequence: each of its inputs is [steps, ...], and so is each of its outputs. State starts with zeros.
Outputs that feed state are not answers, unless the model has no other ones.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence

import numpy as np

PORTS_FILE = "ports.json"
FIRST = 0  # the sample axis of a port that ports.json does not name
Arrays = Dict[str, np.ndarray]
Spec = Mapping[str, Any]


def wrap(session: Any, folder: str) -> Any:
    """The session itself, or behind the ports that ports.json of `folder` describes."""
    path = os.path.join(folder, PORTS_FILE)
    if not os.path.exists(path):
        return session
    with open(path, encoding="utf-8") as stream:
        plan = json.load(stream)
    return PortsSession(session, plan)


class PortsSession:
    """A session whose inputs and outputs all have their samples first; constants and state are left out of them.

    plan: the content of ports.json.
    """

    def __init__(self, session: Any, plan: Mapping[str, Mapping[str, Spec]]):
        self._session = session
        self._given, self._wanted = plan["inputs"], plan["outputs"]
        held = {entry["name"] for entry in session.inputs}
        self._constants = {n: np.array(p["value"], p["dtype"]) for n, p in self._given.items() if "value" in p and n in held}
        self._states = {n: p for n, p in self._given.items() if p.get("state")}
        self._state = {}  # type: Arrays
        carried = {p["state"] for p in self._states.values()}
        outer = [entry for entry in session.inputs if entry["name"] not in self._constants and entry["name"] not in self._states]
        single = any(self._axis("inputs", e) is None for e in outer) or any(self._axis("outputs", e) is None for e in session.outputs)
        self.inputs = [self._describe("inputs", entry, single) for entry in outer]
        answers = [entry for entry in session.outputs if entry["name"] not in carried] or session.outputs
        self.outputs = [self._describe("outputs", entry, single) for entry in answers]

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Outputs [n, ...] for feeds [n, ...]; with state, of whole sequences: [n, steps, ...] for [n, steps, ...]."""
        if not self._states:
            return self._run_once(feeds)
        self.reset()
        answers = [self.step({name: array[:, i] for name, array in feeds.items()}) for i in range(count_steps(feeds))]
        return {name: np.stack([answer[name] for answer in answers], axis=1) for name in answers[0]}

    @property
    def stateful(self) -> bool:
        """Whether samples are sequences, which `step` runs step by step."""
        return bool(self._states)

    def reset(self) -> None:
        """Begin a new sequence."""
        self._state = {}

    def step(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Outputs [n, ...] of the next step of n sequences, from its inputs [n, ...]."""
        inner = self._file_feeds(feeds)
        results = self._session.run(inner)
        self._state = {name: results[port["state"]] for name, port in self._states.items()}
        return self._take_outputs(results)

    def iterate_file_feeds(self, feeds: Mapping[str, np.ndarray]) -> Iterator[Arrays]:
        """What the file itself is fed for these samples, call by call: constants and the state before each step are among it."""
        if not self._states:
            yield self._file_feeds(feeds)
            return
        self.reset()
        for i in range(count_steps(feeds)):
            now = {name: array[:, i] for name, array in feeds.items()}
            yield self._file_feeds(now)
            self.step(now)

    def profile(self) -> Any:
        return self._session.profile()

    def _run_once(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        return self._take_outputs(self._session.run(self._file_feeds(feeds)))

    def _file_feeds(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        moved = {e["name"]: from_samples_first(feeds[e["name"]], self._axis("inputs", e)) for e in self.inputs}
        count = len(next(iter(feeds.values())))
        zeros = {name: make_zeros(port, count) for name, port in self._states.items() if name not in self._state}
        return {**moved, **self._constants, **zeros, **self._state}

    def _take_outputs(self, results: Mapping[str, np.ndarray]) -> Arrays:
        return {e["name"]: to_samples_first(results[e["name"]], self._axis("outputs", e)) for e in self.outputs}

    def _axis(self, side: str, entry: Spec) -> Optional[int]:
        ports = self._given if side == "inputs" else self._wanted
        axis = ports.get(entry["name"], {}).get("sample_axis", FIRST)
        return None if axis is None else int(axis)

    def _describe(self, side: str, entry: Spec, single: bool) -> Spec:
        """The port as callers see it: samples first, then steps if there is state. single: the file takes one sample at a time."""
        axis, shape = self._axis(side, entry), list(entry["shape"])
        size = 1 if single or axis is None else shape[axis] if axis < len(shape) else None
        rest = [length for place, length in enumerate(shape) if place != axis]
        return {**entry, "shape": [size, *([None] if self._states else []), *rest]}


def count_steps(feeds: Mapping[str, np.ndarray]) -> int:
    """Steps of feeds [n, steps, ...]. ValueError if inputs have unequal numbers of them, or none."""
    lengths = {name: array.shape[1] if array.ndim > 1 else 0 for name, array in feeds.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        found = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise ValueError(f"steps of a sequence: {found}; a model with state needs inputs [samples, steps, ...] with equally many steps")
    return next(iter(lengths.values()))


def from_samples_first(array: np.ndarray, axis: Optional[int]) -> np.ndarray:
    """An array [n, ...] as the file takes it: samples on `axis`, or for None the one sample without an axis for it."""
    return np.asarray(array[0]) if axis is None else np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array


def to_samples_first(array: np.ndarray, axis: Optional[int]) -> np.ndarray:
    """The inverse of `from_samples_first`."""
    return np.asarray(array)[None] if axis is None else np.moveaxis(array, axis, 0) if axis else array


def make_zeros(port: Spec, count: int) -> np.ndarray:
    """State at the start of `count` sequences: zeros of the port's shape, with its sample axis as long as needed. Another axis that is open
    starts empty and grows with each step, as that of a cache of keys and values does."""
    axis = port.get("sample_axis", FIRST)
    return np.zeros([count if place == axis else size or 0 for place, size in enumerate(port["shape"])], port["dtype"])


def split_steps(feeds: Sequence[Mapping[str, np.ndarray]]) -> List[Arrays]:
    """Each step of each sequence [1, steps, ...] by itself, [1, ...]."""
    return [{name: array[:, i] for name, array in one.items()} for one in feeds for i in range(count_steps(one))]
