"""The user's original file as the oracle of every variant: which ports the data feeds, which are constants or state, and its outputs.

fit = fit_ports(path, settings, session.inputs, session.outputs, data)     # which port is what; ModelError with the setting that helps
oracle = Oracle(session, fit)
oracle.run(feeds)                                                          # by the names of the data, samples first
"""

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

Arrays = dict[str, np.ndarray]
INPUT_KEYS = ("value", "sample_axis")
SCORES = "logits"  # the name of the output that has one value for each label
STATE = "state"


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
    """inputs, outputs: ports under the names of the file. names: of the inputs and outputs in the file -> in the pipeline. scored: the
    output, under its name in the pipeline, that has one value for each label; None: there is none."""

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    names: Mapping[str, str]
    scored: str | None = None

    @property
    def fed(self) -> tuple[Port, ...]:
        """The inputs that the data feeds, in the file's order."""
        return tuple(port for port in self.inputs if port.value is None and port.state is None)

    def sizes(self, port: Port, data: Manifest) -> tuple[int | None, ...]:
        """The sizes of what the file takes of one sample (of one step of it, with state), as the data has them. port: one that it feeds."""
        given = next(entry for entry in data.inputs if entry.name == self.names[port.name])
        return given.shape[2:] if any(each.state for each in self.inputs) else given.shape[1:]

    def renamed(self, ports: Sequence[Port]) -> tuple[Port, ...]:
        return tuple(
            replace(port, name=self.names[port.name], state=self.names[port.state] if port.state else None)
            for port in ports
            if port.name in self.names
        )

    def plan(self) -> dict[str, dict[str, Any]]:
        """As ports.json has it, by the names of the file."""
        return plan_ports(self.inputs, self.outputs)


class Oracle:
    """The original file. Feeds and outputs have the names of the pipeline, and their samples first."""

    def __init__(self, session: Session, fit: Fit):
        self.fit, self._session = fit, PortsSession(session, fit.plan())
        self._inner = {new: old for old, new in fit.names.items()}

    def run(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """Outputs by name, [n, ...] or of various sizes (see agent.ragged); floating ones as float32."""
        given = {self._inner[name]: array for name, array in feeds.items()}
        results = run_batched(self._session, given, batch=len(next(iter(given.values()))))
        return {self.fit.names[name]: ragged.apply(widen, array) for name, array in results.items() if name in self.fit.names}

    def first_feeds(self, feeds: Mapping[str, np.ndarray]) -> Arrays:
        """What the file itself is fed first, by its own names: two samples, or as many as it takes at once; with constants and state."""
        count = next((entry["shape"][0] for entry in self._session.inputs if entry["shape"][0] is not None), 2)
        given = {self._inner[name]: array[:count] for name, array in feeds.items()}
        return next(iter(self._session.iterate_file_feeds(given)))


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
    every = tuple(placed.get(port.name, port) for port in marked)
    names = {port.name: port.name for port in marked} | {old.name: new.name for old, new in pairs}
    carried = {port.state: port.sample_axis for port in every if port.state}
    found = find_output_axes(session, every, outputs, {old.name: feeds[new.name] for old, new in pairs}, carried)
    kept = [port for port in found if not settings.outputs or port.name in settings.outputs or port.name in carried]
    chosen = name_scores(kept, carried, data)
    names |= name_outputs(kept, {*names.values(), *chosen.values()}, chosen)
    return Fit(every, tuple(kept), names, next(iter(chosen.values()), None))


def check_names(setting: str, given: Any, ports: Sequence[Port]) -> None:
    """ModelError for a name that no port has."""
    for name in given:
        if name not in {port.name for port in ports}:
            raise ModelError(f"{setting}: the model has no port {name!r} there; {nearest(name, [port.name for port in ports])}")


def mark_input(port: Port, settings: PortSettings) -> Port:
    """The port with its constant value or its state, if it has one."""
    if port.name in settings.state:
        return replace(port, state=settings.state[port.name], meaning=STATE, sample_axis=find_state_axis(port, settings))
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


def find_state_axis(port: Port, settings: PortSettings) -> int | None:
    """Where a state input has its samples: as model.inputs says, else the first open axis, else the first axis of length one."""
    given = settings.inputs.get(port.name)
    if isinstance(given, Mapping) and "sample_axis" in given:
        return given["sample_axis"]  # type: ignore[no-any-return]
    free = [place for place, size in enumerate(port.shape) if size is None]
    single = [place for place, size in enumerate(port.shape) if size == 1]
    return next(iter([*free, *single]), None)


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


def suggest_state(inputs: Sequence[Port], outputs: Sequence[Port]) -> dict[str, str]:
    """Inputs that look like state, with the output that looks like its next value: the same type and shape, and a related name, or the only
    one of this shape."""
    found: dict[str, str] = {}
    for port in inputs:
        same = [out for out in outputs if fits_state(port, out) and out.name not in found.values()]
        related = [out for out in same if is_related(port.name, out.name)]
        chosen = next(iter(related), None)
        if chosen is not None and len(port.shape) > 1 and any(size is not None and size > 1 for size in port.shape):
            found[port.name] = chosen.name
    return found


def fits_state(port: Port, out: Port) -> bool:
    """Whether an output can be the next value of an input: type, number of axes, and fixed sizes agree."""
    if port.dtype != out.dtype or len(port.shape) != len(out.shape):
        return not out.shape and port.dtype == out.dtype  # exporters often leave the shape of a state output unknown
    return all(a is None or b is None or a == b for a, b in zip(port.shape, out.shape, strict=True))


def is_related(name: str, other: str) -> bool:
    """h and hn, state and stateN, past_0 and present_0, cache_in and cache_out, h_0 and h_1."""
    swaps = (("past", "present"), ("_in", "_out"), ("in_", "out_"), ("input", "output"), ("prev", "next"), ("old", "new"))
    first, second = name.casefold(), other.casefold()
    if any(first.replace(a, b) == second for a, b in swaps if a in first):
        return True
    stem = first.rstrip("0123456789_")
    return bool(stem) and (second.startswith(stem) or second.endswith(stem))


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
) -> list[Port]:
    """The outputs with their sample axes, found by running different numbers of samples. carried: axes of the outputs that feed state."""
    ports = PortsSession(session, plan_ports(inputs, ()))
    fixed = next((e["shape"][0] for e in ports.inputs if e["shape"][0] is not None), None)
    counts = (fixed,) if fixed else (2, 3)
    runs = [run_first_step(session, ports, {n: take_some(a, count) for n, a in feeds.items()}) for count in counts]
    found = []
    for port in outputs:
        shapes = [run[port.name].shape for run in runs]
        axis = carried[port.name] if port.name in carried else find_moving_axis(shapes, fixed)
        found.append(
            replace(port, sample_axis=axis, shape=port.shape or (None,) * len(shapes[0]), dtype=str(widen(runs[0][port.name]).dtype))
        )
    return found


def take_some(array: np.ndarray, count: int) -> np.ndarray:
    """The first samples, again and again where there are fewer than `count`; where they have various sizes the first one alone."""
    if ragged.is_ragged(array):
        return ragged.take(array, 0).repeat(count, axis=0)
    return array[np.arange(count) % len(array)]


def run_first_step(session: Session, ports: PortsSession, feeds: Arrays) -> Arrays:
    return session.run(next(iter(ports.iterate_file_feeds(feeds))))


def find_moving_axis(shapes: Sequence[tuple[int, ...]], fixed: int | None) -> int | None:
    """The axis of an output that grows with the number of samples. shapes: for 2 and 3 samples, or one for the fixed number that the file
    takes."""
    if fixed:
        return 0 if shapes[0][:1] == (fixed,) else None
    return next((place for place, sizes in enumerate(zip(*shapes, strict=True)) if sizes == (2, 3)), None)


def name_outputs(outputs: Sequence[Port], taken: set[str], chosen: Mapping[str, str]) -> dict[str, str]:
    """The names of the outputs in the pipeline: those of the file, except for `chosen` and for names that another port has there."""
    return {port.name: chosen.get(port.name, f"{port.name}_out" if port.name in taken else port.name) for port in outputs}


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
