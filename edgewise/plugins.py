"""The interfaces of all plugins, and the values that they exchange. Plugins are plain modules; the yaml files in conf/ name them.

tasks/NAME.py       Task: how good the outputs of a variant are, and how they compare with the reference's
data/NAME.py        DataSet, Encoder: samples, and their arrays
sources/NAME.py     Importer: how a source is trained or imported
devices/NAME.py     Device, Connection: how a device is reached
formats/F/          run.py Runner, profile.py Profiler, make.py Maker, facts.py Facts, split.py Cuttable, store.py Storer
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class PrimaryMetric:
    """The one score that variants are judged by. name: in metrics; stem: the beginning of the names of its differences (accuracy_delta).

    label: on axes; title: of a column. share: the score lies between 0 and 1 and is shown in percent, its differences in percentage points;
    otherwise it has the unit of the targets, and a loss counts in percent of the reference's score. relative: the score says how far a
    variant agrees with the reference, which has 1 itself; then `judge` does not give it.
    """

    name: str
    stem: str
    label: str
    title: str
    higher_is_better: bool = True
    share: bool = True
    relative: bool = False

    @property
    def unit(self) -> str:
        return "points" if self.share else "%"

    def cost(self, score: float) -> float:
        """The score with the sign for which less is better."""
        return -score if self.higher_is_better else score

    def percent(self, base: float | None) -> float:
        """The factor from a difference of scores to `unit`. base: the reference's score."""
        return 100.0 if self.share else 100.0 / (abs(base or 0.0) or 1.0)


@dataclass(frozen=True)
class Predictions:
    """The outputs of a variant for the samples of a split, in order.

    ports: what the task keeps of each output (`condense`), by name, [n, ...]; targets: by kind, see artifacts.targets. spec: how answers
    are made from outputs, see agent.answers; in `judge` it has what is known of them (`output`, `meaning` and `normal` where there is one;
    `ports`, the shape and meaning of each; `decoding`, how boxes are read), afterwards also what `judge` returned as decision.
    """

    ports: Mapping[str, np.ndarray]
    targets: Any
    labels: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def outputs(self) -> np.ndarray:
        """The output with one value for each label, which spec["output"] names; else the first one. [n, ...]."""
        return self.ports[self.spec.get("output") or next(iter(self.ports))]


@dataclass(frozen=True)
class Scores:
    """scores: numbers by name, including the primary metric, and their 95 % intervals as NAME_ci95.

    decision: how answers are made from outputs (see agent.answers), with what was chosen on the validation split; part of the manifest,
    and sent to the device. details: plain data for details.json.
    """

    scores: Mapping[str, Any]
    decision: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A variant against the reference on the same samples. delta: of the primary metric, variant - reference.

    resolvable: the smallest difference that so many samples can show; needed: how many samples would show the difference that was seen,
    None for a difference of 0. scores: other scores of the pair, by name.
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
        """A copy with further scores of the pair, by name."""
        return replace(self, scores={**self.scores, **scores})


@dataclass(frozen=True)
class Decisions:
    """The decision and the truth for each sample, in words, and whether they agree: bool [n]."""

    decided: tuple[str, ...]
    truth: tuple[str, ...]
    correct: np.ndarray


class Session(Protocol):
    """A loaded model. It takes and returns what the source does (float32 pictures, float32 logits), whatever types the file has: a session
    of an int8 model quantizes its inputs and dequantizes its outputs itself."""

    @property
    def inputs(self) -> Sequence[Mapping[str, Any]]:
        """name, shape (None: any size), dtype, as the file has them."""

    @property
    def outputs(self) -> Sequence[Mapping[str, Any]]: ...

    def run(self, feeds: Arrays) -> Arrays: ...


class Runner(Protocol):
    """formats/FORMAT/run.py: runs on the device. Standard library, numpy and the one runtime; Python 3.9."""

    RUNTIME: str  # the runtime's import name
    PACKAGE: str  # what pip installs for it
    OLDEST: str  # the oldest release that runs the files of this format
    # import name -> (what pip installs, its oldest release) of packages that the runtime needs and does not install; imported before it
    COMPANIONS: Mapping[str, tuple[str, str]]
    ENGINE: Mapping[str, tuple[Any, ...] | range | None]  # engine setting -> allowed values; None: known where the runtime is installed
    AS_WRITTEN: Mapping[str, Any] | None  # engine settings that run the file as written, without fused integer kernels; None: none do
    # engine setting -> the values with which floats are computed, or rounded between operators, in fewer bits than a float32 file has
    REDUCED_PRECISION: Mapping[str, tuple[Any, ...]]
    GRID: Sequence[Mapping[str, Any]]  # what `engine: auto` tries: for each point the settings that differ from the variant's own
    GRID_THREADED: Sequence[Mapping[str, Any]]  # further points if more than one thread may be used

    def load(self, folder: str, settings: Mapping[str, Any]) -> Session:
        """Load the model of an artifact folder. settings: `threads` (int) and the variant's engine settings."""

    def versions(self) -> Mapping[str, str]: ...


class ProfiledSession(Session, Protocol):
    """A session that also measures the time of each operator."""

    def profile(self) -> Mapping[str, Any]:
        """Called once, after the last run. {"runs": for each run its operators in order of execution, as {"name", "type", "kernel": what
        computed it, "dtype" of its first input, "converts": whether it only changes the numeric type, "fallback": whether it ran outside
        of the fast kernels that were asked for (not taken by the delegate, a reference implementation), "time_ns"}, "trace": a Chrome
        trace, or None}. None for what the runtime does not report."""


class Profiler(Protocol):
    """formats/FORMAT/profile.py: a second way to load a model, for one pass. It is shipped together with run.py."""

    UNSUPPORTED: str | None  # why the runtime reports no times; None if it does

    def load(self, folder: str, settings: Mapping[str, Any]) -> ProfiledSession:
        """As Runner.load."""


class Maker(Protocol):
    """formats/FORMAT/make.py: conversion and quantization, on the developer's machine."""

    SOURCES: tuple[str, ...]  # formats that `convert` can read, best first
    ELSEWHERE: Mapping[str, str]  # other source formats -> what a user can do instead, as a clause
    REQUIRES: Mapping[str, str]  # import name -> the extra that installs it
    # scheme -> {"weights": dtype, "activations": dtype | None, "covers": operators}; int8 includes uint8;
    # "least_elements", optional: nodes with fewer weights may stay as they are
    SCHEMES: Mapping[str, Mapping[str, Any]]
    SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]]  # scheme -> dotted setting -> allowed values

    def convert(self, source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
        """Write the float model. Returns {"inputs", "outputs": lists of dicts as artifact.Port, "layers": {source layer: [nodes]}}."""

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
    ) -> Sequence[str] | None:
        """Write the variant into `folder` from the float model in `parent`. Returns the nodes that the format left float by a rule of its
        own. calibration: feeds of batch 1, or []. keep_nodes: of layers.json, stay float. validation: feeds and targets [n], given only to
        a format with the setting `accuracy_control`, and if that is on. ValueError in one clear line for what cannot be done."""


class Facts(Protocol):
    """formats/FORMAT/facts.py: what a file holds, read from the file itself."""

    def facts(self, folder: Path) -> Mapping[str, Any]:
        """{"operators": {"Conv[int8]": count}, "weights_bytes_by_dtype": {"int8": n}, "weights_elements": n (all constants
        with two or more dimensions), "nodes": [{"name", "operator", "weights_dtype", "activations_dtype", "elements"}]
        of every node with weights, "conversions": {operator: count} of the operators that only convert between float and integer}."""


class Scanner(Protocol):
    """formats/<name>/scan.py: how much each layer of a source of this format suffers from int8; for formats that sources have."""

    def scan(self, source: Path, feeds: Sequence[Arrays], per_channel: bool, parts: Any, ports: Mapping[str, Any]) -> Mapping[str, Any]:
        """{"layers": {layer: {"noise", "elements": weights}}, "noise": with all of them in 8 bits}; noise: see formats.common.rounding.
        feeds: calibration samples, [1, ...]; parts: output -> indices into [n, ...]; ports: of ports.json. ValueError: why it cannot be."""


class Storer(Protocol):
    """formats/FORMAT/store.py: the form in which a variant's file is stored, which does not change its outputs."""

    FILE: Mapping[str, tuple[Any, ...]]  # setting of the section `file` -> allowed values

    def store(self, folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> Mapping[str, Any]:
        """Bring the model in `folder`, a whole one or one part, into its final form. mapped: its weights must be memory-mapped as it runs;
        ValueError if that is not possible. Returns {} if unchanged, else {"form": in words}, and "release" if only that runs the file."""


class Splitter(Protocol):
    """formats/FORMAT/split.py: a model as parts that are loaded one after another."""

    UNSUPPORTED: str | None  # why no file of the format can be cut, with what to use instead; None where files can

    def cuttable(self, folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> "Cuttable":
        """The model of a variant as steps. ValueError with the reason if the format, or this file, cannot be cut."""


class Cuttable(Protocol):
    """A model that can be written in parts, as `cuttable` of formats/FORMAT/split.py returns it."""

    # every operator in the order of execution: {"node": its name, "weights_bytes": of constants that no earlier step uses,
    # "crossing": number of tensors that cross a cut after it, 0 if no cut is possible}
    steps: Sequence[Mapping[str, Any]]
    inputs: Sequence[Mapping[str, Any]]  # of the whole model, as a Session has them
    outputs: Sequence[Mapping[str, Any]]
    files: Sequence[str]  # of the whole model, which the parts replace
    channel_axis: int  # of tensors that cross a cut: 1, or -1 where channels come last

    def write(self, start: int, end: int, folder: Path) -> None:
        """Write steps start to end as a model of its own that the format's run.py loads from `folder`. Tensors that cross into it are its
        inputs, those that later steps or the user need its outputs; they have the same names on both sides of a cut."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """The objects of one picture, k of them, none where it shows nothing.

    corners: float32 [k, 4], x0, y0, x1, y1 (left, top, right, bottom) in pixels of the picture as its file has it, 0 at the left or upper
    edge. classes: int64 [k], positions in the labels. areas: float32 [k], pixels of the object's outline where the data has one, else of
    its box. crowd: bool [k], a region in which objects count neither as found nor as false, as in COCO.
    """

    corners: np.ndarray
    classes: np.ndarray
    areas: np.ndarray
    crowd: np.ndarray

    @classmethod
    def of(cls, corners: Any, classes: Any, areas: Any = None, crowd: Any = None) -> "Boxes":
        """From anything that numpy takes. areas: None: of the boxes. crowd: None: none is one."""
        edges = np.asarray(corners, np.float32).reshape(-1, 4)
        own = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
        sizes = own if areas is None else np.asarray(areas, np.float32).reshape(-1)
        regions = np.zeros(len(edges), bool) if crowd is None else np.asarray(crowd, bool).reshape(-1)
        return cls(edges, np.asarray(classes, np.int64).reshape(-1), sizes, regions)

    def take(self, chosen: np.ndarray) -> "Boxes":
        """Some of them. chosen: indices, or bool [k]."""
        return Boxes(self.corners[chosen], self.classes[chosen], self.areas[chosen], self.crowd[chosen])

    def __len__(self) -> int:
        return len(self.classes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boxes) and all(np.array_equal(mine, vars(other)[name]) for name, mine in vars(self).items())

    __hash__ = None  # type: ignore[assignment]


IGNORED = 255  # the value of pixels in a mask that belong to no class and are not scored


@dataclass(frozen=True)
class Mask:
    """The class of each pixel of one picture. size: height and width; packed: bytes, by zlib; pixels: how many of each of 256 values."""

    size: tuple[int, int]
    packed: bytes
    pixels: tuple[int, ...]

    @classmethod
    def pack(cls, classes: np.ndarray) -> "Mask":
        """classes: uint8 [height, width], positions in the labels, or IGNORED."""
        height, width = classes.shape
        return cls((height, width), zlib.compress(classes.tobytes(), 1), tuple(np.bincount(classes.ravel(), minlength=256).tolist()))

    def unpack(self) -> np.ndarray:
        """uint8 [height, width]"""
        return np.frombuffer(zlib.decompress(self.packed), np.uint8).reshape(self.size)


Label = str | tuple[float, ...] | Boxes | Mask | None


@dataclass(frozen=True)
class Item:
    """One sample of a data set. value: what the data set's encoder takes; for pictures uint8 [height, width, channels], any size,
    channels 1 or 3. label: the name of its class, or its numbers, boxes or mask where data.targets says so; None without labels. Samples
    with the same group or sha256 never come into two splits. problems: what was wrong with its label and was left out or mended, as (what,
    where), such as ("boxes of no area, left out", "a.jpg"); they are counted over all samples."""

    name: str
    label: Label
    group: str | None
    sha256: str
    value: Any
    split: str | None = None  # the split, if the data set itself defines it
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Unreadable:
    """A sample that could not be read, and why. It is named in the manifest of models/data and left out."""

    name: str
    reason: str


class Encoder(Protocol):
    """Turns the values of a data set into arrays: one inputs/NAME.npy for each input, [n, ...]."""

    def add(self, value: Any, /) -> None: ...

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        """Write the rest. train: indices of the training split, for what is learned from it (a tokenizer).
        Returns {"inputs": tensors as the model takes them, "preprocessing": see agent.preprocess, "tools": versions}."""


class DataSet(Protocol):
    """data/NAME.py. `Settings` is a frozen dataclass that checks the section of the configuration, with what DataSettings has."""

    Settings: type

    def probe(self, settings: Any) -> Mapping[str, Any]:
        """What changes when the data does: {"digest": sha256 of the listing, "files": n, ...}. Fast: reads no picture."""

    def items(self, settings: Any) -> Iterator[Item | Unreadable]: ...

    def encoder(self, settings: Any, folder: Path) -> Encoder:
        """An encoder that writes into `folder` (models/data): inputs/NAME.npy, and beside them what is learned from the data."""


class Task(Protocol):
    """tasks/NAME.py: how variants are evaluated. `Settings` is a frozen dataclass that checks the section `task`."""

    Settings: type
    TARGETS: str | None  # the value of data.targets that it needs; None: any
    NEEDS: tuple[str, ...]  # settings of the data set that must not be null
    SCORED: bool  # it judges the output that has one value for each label
    DRAWN: bool  # it is a DrawnTask
    SPLITS: tuple[str, ...]  # the splits for which outputs are computed, test last
    PRIMARY_METRIC: PrimaryMetric | None  # None: quality is not judged
    SCORES: tuple[str, ...]  # names of all other scores of `judge` and `compare`, as in metrics

    timed_answer: Callable[[Any], Mapping[str, Any]] | None  # settings -> what is timed behind the model, end to end; None: an argmax

    def condense(self, settings: Any, spec: Mapping[str, Any], outputs: Arrays) -> Arrays:
        """What is kept of all outputs of a model for some samples, [n, ...] each. spec: of Predictions, and `labels`, `preprocessing` and,
        of pictures, `sizes` (height and width, int32 [n, 2]). Results of several calls are concatenated on the first axis; where a sample
        has any number of them, an array `counts`, int64 [n], says how many."""

    def judge(self, settings: Any, answers: Mapping[str, Predictions]) -> Scores:
        """Score the outputs of one variant. answers: by split, those that are empty left out; test never is."""

    def compare(self, settings: Any, reference: Predictions, variant: Predictions) -> Comparison | None:
        """Compare two variants on the same samples of the test split; None if quality is not judged."""

    def decide(self, answers: Predictions) -> Decisions | None:
        """The decision for each sample; None if an answer is neither right nor wrong."""


@dataclass(frozen=True)
class Shown:
    """What is drawn of one picture, in its own pixels: boxes, [k, 4] of x0, y0, x1, y1, or a class for each pixel, uint8 [h, w]."""

    corners: np.ndarray = field(default_factory=lambda: np.zeros((0, 4), np.float32))
    classes: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    captions: Sequence[str] = ()
    class_map: np.ndarray | None = None


class DrawnTask(Task, Protocol):
    """A task whose answers lie in the picture. Each method takes predictions of the test split."""

    def truth(self, answers: Predictions, index: int) -> Shown | None: ...

    def shown(self, answers: Predictions, index: int) -> Shown: ...

    def changed(self, reference: Predictions, variant: Predictions) -> np.ndarray:
        """How much the answer to each picture changed, [n]."""

    def describe_change(self, change: float) -> str: ...


class Importer(Protocol):
    """sources/NAME.py: one way to get a source. It writes the files of models/source and returns its manifest fields."""

    FORMAT: str  # the format of the source that it makes: torch, onnx, keras ...
    Settings: type
    REQUIRES: Mapping[str, str]  # import name -> the extra that installs it
    ISOLATED: bool  # it runs a foreign file, which may abort the process: `obtain` is called in a process of its own

    def obtain(self, settings: Any, data: Path, train: Any, seed: int, folder: Path) -> Mapping[str, Any]:
        """Train or import into `folder`. Returns {"format", "inputs", "outputs", "details", "tools"}, all as in a manifest,
        "weights" (the file that holds them) and "training" (the content of metrics/train.json, with "accuracy_validation"; its
        "warnings" are shown to the user, now and in the report)."""


class Connection(Protocol):
    """An open connection to a device. Its methods raise agent.protocol.Fault, which devices.access turns into a DeviceError."""

    def reserve(self) -> AbstractContextManager[None]:
        """Reserve the device for the block, so that no other host measures on it. Fault `busy` if another one does not finish in time."""

    def place(self, folder: Path) -> str:
        """Make a folder of the host (a model, inputs) available on the device; returns its path there."""

    def run(self, job: Mapping[str, Any], deadline_s: float) -> Iterable[Mapping[str, Any]]:
        """Run the agent once in a fresh process. job: `kind` and its fields, see agent.protocol.JOBS. Yields its events, the last of
        which is `done`."""


class Device(Protocol):
    """devices/NAME.py: one transport. Its Settings have at least those of devices/local.py: threads, cool_down_degc, cool_down_max_s."""

    Settings: type
    EMULATED: bool  # the device is emulated: outputs are compared, and nothing is timed

    def connect(self, settings: Any) -> AbstractContextManager[Connection]: ...
