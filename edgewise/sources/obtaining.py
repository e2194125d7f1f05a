"""Obtain the source as the configuration says: trained from nothing, continued from a checkpoint, or imported."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from edgewise.artifacts import artifact
from edgewise.config import schema
from edgewise.config.settings import build
from edgewise.errors import MissingExtra, ModelError
from edgewise.proof import describing, isolation

DATA, SOURCE = Path("models/data"), Path("models/source")


def write_source(configuration: schema.Config) -> Mapping[str, Any]:
    """Write models/source; returns the record of the training: scores on validation, the curve, warnings, and the hash of the weights."""
    importer = configuration.model.load()
    settings = build(importer.Settings, configuration.model.settings, "model")
    data = artifact.read(DATA)
    with artifact.building(SOURCE) as folder:
        try:
            fields = dict(obtain(importer, settings, DATA, configuration.train, configuration.seed, folder))
        except ModuleNotFoundError as error:
            package = (error.name or "").split(".")[0]
            if package not in importer.REQUIRES:
                raise
            raise MissingExtra(package, importer.REQUIRES[package]) from None
        training, weights = fields.pop("training"), fields.pop("weights")
        fields |= {side: describing.tensors(fields[side], data.inputs) for side in ("inputs", "outputs")}
        described = {"kind": "source", "config_key": "model", "preprocessing": data.preprocessing, "labels": data.labels}
        artifact.write(folder, artifact.Manifest(**{**described, **fields}))
        digest = artifact.sha256(folder / weights)
    return {"schema": artifact.METRICS_SCHEMA, **training, "weights_sha256": digest}


def obtain(importer: ModuleType, settings: Any, *arguments: Any) -> Mapping[str, Any]:
    """importer.obtain, in a process of its own where the user's file could take this one with it."""
    if not importer.ISOLATED:
        training: Mapping[str, Any] = importer.obtain(settings, *arguments)
        return training

    def aborted(how: str) -> ModelError:
        return ModelError(
            f"model.path: {settings.path} makes its runtime abort ({how}); export it again, with simpler operators or newer tools"
        )

    return isolation.call(importer.obtain, settings, *arguments, aborted=aborted)


def summary(training: Mapping[str, Any]) -> str:
    """A line on how the source came about."""
    if training["accuracy_validation"] is None:
        if "loss_validation" in training:
            return f"loss on validation {training['loss_validation']:.4g}"
        tried = f", right on {training['tried_right']} of {training['tried_samples']} samples" if "tried_right" in training else ""
        return f"imported as it is{tried}"
    return f"accuracy on validation {training['accuracy_validation']:.4f} after {training['epochs']} epochs"
