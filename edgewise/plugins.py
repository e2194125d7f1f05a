"""What a task (tasks/NAME.py) takes and gives: how good the answers of one variant are, and how they compare with the reference's."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class PrimaryMetric:
    """The one score that variants are judged by. name: in metrics; stem: what the names of its differences begin with (accuracy_delta).

    label: on axes; title: at the head of a column. share: from 0 to 1, shown in per cent, its differences in percentage points;
    otherwise in the unit of the targets, and a loss counts in per cent of the reference's score.
    """

    name: str
    stem: str
    label: str
    title: str
    higher_is_better: bool = True
    share: bool = True

    @property
    def worse(self) -> str:
        """What a score is that has become worse."""
        return "lower" if self.higher_is_better else "higher"

    @property
    def unit(self) -> str:
        return "points" if self.share else "%"

    def cost(self, score: float) -> float:
        """The score turned so that less is better."""
        return -score if self.higher_is_better else score

    def percent(self, base: float | None) -> float:
        """What makes a difference of scores into `unit`. base: the reference's score."""
        return 100.0 if self.share else 100.0 / (abs(base or 0.0) or 1.0)


@dataclass(frozen=True)
class Predictions:
    """What a variant answered for the samples of a split, in their order.

    outputs: float32 [n, ...]; targets: int [n] or float32 [n, k]. spec: how an answer is made of outputs, see agent.answers; while a
    variant is judged only `meaning` and `normal` of it are known, afterwards what `judge` decided.
    """

    outputs: np.ndarray
    targets: np.ndarray
    labels: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """scores: numbers by name, the primary metric's among them, and their 95 % intervals as NAME_ci95.

    details: plain data for details.json.
    decision: how an answer is made of outputs (see agent.answers), with what was settled on the validation split; it stands in the
    manifest and goes to the device."""

    scores: Mapping[str, Any]
    decision: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A variant against the reference on the same samples. delta: of the primary metric, variant - reference.

    resolvable: the smallest difference that so many samples can show; needed: how many would show the difference that was seen,
    None where none was. scores: what else is known of the pair, by name.
    """

    delta: float
    delta_ci95: tuple[float, float]
    resolvable: float
    needed: int | None
    scores: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.delta_ci95
        return low > 0 or high < 0

    def with_scores(self, **scores: Any) -> "Comparison":
        """With further scores of the pair, by name."""
        return replace(self, scores={**self.scores, **scores})


@dataclass(frozen=True)
class Decisions:
    """What was decided for each sample, as text, what is true of it, and whether they agree: bool [n]."""

    said: tuple[str, ...]
    truth: tuple[str, ...]
    right: np.ndarray


# The seams: what a plugin module must have. Plugins are plain modules; the yaml in conf/ names them.

Arrays = dict[str, np.ndarray]


class Session(Protocol):
    """A loaded model. Feeds and results are what the source takes and gives (float32 pictures, float32 logits), whatever
    the file holds inside: a session of an int8 model quantizes its inputs and dequantizes its outputs itself."""

    inputs: Sequence[Mapping[str, Any]]  # name, shape (None: any size), dtype, as the file has them
    outputs: Sequence[Mapping[str, Any]]

    def run(self, feeds: Arrays) -> Arrays: ...


class Runner(Protocol):
    """formats/FORMAT/run.py: runs on the device. Standard library, numpy and the one runtime; Python 3.9."""

    RUNTIME: str  # the runtime's import name
    PACKAGE: str  # what pip installs for it
    OLDEST: str  # the oldest release of it that runs the files of this format
    ENGINE: Mapping[str, tuple[Any, ...] | range | None]  # engine setting -> the values that it takes; None: known only where the runtime is
    AS_WRITTEN: Mapping[str, Any] | None  # engine settings that compute the file as it stands, without fused integer kernels; None: none do
    GRID: Sequence[Mapping[str, Any]]  # what `engine: auto` tries: the settings in which each point differs from the variant's own
    GRID_THREADED: Sequence[Mapping[str, Any]]  # further points where more than one thread may be used

    def load(self, folder: str, settings: Mapping[str, Any]) -> Session:
        """Load the model of an artifact folder. settings: `threads` (int) and the variant's engine settings."""

    def versions(self) -> Mapping[str, str]: ...


class ProfiledSession(Session, Protocol):
    """A session that also finds out where the time of its runs goes."""

    def profile(self) -> Mapping[str, Any]:
        """Called once, after the last run. {"runs": for each run the operators that were executed, in order, as {"name", "type",
        "kernel": what computed it, "dtype" of its first input, "converts": whether it only changes the numeric type, "fallback":
        whether it ran outside of the fast kernels that were asked for (not taken by the delegate, a reference implementation),
        "time_ns"}, "trace": a Chrome trace, or None}. None for what the runtime does not tell."""


class Profiler(Runner, Protocol):
    """formats/FORMAT/profile.py: run.py for one pass, in which its session is a ProfiledSession. Shipped together with run.py."""

    UNSUPPORTED: str | None  # why the runtime gives no time of an operator; None where it does


class Maker(Protocol):
    """formats/FORMAT/make.py: conversion and quantization, on the developer's machine."""

    SOURCES: tuple[str, ...]  # formats that `convert` can read, best first
    ELSEWHERE: Mapping[str, str]  # of the others: what a user can do about it, as one clause
    REQUIRES: Mapping[str, str]  # import name -> the extra that installs it
    # scheme -> {"weights": dtype, "activations": dtype | None, "covers": operators}; int8 stands for uint8 too;
    # "least_elements", where given: nodes with fewer weights may stay as they are
    SCHEMES: Mapping[str, Mapping[str, Any]]
    SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]]  # scheme -> dotted setting -> the values that the tool has

    def convert(self, source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the float model. Returns {"inputs", "outputs": lists of dicts as artifact.Tensor, "layers": {source layer: [nodes]}}."""

    def quantize(
        self,
        parent: Path,
        source: Path,
        folder: Path,
        scheme: str,
        settings: Mapping[str, Any],
        calibration: Sequence[Arrays],
        keep_nodes: Sequence[str],
        validation: tuple[Sequence[Arrays], np.ndarray] | None = None,
    ) -> None:
        """Write the variant into `folder` from the float model in `parent`. calibration: feeds of batch 1, [] where the
        scheme needs none. keep_nodes: nodes (of layers.json) that stay float. validation: feeds and targets [n]; given, and
        the parameter needed, only where the format has the setting `accuracy_control` and it is on."""


class Facts(Protocol):
    """formats/FORMAT/facts.py: what a file really is, read from the file itself."""

    def facts(self, folder: Path) -> Mapping[str, Any]:
        """{"operators": {"Conv[int8]": count}, "weights_bytes_by_dtype": {"int8": n}, "weights_elements": n (all constants
        with two or more dimensions), "nodes": [{"name", "operator", "weights_dtype", "activations_dtype", "elements"}]
        of every node that holds weights, "conversions": {operator: count} of those that only convert between float and integer}."""


class Storer(Protocol):
    """formats/FORMAT/store.py: the form in which a variant's file is kept, which changes no answer."""

    FILE: Mapping[str, tuple[Any, ...]]  # setting of the section `file` -> the values that it takes

    def store(self, folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> Mapping[str, Any]:
        """Bring the model in `folder`, a whole one or one part, into its final form. mapped: so that its weights can be mapped from
        the disk while it runs; a ValueError says why that cannot be. Returns {} where nothing was changed, else {"form": in words} and,
        where the file is tied to the release of the runtime that wrote it, "release"."""


class Cuttable(Protocol):
    """What formats/FORMAT/split.py `cuttable(folder)` makes of a variant: a model that can be written in parts. Its answer is a
    ValueError with the reason where the format or the file cannot be cut."""

    # every operator in the order of execution: {"node": its name, "weights_bytes": of constants that no earlier step uses,
    # "crossing": how many tensors a cut after it passes on, 0 where no cut is possible}
    steps: Sequence[Mapping[str, Any]]
    inputs: Sequence[Mapping[str, Any]]  # of the whole model, as a Session has them
    outputs: Sequence[Mapping[str, Any]]
    files: Sequence[str]  # of the whole model, which the parts replace
    channel_axis: int  # of tensors that cross a cut: 1, or -1 where channels come last

    def write(self, start: int, end: int, folder: Path) -> None:
        """Write steps start to end as a model of its own that the format's run.py loads from `folder`. What crosses into it
        is its inputs, what later steps or the user need its outputs, under the same names on both sides of a cut."""


@dataclass(frozen=True)
class Item:
    """One sample of a data set. value: what the data set's encoder takes; for pictures uint8 [height, width, channels], any size,
    channels 1 or 3. label: the name of its class, or its numbers where data.targets says so. Samples that share a group, or a sha256,
    never come into two splits."""

    name: str
    label: str | tuple[float, ...]
    group: str | None
    sha256: str
    value: Any
    split: str | None = None  # where the data itself says which split this sample belongs to


@dataclass(frozen=True)
class Unreadable:
    """A sample that could not be read, and why: named in the manifest of models/data, then left out."""

    name: str
    reason: str


class Encoder(Protocol):
    """Turns the values of a data set into arrays: one inputs/NAME.npy for each input, a row a sample."""

    def add(self, value: Any) -> None: ...

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        """Write what is not written yet. train: indices of the training split, for what is learned from it (a tokenizer).
        Returns {"inputs": tensors as the model takes them, "preprocessing": see agent.preprocess, "tools": versions}."""


class DataSet(Protocol):
    """data/NAME.py. `Settings` is a frozen dataclass that checks the section of the configuration; it has what
    data.common.DataSettings has."""

    Settings: type

    def probe(self, settings: Any) -> Mapping[str, Any]:
        """What tells that the data changed: {"digest": sha256 of the listing, "files": n, ...}; fast, reads no picture."""

    def items(self, settings: Any) -> Iterator[Item | Unreadable]: ...

    def encoder(self, settings: Any, folder: Path) -> Encoder:
        """An encoder that writes into `folder`, models/data: inputs/NAME.npy, and beside them what else is learned from the data."""


class Task(Protocol):
    """tasks/NAME.py: what an evaluation means. `Settings` is a frozen dataclass that checks the section `task`."""

    Settings: type
    TARGETS: str | None  # the kind of targets that it judges, as data.targets has them; None: any
    NEEDS: tuple[str, ...]  # settings of the data set that must not be null
    SPLITS: tuple[str, ...]  # what a variant has to answer, test last
    PRIMARY_METRIC: PrimaryMetric | None  # None: nothing is judged
    SCORES: tuple[str, ...]  # names of all else that `judge` and `compare` give, as in metrics

    def judge(self, settings: Any, answers: Mapping[str, Predictions]) -> Scores:
        """The answers of one variant, by split."""

    def compare(self, settings: Any, reference: Predictions, variant: Predictions) -> Comparison | None:
        """Two variants on the same samples of the test split; None where nothing is judged."""

    def decide(self, answers: Predictions) -> Decisions | None:
        """What was decided for each sample; None where an answer is neither right nor wrong."""


class Importer(Protocol):
    """importers/NAME.py: one way to get a source. It writes the files of models/source and returns its manifest fields."""

    FORMAT: str  # the format of the source that it makes: torch, onnx, keras ...
    Settings: type
    REQUIRES: Mapping[str, str]  # import name -> the extra that installs it
    ISOLATED: bool  # whether a foreign file runs in it, which may abort the process: `obtain` then gets one of its own

    def obtain(self, settings: Any, data: Path, train: Any, seed: int, folder: Path) -> Mapping[str, Any]:
        """Train or import into `folder`. Returns {"format", "inputs", "outputs", "details", "tools"}, all as in a manifest,
        "weights" (the file that holds them) and "training" (what metrics/train.json says, with "accuracy_validation"; "warnings" in it
        are shown to the user, now and in the report)."""


class Connection(Protocol):
    """An open way to a device. What goes wrong on it is agent.protocol.Fault, which the host turns into a DeviceError."""

    def alone(self) -> AbstractContextManager[None]:
        """Keep the device for the block, against other hosts too. Fault `busy` where another one does not end in time."""

    def place(self, folder: Path) -> str:
        """Make a folder of the host (a model, inputs) available on the device; returns its path there."""

    def run(self, job: Mapping[str, Any], deadline_s: float) -> Iterable[Mapping[str, Any]]:
        """Run the agent once in a fresh process. job: `kind` and its fields of agent.protocol.JOBS. Yields its events, the
        last of which is `done`."""


class Device(Protocol):
    """devices/NAME.py: one transport. Its Settings have at least what devices/local.py has: threads, cool_down_degc and _max_s."""

    Settings: type
    EMULATED: bool  # another machine's instructions are imitated: outputs are compared, and nothing is timed

    def connect(self, settings: Any) -> AbstractContextManager[Connection]: ...
