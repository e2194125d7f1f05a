"""From a freshly built torch module to a source: the user's checkpoint, training, export. Shared by the torch importers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.sources import checkpoint, torch_source, training

PROBE_SAMPLES = 16
REQUIRES = {"torch": "train", "transformers": "train", "safetensors": "train"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every torch importer offers."""

    weights: str | None = option(None, "checkpoint to continue from: safetensors, or torch.save of a state_dict")
    weights_ignore: tuple[str, ...] = option((), "layers (names or patterns) that do not come from the checkpoint: [classifier]")
    batchnorm_momentum: float | None = option(None, "share of the newest batch in BatchNorm's running figures", low=0.001, high=1.0)


def obtain(
    create: Callable[[artifact.Manifest], Any], settings: Settings, data: Path, train: Train, seed: int, folder: Path
) -> Mapping[str, Any]:
    """Build with create(manifest of the data), continue from the checkpoint, train, export into `folder`."""
    manifest, samples = artifact.read(data), Samples.open(data)
    training.check(train, manifest.preprocessing)
    with training.repeatable(seed, train.threads) as threads:
        source = torch_source.wrap(create(manifest))
        prepare(source.model, settings, len(samples.labels))
        probe = samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))
        torch_source.check_outputs(source, probe, samples.labels)
        history = training.fit(source, samples, train, seed, change(train, manifest))
        fields = torch_source.export(source, probe, "logits", folder)
    origin = {"initial_weights_sha256": artifact.sha256(Path(settings.weights))} if settings.weights else {}
    return {**fields, "details": {**fields["details"], **origin, "threads": threads}, "training": history}


def prepare(module: Any, settings: Settings, classes: int) -> None:
    import torch

    if settings.batchnorm_momentum is not None:
        for child in module.modules():
            if isinstance(child, torch.nn.modules.batchnorm._BatchNorm):
                child.momentum = settings.batchnorm_momentum
    if settings.weights is not None:
        checkpoint.load_into(module, Path(settings.weights), settings.weights_ignore, classes)


def change(train: Train, manifest: artifact.Manifest) -> training.Change:
    """The augmentation of a batch. Pictures are the one kind of input that has any."""
    preprocessing = manifest.preprocessing or {}
    if preprocessing.get("kind") != "image":
        return lambda feeds, rng: feeds
    pixels = training.Pixels.of(preprocessing)
    return lambda feeds, rng: {name: training.augment(array, train, pixels, rng) for name, array in feeds.items()}
