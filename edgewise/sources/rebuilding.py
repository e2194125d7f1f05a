"""The source as a torch module again, to be trained further: built as it was for the training, with the weights of models/source."""

from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Plugin
from edgewise.config.settings import build
from edgewise.proof import checks
from edgewise.sources import torch_source, training
from edgewise.sources.model_source import find_collapsed
from edgewise.stats.agreement import compare_groups, worst_of

LEAST_DB = 60.0  # between the module and the source's own outputs; another order of sums gives 120 and more


def rebuild(model: Plugin, source: Path, data: Manifest) -> Any:
    """The module of torch_source.wrap, in evaluation mode. ValueError where the source is not made by a torch module, or the module is no
    longer the one that it was made by; ModelError where the weights do not fit."""
    plugin, manifest = model.load(), artifact.read(source)
    if manifest.format != "torch" or not hasattr(plugin, "create"):
        raise ValueError(
            f"not from this source: model.name {model.name!r} is of format {manifest.format}, and channels can be cut out of torch modules"
            " only; bring the model as torch code, model.name=callable, or as torch_file with model.callable"
        )
    settings = build(plugin.Settings, model.settings, "model")
    module = torch_source.wrap(plugin.create(settings, data))
    own = torch_source.Settings(
        weights=str(source / torch_source.WEIGHTS), batchnorm_momentum=getattr(settings, "batchnorm_momentum", None)
    )
    torch_source.initialize(module, own, len(data.labels))
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
