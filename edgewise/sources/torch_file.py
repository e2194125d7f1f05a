"""The user's own torch model, imported unchanged: a torch.export program (read by torch_program), or a callable with its checkpoint."""

import dataclasses
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import checkpoint, imported, python_callable, torch_ports, torch_source, training
from edgewise.sources.inspection import Inspection, Port, one_line
from edgewise.sources.oracle import Oracle, fit_ports
from edgewise.sources.torch_ports import ProgramSession
from edgewise.sources.torch_program import PROGRAM, load

FORMAT = "torch"
REQUIRES = torch_source.REQUIRES
ISOLATED = False
RECOGNIZED = (".pt2",)  # shown by `edgewise inspect` when no importer fits


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="file of torch.export.save; with a callable: the checkpoint with its weights")
    callable: str | None = option(None, "dotted path of the callable that builds the model, if the file holds weights only")
    arguments: dict[str, Any] = option({}, "keyword arguments of the callable")
    classes_argument: str | None = option(None, "argument of the callable for the number of labels; null: found in the signature")
    weights_ignore: tuple[str, ...] = option((), "layers that are not loaded from the file")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    if settings.callable is not None:
        return _obtain_callable(settings, data, Train(name=train.name, epochs=0, threads=train.threads), seed, folder)
    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    program = load(path)
    with training.repeatable(seed, train.threads) as threads:
        session = ProgramSession(path, program)
        fit = fit_ports(path, settings, session, manifest, imported.make_probe(samples))
        oracle = Oracle(session, fit)
        fields = imported.record(settings, oracle, samples, folder)
        places = [place for place, entry in enumerate(session.outputs) if entry["name"] in {port.name for port in fit.outputs}]
        module = torch_ports.keep_outputs(session.module, places, len(session.outputs))
        first = oracle.first_feeds(imported.make_probe(samples))
        examples = {entry["name"]: first[entry["name"]].astype(entry["dtype"]) for entry in session.inputs}
        saved = torch_source.save(module, examples, open_axes(session), folder)
    types = find_layer_types(program)
    layers = {name: {**layer, "type": types.get(name, layer["type"])} for name, layer in saved["details"]["layers"].items()}
    own = {"layers": layers, "imported_sha256": artifact.sha256(path), "threads": threads}
    return {**fields, **saved, "details": {**fields["details"], **saved["details"], **own}}


def _obtain_callable(settings: Settings, data: Path, untrained: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    """As sources that are trained, with 0 epochs. ConfigError for settings that only a program has."""
    usual = {field.name: field.default for field in dataclasses.fields(imported.Settings) if field.name != "path"}
    given = [name for name in usual if getattr(settings, name)]
    if given:
        raise ConfigError(f"model.{given[0]}: it is for programs of torch.export.save; leave it out, or model.callable")
    return python_callable.obtain(_as_callable(settings), data, untrained, seed, folder)


def _as_callable(settings: Settings) -> python_callable.Settings:
    """The settings of a callable with a checkpoint as those of a callable that is trained."""
    own = ("callable", "arguments", "classes_argument", "weights_ignore")
    return python_callable.Settings(weights=settings.path, **{name: getattr(settings, name) for name in own})


def create(settings: Settings, data: artifact.Manifest) -> Any:
    """The module that the callable builds. ValueError for a program, which is no torch module any more."""
    if settings.callable is None:
        raise ValueError(
            f"not from this source: model.path {settings.path!r} is an exported program, and channels can be cut out of torch modules only;"
            " name what builds the module with model.callable=MODULE.FUNCTION and its weights with model.path"
        )
    return python_callable.create(_as_callable(settings), data)


def open_session(path: Path) -> ProgramSession:
    return ProgramSession(path, load(path))


def open_axes(session: ProgramSession) -> list[list[int]]:
    """The axes of each input that have no fixed size."""
    return [[axis for axis, size in enumerate(entry["shape"]) if size is None] for entry in session.inputs]


def recognizes(path: Path) -> bool:
    """By name, or by what is in the archive: a program, or TorchScript, which is refused with what to do."""
    if not path.is_file():
        return False
    return path.suffix in (".pt2", ".pth2", ".ep") or not {PROGRAM, "constants.pkl"}.isdisjoint(checkpoint.list_members(path))


def find_layer_types(program: Any) -> dict[str, str]:
    """Class of each module by path, as recorded in the program; its unpacked modules have lost theirs."""
    stacks = [node.meta.get("nn_module_stack", {}) for node in program.graph.nodes]
    return {path: str(kind).rpartition(".")[2] for stack in stacks for path, kind in stack.values()}


def inspect(path: Path) -> Inspection:
    """Loads the program, after the same checks as `obtain`."""
    import torch

    program = load(path)
    session = ProgramSession(path, program)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    inputs, outputs = (tuple(Port(e["name"], tuple(e["shape"]), e["dtype"]) for e in side) for side in (session.inputs, session.outputs))
    fixed = [port.name for port in inputs if port.shape and port.shape[0] is not None]
    how = "; for others export it with dynamic_shapes=({0: torch.export.Dim('batch', min=1, max=1024)},)"
    multiply_adds, unknown = _multiply_adds(session, inputs)
    return Inspection(
        kind=f"torch.export program (this is torch {torch.__version__})",
        inputs=inputs,
        outputs=outputs,
        operators=Counter(str(node.target).removesuffix(".default") for node in calls),
        parameters=sum(tensor.numel() for tensor in program.parameters()),
        multiply_adds=multiply_adds,
        notes=(*(f"input {name} has a fixed batch size{how}" for name in fixed), *unknown),
        model={"name": "torch_file", "path": str(path)},
    )


def _multiply_adds(session: ProgramSession, inputs: tuple[Port, ...]) -> tuple[int | None, tuple[str, ...]]:
    """Multiply-adds per sample, counted in a run on zeros (torch counts two operations for each), or None and a note."""
    from torch.utils.flop_counter import FlopCounterMode

    zeros = {port.name: np.zeros([1 if side is None else side for side in port.shape], port.dtype) for port in inputs}
    try:
        with FlopCounterMode(display=False) as counter:
            session.run(zeros)
    except ModelError as error:
        return None, (f"multiply-adds are unknown: the program fails on zeros ({one_line(error)})",)
    first = inputs[0].shape[:1]
    return counter.get_total_flops() // 2 // max(1, (first[0] if first else 1) or 1), ()
