"""The user's original file as the oracle of every variant: which ports the data feeds, which are constants or state, and its outputs.

fit = fit_ports(path, settings, session.inputs, session.outputs, data)     # which port is what; ModelError with the setting that helps
oracle = Oracle(session, fit)
oracle.run(feeds)                                                          # by the names of the data, samples first
"""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from edgewise.agent import ragged
from edgewise.agent.ports import PortsSession
from edgewise.agent.sessions import run_batched
from edgewise.artifacts.artifact import Manifest, Port, plan_ports
from edgewise.config.settings import nearest, option
from edgewise.errors import ConfigError, ModelError
from edgewise.plugins import Session
from edgewise.sources.inspection import Shape, parse_picture
from edgewise.sources.state_pairs import suggest_state

Arrays = dict[str, np.ndarray]
INPUT_KEYS = ("value", "sample_axis")
SCORES = "logits"  # the name of the output that has one value for each label
STATE = "state"
TRIED = 4  # samples with which an output is found that has another shape for another sample


@dataclass(frozen=True, kw_only=True)
class PortSettings:
    """Settings of a source about its inputs and outputs."""

    inputs: dict[str, Any] = option(
        {},
        "constant inputs, {sr: 16000}, and where an input has its samples, {x: {sample_axis: 1}}; null: one sample a run, without an axis",
    )
    state: dict[str, str] = option(
        {}, "inputs that carry state, and the outputs that feed them: {state_in: state_out}; data is [steps, ...]"
    )
    outputs: Any = option((), "names of the outputs to keep; empty: all of them")
    scores: str | None = option(
        None,
        "what the output with one value for each label holds; null: probabilities if all of them are from 0 to 1, else logits",
        choices=("logits", "probabilities"),
    )

    def __post_init__(self) -> None:
        if self.outputs in ("logits", "probabilities"):
            raise ConfigError(f"model.outputs: {self.outputs!r}; it names outputs now, write model.scores={self.outputs}")
        if isinstance(self.outputs, str) or not all(isinstance(name, str) for name in self.outputs or ()):
            raise ConfigError(f"model.outputs: {self.outputs!r} must be a list of names of outputs")
        object.__setattr__(self, "outputs", tuple(self.outputs or ()))


@dataclass(frozen=True)
class Fit:
    """inputs, outputs: ports under the names of the file. given, made: their names in the file -> in the pipeline, where an output has
    another name than any input. scored: the output, under its name in the pipeline, that has one value for each label; None: there is
    none."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    given: Mapping[str, str]
    made: Mapping[str, str]
    scored: str | None = None

    @property
    def fed(self) -> tuple[Port, ...]:
        """The inputs that the data feeds, in the file's order."""
        return tuple(port for port in self.inputs if port.value is None and port.state is None)

    def sizes(self, port: Port, data: Manifest) -> tuple[int | None, ...]:
        """The sizes of what the file takes of one sample (of one step of it, with state), as the data has them. port: one that it feeds."""
        given = next(entry for entry in data.inputs if entry.name == self.given[port.name])
        return given.shape[2:] if any(each.state for each in self.inputs) else given.shape[1:]

    def rename_inputs(self) -> tuple[Port, ...]:
        return tuple(replace(p, name=self.given[p.name], state=self.made[p.state] if p.state else None) for p in self.inputs)

    def rename_outputs(self) -> tuple[Port, ...]:
        return tuple(replace(port, name=self.made[port.name]) for port in self.outputs)

    def plan(self) -> dict[str, dict[str, Any]]:
        """As ports.json has it, by the names of the file."""
        return plan_ports(self.inputs, self.outputs)


class Oracle:
    """The original file. Feeds and outputs have the names of the pipeline, and their samples first."""

    def __init__(self, session: Session, fit: Fit):
        self.fit, self._session = fit, PortsSession(FittedSession(session, fit), fit.plan())
        self._inner = {new: old for old, new in fit.given.items()}

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Outputs by name, [n, ...] or of various sizes (see agent.ragged); floating ones as float32."""
        given = {self._inner[name]: array for name, array in feeds.items()}
        try:
            results = run_batched(self._session, given, batch=len(next(iter(given.values()))))
        except ValueError as error:
            raise self._explain_shapes(given) or error from error
        return {self.fit.made[name]: ragged.apply(widen, array) for name, array in results.items()}

    def _explain_shapes(self, given: Mapping[str, np.ndarray]) -> ModelError | None:
        """The error where an output has another shape for another sample; None where none has."""
        size = next((entry["shape"][0] for entry in self._session.inputs if entry["shape"][0] is not None), 1)
        parts = [{name: array[start : start + size] for name, array in given.items()} for start in range(0, TRIED * size, size)]
        runs = [self._session.run(part) for part in parts if len(next(iter(part.values()))) == size]
        shapes = {name: sorted({run[name].shape[1:] for run in runs}) for name in runs[0]}
        varying = {name: found for name, found in shapes.items() if len(found) > 1}
        if not varying:
            return None
        others = [name for name in shapes if name not in varying]
        keep = f"keep the others with model.outputs=[{', '.join(others)}], or " if others else ""
        told = "; ".join(f"{name} {format_shapes(found[:2]).replace('], [', '] and [')}" for name, found in varying.items())
        return ModelError(
            f"model.path: outputs have other shapes for other samples, as where a model keeps only what it finds: {told}; {keep}export the"
            " model without the steps that choose (NonMaxSuppression, NonZero, TopK of a varying number)"
        )

    def first_feeds(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """What the file itself is fed first, by its own names: two samples, or as many as it takes at once; with constants and state."""
        count = next((entry["shape"][0] for entry in self._session.inputs if entry["shape"][0] is not None), 2)
        given = {self._inner[name]: array[:count] for name, array in feeds.items()}
        return next(iter(self._session.iterate_file_feeds(given)))


class FittedSession:
    """The file with the ports that a fit names: its outputs without those that are not kept, its inputs with the sizes found for them."""

    def __init__(self, session: Session, fit: Fit):
        shapes = {port.name: list(port.shape) for port in fit.inputs}
        self.inputs = [{**entry, "shape": shapes[entry["name"]]} for entry in session.inputs]
        self.outputs = [entry for entry in session.outputs if entry["name"] in fit.made]
        self.run = session.run


def widen(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32) if array.dtype.kind == "f" else array


def fit_ports(path: Any, settings: PortSettings, session: Session, data: Manifest, feeds: Arrays) -> Fit:
    """Find out what each port of the file is. feeds: some samples, [n, ...], with which the sample axes of its outputs are found.

    ModelError with the setting that helps, where an input is fed by nothing, or does not accept the data.
    """
    inputs = [Port(e["name"], tuple(e["shape"]), e["dtype"]) for e in session.inputs]
    outputs = [Port(e["name"], tuple(e["shape"]), e["dtype"]) for e in session.outputs]
    check_names("model.inputs", settings.inputs, inputs)
    check_names("model.state", settings.state, inputs)
    check_names("model.state", settings.state.values(), outputs)
    check_names("model.outputs", settings.outputs, outputs)
    marked = [mark_input(port, settings) for port in inputs]
    fed = [port for port in marked if port.value is None and port.state is None]
    pairs = match_inputs(path, fed, outputs, data)
    placed = {old.name: place_samples(path, old, new, settings, data) for old, new in pairs}
    check_counts(path, [*placed.values()])
    single = not any(port.sample_axis is not None and port.shape[port.sample_axis] is None for port in placed.values())
    held = {port.name: replace(port, sample_axis=find_state_axis(port, settings, single)) for port in marked if port.state}
    every = tuple((placed | held).get(port.name, port) for port in marked)
    given = {port.name: port.name for port in marked} | {old.name: new.name for old, new in pairs}
    carried = {port.state: port.sample_axis for port in every if port.state}
    chosen = [port for port in outputs if not settings.outputs or port.name in settings.outputs or port.name in carried]
    check_numbers(path, chosen)
    every, kept = find_output_axes(session, every, chosen, {old.name: feeds[new.name] for old, new in pairs}, carried)
    scores = name_scores(kept, carried, data)
    made = name_outputs(kept, {*given.values()}, scores)
    return Fit(every, tuple(kept), given, made, next(iter(scores.values()), None))


def check_counts(path: Any, ports: Sequence[Port]) -> None:
    """ModelError where inputs take different numbers of samples at a time; one without an axis for them takes one."""
    taken = {port.name: 1 if port.sample_axis is None else port.shape[port.sample_axis] for port in ports}
    fixed = {name: count for name, count in taken.items() if count is not None}
    if len(set(fixed.values())) > 1:
        told = ", ".join(f"{count} of {name}" for name, count in fixed.items())
        raise ModelError(
            f"model.path: {path} takes different numbers of samples at a time ({told}); say where an input has its samples with"
            " model.inputs={NAME: {sample_axis: 0}}, or export it with a batch of 1"
        )


def check_numbers(path: Any, outputs: Sequence[Port]) -> None:
    """ModelError for outputs of strings, sequences or maps."""
    odd = [port for port in outputs if not is_number(port.dtype)]
    if odd:
        told = ", ".join(f"{port.name} ({port.dtype})" for port in odd)
        others = ", ".join(port.name for port in outputs if port not in odd)
        advice = f"keep the others with model.outputs=[{others}]" if others else "export it with arrays of numbers as outputs"
        raise ModelError(f"model.path: {path} gives {told}, which is no array of numbers and cannot be compared; {advice}")


def is_number(dtype: str) -> bool:
    try:
        return np.dtype(dtype).kind in "biuf"
    except TypeError:  # a name that numpy does not know, such as bfloat16, or the type of a sequence
        return dtype == "bfloat16"


def check_names(setting: str, given: Any, ports: Sequence[Port]) -> None:
    """ModelError for a name that no port has."""
    for name in given:
        if name not in {port.name for port in ports}:
            raise ModelError(f"{setting}: the model has no port {name!r} there; {nearest(name, [port.name for port in ports])}")


def mark_input(port: Port, settings: PortSettings) -> Port:
    """The port with its constant value or its state, if it has one."""
    if port.name in settings.state:
        return replace(port, state=settings.state[port.name], meaning=STATE)
    given = settings.inputs.get(port.name)
    if isinstance(given, Mapping):
        unknown = next((key for key in given if key not in INPUT_KEYS), None)
        if unknown is not None:
            raise ModelError(f"model.inputs.{port.name}.{unknown}: unknown setting; {nearest(unknown, INPUT_KEYS)}")
        given = given.get("value")
    if given is None:
        return port
    try:
        value = np.array(given).astype(port.dtype)
    except (TypeError, ValueError):
        raise ModelError(
            f"model.inputs.{port.name}: {given!r} is not a value of type {port.dtype}; give a number or a list of them"
        ) from None
    if len(port.shape) != value.ndim and value.size == 1:
        value = value.reshape((1,) * len(port.shape))
    if len(port.shape) != value.ndim:
        raise ModelError(f"model.inputs.{port.name}: {given!r} has {value.ndim} axes, the input takes {format_shapes([port.shape])}")
    return replace(port, value=value.tolist(), meaning="constant", sample_axis=None)


def find_state_axis(port: Port, settings: PortSettings, single: bool) -> int | None:
    """Where a state input has its samples: as model.inputs says, else the first open axis, else the first axis of length one. single: the
    file takes one sample at a time, so that an axis of length one comes first; an open one then is the length of a cache."""
    given = settings.inputs.get(port.name)
    if isinstance(given, Mapping) and "sample_axis" in given:
        return given["sample_axis"]  # type: ignore[no-any-return]
    free = [place for place, size in enumerate(port.shape) if size is None]
    ones = [place for place, size in enumerate(port.shape) if size == 1]
    return next(iter([*ones, *free] if single else [*free, *ones]), None)


def match_inputs(path: Any, fed: Sequence[Port], outputs: Sequence[Port], data: Manifest) -> list[tuple[Port, Port]]:
    """Each input of the file with the data's array that feeds it: by name where the data has all names, else in order. ModelError if their
    numbers differ."""
    arrays = {port.name: port for port in data.inputs}
    if arrays.keys() >= {port.name for port in fed}:
        return [(port, arrays[port.name]) for port in fed]
    if len(fed) == len(arrays):
        return list(zip(fed, data.inputs, strict=True))
    expected, actual = ", ".join(describe(port) for port in fed), ", ".join(describe(port) for port in data.inputs)
    raise ModelError(f"model.path: {path} expects {len(fed)} inputs, {expected}; the data has {actual}; {advise_extra(fed, outputs)}")


def advise_extra(fed: Sequence[Port], outputs: Sequence[Port]) -> str:
    """What to do about inputs that the data does not feed."""
    state = suggest_state(fed, outputs)
    constant = {port.name: "VALUE" for port in fed if not port.shape}
    words = [
        f"model.{key}={{{', '.join(f'{k}: {v}' for k, v in found.items())}}}"
        for key, found in (("state", state), ("inputs", constant))
        if found
    ]
    if words:
        return f"set {' and '.join(words)}"
    return "give a constant with model.inputs={NAME: VALUE}, state with model.state={IN: OUT}, or data with one array for each input"


def place_samples(path: Any, port: Port, given: Port, settings: PortSettings, data: Manifest) -> Port:
    """The port with its sample axis. ModelError if it does not accept the data's array. given: the array, as the data describes it."""
    sizes = given.shape[2:] if settings.state else given.shape[1:]
    if settings.state and len(given.shape) < 2:
        raise ModelError(
            f"model.state: the model takes one step at a time; the data's {given.name} has no steps: give [samples, steps, ...]"
        )
    axis = find_sample_axis(port, len(sizes), settings)
    rest = [size for place, size in enumerate(port.shape) if place != axis]
    if len(rest) != len(sizes) or any(a not in (None, b) for a, b in zip(rest, sizes, strict=True)):
        expected, actual = format_shapes([rest]), format_shapes([sizes])
        advice = suggest_settings([rest], data)
        raise ModelError(f"model.path: {path} expects {expected} for {port.name}, the data has {actual} (without the batch); {advice}")
    if port.dtype[:3] in ("int", "uin", "boo") and given.dtype.startswith("float"):
        raise ModelError(
            f"model.path: {path}: {port.name} takes {port.dtype}, the data's {given.name} is {given.dtype}; set data.dtype={port.dtype}"
        )
    return replace(port, sample_axis=axis, meaning=given.meaning, layout=given.layout)


def find_sample_axis(port: Port, rank: int, settings: PortSettings) -> int | None:
    """As model.inputs says; else the first axis, or none where the input has only as many axes as one sample."""
    given = settings.inputs.get(port.name)
    if isinstance(given, Mapping) and "sample_axis" in given:
        axis: int | None = given["sample_axis"]
        if axis is not None and not 0 <= axis < len(port.shape):
            raise ModelError(f"model.inputs.{port.name}.sample_axis: {axis!r} must be from 0 to {len(port.shape) - 1}, or null")
        return axis
    return None if len(port.shape) == rank else 0


def find_output_axes(
    session: Session, inputs: Sequence[Port], outputs: Sequence[Port], feeds: Arrays, carried: Mapping[str, int | None]
) -> tuple[tuple[Port, ...], list[Port]]:
    """The inputs, and the outputs with their sample axes, found by running different numbers of samples. carried: axes of the outputs that
    feed state.

    Some files leave the number of samples open and take one only, which a Reshape inside them has, or compare each sample with every other
    one, as two towers do: the inputs then have one sample.
    """
    runs, fixed = run_several(session, inputs, outputs, feeds)
    if fixed == 1:
        inputs = [fix_samples(port, 1) for port in inputs]
    found = []
    for port in outputs:
        shapes = [run[port.name].shape for run in runs]
        axis = carried[port.name] if port.name in carried else find_moving_axis(port.name, shapes, fixed)
        found.append(
            replace(port, sample_axis=axis, shape=port.shape or (None,) * len(shapes[0]), dtype=str(widen(runs[0][port.name]).dtype))
        )
    return tuple(inputs), found


def take_some(array: np.ndarray, count: int) -> np.ndarray:
    """The first samples, again and again where there are fewer than `count`; where they have various sizes the first one alone."""
    if ragged.is_ragged(array):
        return ragged.take(array, 0).repeat(count, axis=0)
    return array[np.arange(count) % len(array)]


def run_several(session: Session, inputs: Sequence[Port], outputs: Sequence[Port], feeds: Arrays) -> tuple[Sequence[Arrays], int | None]:
    """What the file gives for 2 and for 3 samples, or for the one number that it takes; and that number."""
    ports = PortsSession(session, plan_ports(inputs, ()))
    fixed = next((e["shape"][0] for e in ports.inputs if e["shape"][0] is not None), None)
    if fixed:
        return run_counts(session, ports, feeds, (fixed,)), fixed
    with contextlib.suppress(ModelError):
        runs = run_counts(session, ports, feeds, (2, 3))
        if not any(count_moving([run[port.name].shape for run in runs]) > 1 for port in outputs):
            return runs, None
    return run_counts(session, ports, feeds, (1,)), 1


def count_moving(shapes: Sequence[tuple[int, ...]]) -> int:
    """The axes that grow with the number of samples. shapes: for 2 and 3 samples."""
    return sum(sizes == (2, 3) for sizes in zip(*shapes, strict=False))


def fix_samples(port: Port, count: int) -> Port:
    """The port of a file that takes `count` samples at a time."""
    sizes = [count if place == port.sample_axis and size is None else size for place, size in enumerate(port.shape)]
    return replace(port, shape=tuple(sizes))


def run_counts(session: Session, ports: PortsSession, feeds: Arrays, counts: Sequence[int]) -> list[Arrays]:
    """What the file gives, in its first step, for each of these numbers of samples."""
    batches = ({name: take_some(array, count) for name, array in feeds.items()} for count in counts)
    return [session.run(next(iter(ports.iterate_file_feeds(batch)))) for batch in batches]


def find_moving_axis(name: str, shapes: Sequence[tuple[int, ...]], fixed: int | None) -> int | None:
    """The axis of an output that grows with the number of samples. shapes: for 2 and 3 samples, or one for the fixed number that the file
    takes. ModelError where a file takes several samples and an output has no axis for them."""
    if not fixed:
        return next((place for place, sizes in enumerate(zip(*shapes, strict=False)) if sizes == (2, 3)), None)
    if fixed == 1:
        return 0 if shapes[0][:1] == (1,) else None
    if fixed not in shapes[0]:
        raise ModelError(
            f"model.path: the file takes {fixed} samples at a time, and its output {name} {list(shapes[0])} has no axis of {fixed}; keep"
            " the others with model.outputs=[NAMES], or export it with a batch of 1"
        )
    return shapes[0].index(fixed)


def name_outputs(outputs: Sequence[Port], taken: set[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The names of the outputs in the pipeline: those of the file, except for `chosen` and for names that another port has there."""
    taken = taken | {*chosen.values()}
    names = {port.name: chosen.get(port.name, port.name) for port in outputs if port.name in chosen or port.name not in taken}
    for port in outputs:
        name = port.name
        while port.name not in names and name in taken | {*names.values()}:
            name = f"{name}_out"
        names.setdefault(port.name, name)
    return names


def name_scores(outputs: Sequence[Port], carried: Mapping[str, int | None], data: Manifest) -> dict[str, str]:
    """{name: logits} of the first output with one value for each label of the data, else nothing."""
    wanted = (None, len(data.labels))
    for port in outputs:
        if data.labels and port.name not in carried and port.sample_axis == 0 and len(port.shape) == 2 and port.shape[1] in wanted[1:]:
            return {port.name: SCORES}
    return {}


def describe(port: Port) -> str:
    return f"{port.name} {port.dtype} {format_shapes([port.shape])}"


def format_shapes(shapes: Sequence[Shape]) -> str:
    return ", ".join(str(["any" if side is None else side for side in shape]).replace("'", "") for shape in shapes) or "nothing"


def suggest_settings(accepted: Sequence[Shape], data: Manifest) -> str:
    """The settings with which the data would match, for pictures. accepted: shapes without the batch."""
    spec = data.preprocessing or {}
    if spec.get("kind") != "image" or len(accepted) != 1 or len(accepted[0]) != 3:
        return "change data.* to match"
    last, channels, size = parse_picture(accepted[0])
    fixed = size is not None and size != [None, None]
    resized = spec["size"] if spec.get("resize") != ragged.AS_IS else None
    wanted = [
        ("channels_last", last, spec["layout"] == "NHWC"),
        ("channels", channels, spec["channels"]),
        ("resize", "stretch" if fixed and resized is None else None, None),
        ("image_size", size if fixed else None, resized),
    ]
    words = [f"data.{key}={_format_value(value)}" for key, value, now in wanted if value != now and value is not None]
    return f"set {' '.join(words)}"


def _format_value(value: Any) -> str:
    if isinstance(value, list) and value[0] == value[1]:
        value = value[0]
    return str(value).lower().replace(" ", "")
