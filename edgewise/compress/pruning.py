"""Make a pruned source: cut channels out of the float source in steps, and train after each with the float source as teacher.

What comes out is a float source again, with the same layers, ports and probe samples: every format converts and quantizes it as any other.
"""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import slimming
from edgewise.compress.slimming import Costs
from edgewise.config.prune_settings import Prune
from edgewise.config.schema import Plugin, Train
from edgewise.proof import checks
from edgewise.sources import torch_source, training
from edgewise.sources.checkpoint import PREFIX
from edgewise.sources.distillation import Distilled, Imitation
from edgewise.sources.objectives import Objective, choose

REQUIRES = {"torch_pruning": "prune", "torch": "train", "transformers": "train", "safetensors": "train"}
TAYLOR_BATCHES = 8  # of the training split, over which gradients are summed up
PRUNED = "pruned"  # in the details of the manifest


def make_pruned(model: Plugin, source: Path, data: Path, prune: Prune, train: Train, seed: int, folder: Path) -> list[dict[str, Any]]:
    """Write the pruned source into `folder`. Returns the history of the training after each step (see training.fit).

    The same seed and number of threads give the same bytes. ValueError where this source cannot be pruned so, in one line; UserError as of
    the training itself.
    """
    manifest, samples, recipe = artifact.read(source), Samples.open(data), retraining(prune, train)
    with training.repeatable(seed, train.threads):
        module = torch_source.rebuild(model, source, artifact.read(data))
        objective = Distilled(find_objective(samples, recipe, manifest, prune), copy.deepcopy(module), prune.distillation, samples)
        probe = checks.read_probe(source)[0]
        before = slimming.measure(module, two_of(probe))
        slim, steps = shrink(module, two_of(probe), before, prune, objective, recipe, seed)
        fields = torch_source.export(slim, probe, [port.name for port in manifest.outputs], folder)
    cut = describe(before, slimming.measure(slim, two_of(probe)), prune, steps)
    details = {**manifest.details, **fields["details"], PRUNED: cut}
    artifact.write(folder, dataclasses.replace(manifest, config_key=None, details=details, files={}))
    return steps


def retraining(prune: Prune, train: Train) -> Train:
    """The recipe of the training after each step."""
    return dataclasses.replace(train, epochs=prune.epochs, learning_rate=prune.learning_rate or train.learning_rate)


def find_objective(samples: Samples, recipe: Train, manifest: Manifest, prune: Prune) -> Objective:
    """The objective of the data, or, where it has none for these outputs, the teacher's outputs alone. ValueError without either."""
    names = [port.name for port in manifest.outputs]
    objective = choose(samples, recipe, manifest.details.get(torch_source.DECODING))
    if objective is not None and len(objective.outputs) == len(names):
        return objective
    if not prune.distillation.weight:
        raise ValueError(
            f"prune.distillation.weight: 0, and there is no loss for this model with data.targets={samples.kind}; give it a weight above 0"
        )
    return Imitation(samples, recipe, names)


def two_of(probe: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Two samples: torch treats a batch of one as a constant."""
    return {name: array[:2] for name, array in probe.items()}


def shrink(
    module: Any, feeds: Mapping[str, np.ndarray], before: Costs, prune: Prune, objective: Distilled, recipe: Train, seed: int
) -> tuple[Any, list[dict[str, Any]]]:
    """The pruned and trained module, and the history of each step with what was left after it."""
    kind, share = prune.goal
    keep = [f"{PREFIX}{path}" for path in select_kept(prune, before)]
    histories = []
    for step in range(1, prune.steps + 1):
        if prune.criterion == "taylor":
            sum_up_gradients(module, objective, recipe, seed)
        goal = before.of(kind) * share ** (step / prune.steps)
        module = slimming.prune(module, feeds, kind, goal, multiple=prune.multiple, criterion=prune.criterion, keep=keep)
        history = torch_source.fit(module, objective.samples, recipe, seed + step, objective)
        left = slimming.measure(module, feeds)
        histories.append({**history, "multiply_adds": left.multiply_adds, "parameters": left.parameters})
    return module, histories


def select_kept(prune: Prune, before: Costs) -> list[str]:
    """The layers that the user keeps, by path. VariantFailed for a pattern that matches none."""
    return checks.select_layers("prune.keep", prune.keep, {path.removeprefix(PREFIX): () for path in before.layers})


def sum_up_gradients(module: Any, objective: Distilled, recipe: Train, seed: int) -> None:
    """Leave the gradients of the loss over some batches of the training split in the parameters of the module."""
    rng = np.random.default_rng(seed)
    indices = objective.epoch(rng)[: TAYLOR_BATCHES * recipe.batch_size]
    module.eval().zero_grad(set_to_none=True)
    for part in np.array_split(indices, max(1, len(indices) // recipe.batch_size)):
        feeds, targets = objective.batch(part, rng)
        objective.loss(training.run(module, feeds), targets).backward()


def describe(before: Costs, after: Costs, prune: Prune, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """What was cut, as an entry of the manifest's details: costs of both, and the channels of each layer, [made, taken]."""
    layers = {
        path.removeprefix(PREFIX): {"before": [*layer.channels], "after": [*after.layers[path].channels]}
        for path, layer in before.layers.items()
    }
    return {
        "settings": dataclasses.asdict(prune),
        "multiply_adds": after.multiply_adds,
        "multiply_adds_before": before.multiply_adds,
        "parameters": after.parameters,
        "parameters_before": before.parameters,
        "layers": layers,
        "steps": [{name: value for name, value in step.items() if name != "curve"} for step in steps],
    }
