"""From a torch module to a source: load the user's checkpoint, train, export. Shared by all sources that build a torch module.

models/source/ then holds
    program.pt2          torch.export program with a dynamic batch; `.module()` of it is what the formats convert
    weights.safetensors  the same weights by their names in the program
    probe.npz            "in:NAME" and "out:NAME": real samples and the source's own outputs, the oracle of every variant

The same weights give the same bytes: torch writes its archive with fixed dates, and paths of this machine are removed. `rebuild` goes the
other way: the source as a torch module again, to be trained further.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent.ports import to_samples_first
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Plugin, Train
from edgewise.config.settings import build, option
from edgewise.errors import ConfigError, ModelError
from edgewise.proof import checks
from edgewise.sources import checkpoint, distillation, training
from edgewise.sources.augmentation import check_augmentations
from edgewise.sources.checkpoint import PREFIX
from edgewise.sources.distillation import Distilled
from edgewise.sources.inspection import one_line
from edgewise.sources.model_source import find_collapsed
from edgewise.sources.objectives import Objective, choose
from edgewise.sources.oracle import SCORES, find_moving_axis
from edgewise.sources.torch_ports import as_forward, take_tensors, to_numpy
from edgewise.stats.agreement import compare_groups, worst_of

PROBE_SAMPLES = 16
REQUIRES = {"torch": "train", "transformers": "train", "safetensors": "train"}
WEIGHTS = "weights.safetensors"
MAX_BATCH = 1024
MEANINGS = ("logits", "scores", "boxes", "map")
LEAST_DB = 60.0  # between the module and the source's own outputs; another order of sums gives 120 and more
DECODING = "decoding"  # attribute of a module whose outputs are boxes: how, for agent.decoding; in the manifest among the details


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that every source of a torch module has."""

    weights: str | None = option(None, "checkpoint to start from: safetensors, or torch.save of a state_dict")
    weights_ignore: tuple[str, ...] = option((), "layers (names or patterns) that are not loaded from the checkpoint: [classifier]")
    batchnorm_momentum: float | None = option(None, "weight of the newest batch in BatchNorm's running statistics", low=0.001, high=1.0)


def obtain(
    create: Callable[[artifact.Manifest], Any], settings: Settings, data: Path, train: Train, seed: int, folder: Path
) -> Mapping[str, Any]:
    """Build the module with create(manifest of the data), load the checkpoint, train, and export into `folder`. Returns manifest fields."""
    manifest, samples = artifact.read(data), Samples.open(data)
    check_augmentations(train, manifest.preprocessing)
    with training.repeatable(seed, train.threads) as threads:
        source = wrap(create(manifest))
        decoding = getattr(source.model, DECODING, None)
        objective = choose(samples, train, decoding)
        initialize(source.model, settings, len(samples.labels))
        probe = samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))
        shapes = check_outputs(source, probe, objective)
        objective = objective if objective and len(shapes) == len(objective.outputs) else None
        names = objective.outputs if objective else name_outputs(shapes, len(samples.labels))
        objective = distillation.find_objective(objective, samples, train, names, list(shapes.values()), probe)
        history = fit(source, samples, train, seed, objective) if objective else leave_untrained(samples.kind, train)
        fields = export(source, probe, names, folder)
    more = {"initial_weights_sha256": artifact.sha256(Path(settings.weights))} if settings.weights else {}
    more |= {DECODING: decoding} if decoding else {}
    return {**fields, "details": {**fields["details"], **more, "threads": threads}, "training": history}


def fit(source: Any, samples: Samples, train: Train, seed: int, objective: Objective) -> Mapping[str, Any]:
    """training.fit, with a look inside of both nets where there is a teacher and the settings ask for it."""
    recipe = distillation.with_known_monitor(train, objective)
    with objective.looking_inside(source) if isinstance(objective, Distilled) else contextlib.nullcontext():
        return training.fit(source, samples, recipe, seed, objective)


def leave_untrained(kind: str, train: Train) -> dict[str, Any]:
    """The history of a model that there is no objective for. ConfigError if it is to be trained. kind: of the targets."""
    if train.epochs:
        raise ConfigError(
            f"train.epochs: {train.epochs}; this model cannot be trained with data.targets={kind}: set train.epochs=0 to take it as it is,"
            " or model.name=tiny_detector to train a detector"
        )
    return {"accuracy_validation": None, "epochs": 0, "curve": []}


def name_outputs(shapes: Mapping[str, Sequence[int]], labels: int) -> list[str]:
    """The names of outputs of these shapes, where nothing else is known of them: `logits` for the first with one value for each label."""
    scored = next((name for name, shape in shapes.items() if labels and list(shape[1:]) == [labels]), None)
    return [SCORES if name == scored else name for name in shapes]


def initialize(module: Any, settings: Settings, classes: int) -> None:
    """Set BatchNorm's momentum and load the checkpoint, in place."""
    import torch

    if settings.batchnorm_momentum is not None:
        for child in module.modules():
            if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
                child.momentum = settings.batchnorm_momentum
    if settings.weights is not None:
        checkpoint.load_into(module, Path(settings.weights), settings.weights_ignore, classes)


def wrap(module: Any) -> Any:
    """A module whose forward takes the inputs by position and returns one tensor or several (models of transformers return an object)."""
    import torch

    class Source(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy, see pyproject.toml
        def __init__(self, model: torch.nn.Module):
            super().__init__()
            self.model = model

        def forward(self, *inputs: torch.Tensor) -> torch.Tensor | Sequence[torch.Tensor]:
            return as_forward(take_tensors(self.model(*inputs)))

    return Source(module)


def check_outputs(source: Any, feeds: Mapping[str, np.ndarray], objective: Objective | None) -> dict[str, list[int]]:
    """The shapes of the outputs by name. ModelError unless `source` takes the feeds, [n, ...], and gives what the objective needs; it may
    give more than one value for each label, and can then be taken as it is, without training."""
    import torch

    shapes = ", ".join(f"{name} {[*array.shape]}" for name, array in feeds.items())
    try:
        with torch.no_grad():
            results = take_tensors(source.eval().model(*training.to_tensors(feeds)))
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ModelError(f"the model does not accept {shapes}: {one_line(error)}; change data.* or model.arguments to match") from error
    odd = next((result for result in results.values() if not torch.is_tensor(result)), None)
    if odd is not None:
        raise ModelError(
            f"the model returns a {type(odd).__name__} where a tensor is needed;"
            " it must return one tensor, several in a tuple, list or dict, or an object with .logits"
        )
    given = {name: [*result.shape] for name, result in results.items()}
    trouble = objective and objective.check(list(given.values()))
    several = len(given) > 1 and any(objective and not objective.check([shape]) for shape in given.values())
    if trouble and not several:
        raise ModelError(f"the model returns {', '.join(map(str, given.values()))} for {shapes}, but {trouble}")
    return given


def export(source: Any, feeds: Mapping[str, np.ndarray], outputs: Sequence[str], folder: Path) -> dict[str, Any]:
    """Export `source` (from `wrap`) into `folder`; feeds: at least two samples a name, [n, ...]. outputs: names of what it returns, which
    say what it is if they are in MEANINGS. Returns manifest fields."""
    import torch

    saved = save(source, {name: array[:2] for name, array in feeds.items()}, [[0]] * len(feeds), folder)
    with torch.no_grad():
        some = ({name: array[np.arange(count) % len(array)] for name, array in feeds.items()} for count in (2, 3))
        shapes = [[tuple(result.shape) for result in training.run(source, taken)] for taken in some]
        results = {name: to_numpy(result) for name, result in zip(outputs, training.run(source, feeds), strict=True)}
    axes = {name: find_moving_axis(name, sizes, None) for name, sizes in zip(outputs, zip(*shapes, strict=True), strict=True)}
    lost = next((name for name, axis in axes.items() if axis is None), None)
    if lost is not None:
        raise ModelError(f"output {lost} of the model is the same for any number of samples; return values for each sample only")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()}
    stored |= {f"out:{name}": to_samples_first(array, axes[name]) for name, array in results.items()}
    np.savez(folder / "probe.npz", **stored)
    arithmetic = count_arithmetic(source, {name: array[:2] for name, array in feeds.items()})
    return {
        **saved,
        "details": {**saved["details"], "multiply_adds": arithmetic.total},
        "inputs": [_describe(name, array, 0) for name, array in feeds.items()],
        "outputs": [{**_describe(n, array, axes[n]), "meaning": n if n in MEANINGS else None} for n, array in results.items()],
    }


def save(source: Any, examples: Mapping[str, np.ndarray], open_axes: Sequence[Sequence[int]], folder: Path) -> dict[str, Any]:
    """Write the program and its weights into `folder`. source: takes the examples by position; open_axes: of each the axes that may have
    another size. Returns manifest fields."""
    import torch
    from safetensors.torch import save_file

    source = source.eval()
    program = _export_program(source, [torch.from_numpy(np.array(array, order="C")) for array in examples.values()], open_axes)
    torch.export.save(program, folder / "program.pt2")
    save_file({k: v.contiguous().clone() for k, v in program.state_dict.items()}, folder / WEIGHTS)
    return {
        "format": "torch",
        "details": {"layers": list_layers(source, program), "parameters": sum(p.numel() for p in source.parameters())},
        "tools": {"torch": torch.__version__},
        "weights": WEIGHTS,
    }


def _describe(name: str, array: np.ndarray, axis: int | None) -> dict[str, Any]:
    shape = [None if place == axis else size for place, size in enumerate(array.shape)]
    return {"name": name, "shape": shape, "dtype": str(array.dtype), "sample_axis": axis}


def list_layers(source: Any, program: Any) -> dict[str, dict[str, Any]]:
    """The layers with a weight matrix that the outputs depend on, by module path: type, name of the weight in the program, shape. A weight
    that two layers share is listed under both. program: of `source`."""
    found, read = {}, find_read_tensors(program)
    for name, parameter in source.named_parameters(remove_duplicate=False):
        owner, _, leaf = name.rpartition(".")
        if leaf == "weight" and parameter.ndim >= 2 and program.state_dict[name].data_ptr() in read:
            kind = type(source.get_submodule(owner)).__name__
            found[owner.removeprefix(PREFIX)] = {"type": kind, "weight": name, "shape": list(parameter.shape)}
    return found


def find_read_tensors(program: Any) -> set[int]:
    """Addresses of the parameters that the outputs of a program depend on: not of those in layers whose results nothing uses."""
    writers: dict[Any, list[Any]] = {}  # value -> the nodes that change it, or a view of it, in place
    for node in program.graph.nodes:
        value = node.args[0] if _find_alias(node) == "written" else None
        while value is not None:
            writers.setdefault(value, []).append(node)
            value = value.args[0] if _find_alias(value) else None
    left, reached = [*program.graph.find_nodes(op="output")], set()
    while left:
        node = left.pop()
        if node not in reached:
            reached.add(node)
            left += [*node.all_input_nodes, *writers.get(node, [])]
    parameters = program.graph_signature.inputs_to_parameters
    return {program.state_dict[parameters[node.name]].data_ptr() for node in reached if node.name in parameters}


def _find_alias(node: Any) -> str | None:
    """What the result of a node shares with its first input: "written" in place, "viewed", or None, nothing."""
    returned = getattr(getattr(node.target, "_schema", None), "returns", ())
    alias = returned[0].alias_info if returned else None
    return None if alias is None else "written" if alias.is_write else "viewed"


def _export_program(source: Any, examples: list[Any], open_axes: Sequence[Sequence[int]]) -> Any:
    """The exported program for any batch size from 1 to MAX_BATCH. The examples have batch size 2: torch treats 1 as a constant."""
    import torch

    batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
    # copied: torch takes pictures of one channel for channels last, and pooling would put an as_strided into every format
    plain = tuple(t.clone(memory_format=torch.contiguous_format) for t in examples)
    simple = all(list(axes) == [0] for axes in open_axes)  # else torch finds out which sizes are the same
    shapes = tuple(dict.fromkeys(axes, batch if simple else torch.export.Dim.DYNAMIC) for axes in open_axes)
    try:
        with torch.no_grad():
            program = torch.export.export(source, plain, dynamic_shapes=(shapes,))
    except Exception as error:  # torch.export has no common class for what it cannot trace
        raise ModelError(f"torch.export cannot export the model: {one_line(error)}; it must be traceable with any batch size") from error
    return _remove_paths(program)


def _remove_paths(program: Any) -> Any:
    """Remove stack traces, which hold file paths of this machine."""
    import torch

    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)
    return program


@dataclass(frozen=True)
class Arithmetic:
    """Multiply-adds for one sample: of the whole module, and of each module inside of it that does any, by its path."""

    total: int
    by_module: Mapping[str, int]


def count_arithmetic(module: Any, feeds: Mapping[str, np.ndarray]) -> Arithmetic:
    """Count convolutions, matrix products and attention, as torch.utils.flop_counter does; it counts two operations for a multiply-add.
    feeds: the inputs by position, [n, ...]."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    mode = module.training
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        module.eval()(*training.to_tensors(feeds))
    module.train(mode)
    samples = len(next(iter(feeds.values())))
    counts = {name: sum(operators.values()) // 2 // samples for name, operators in counter.get_flop_counts().items()}
    prefix = f"{type(module).__name__}."
    inside = {name.removeprefix(prefix): count for name, count in counts.items() if name.startswith(prefix)}
    return Arithmetic(counter.get_total_flops() // 2 // samples, inside)


def rebuild(model: Plugin, source: Path, data: artifact.Manifest) -> Any:
    """The module of a source, as `wrap` gives it, in evaluation mode. ValueError where the source is not made by a torch module, or the
    module is no longer the one that it was made by; ModelError where the weights do not fit."""
    plugin, manifest = model.load(), artifact.read(source)
    if manifest.format != "torch" or not hasattr(plugin, "create"):
        raise ValueError(
            f"not from this source: model.name {model.name!r} is of format {manifest.format}, and channels can be cut out of torch modules"
            " only; bring the model as torch code, model.name=callable, or as torch_file with model.callable"
        )
    settings = build(plugin.Settings, model.settings, "model")
    module = wrap(plugin.create(settings, data))
    own = Settings(weights=str(source / WEIGHTS), batchnorm_momentum=getattr(settings, "batchnorm_momentum", None))
    initialize(module, own, len(data.labels))
    check_same(module.eval(), source)
    return module


def check_same(module: Any, source: Path) -> None:
    """ValueError unless the module gives the source's own outputs, which have to differ from sample to sample."""
    import torch

    for warning in find_collapsed(source):
        raise ValueError(f"not from this source: {warning}")
    inputs, expected = checks.read_probe(source)
    with torch.no_grad():
        given = dict(zip(expected, (np.asarray(result) for result in training.run(module, inputs)), strict=True))
    worst = worst_of(compare_groups(expected, given))
    if not worst.sqnr_db >= LEAST_DB:
        raise ValueError(
            f"not from this source: the module that model.* builds gives other outputs than models/source (SQNR {worst.sqnr_db:.1f} dB):"
            " its code has changed since; run train-export again (dvc repro --single-item --force train-export)"
        )
