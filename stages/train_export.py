"""Obtain the source: train it from nothing, continue from a checkpoint, or import the user's file.

reads   models/config.yaml (model, train, seed), models/data
writes  models/source      the float model in its native framework, its manifest, and what proves later copies of it
        metrics/train.json scores on validation and the curve; `accuracy_validation` is null where nothing was trained, or no classes
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from stages.core import artifact, config, isolation, making
from stages.core.errors import MissingExtra, ModelError, run_main
from stages.core.settings import build

DATA, SOURCE, METRICS = Path("models/data"), Path("models/source"), Path("metrics/train.json")


def main() -> None:
    configuration = config.read()
    model = configuration.model
    importer = model.load()
    settings = build(importer.Settings, model.settings, "model")
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
        fields |= {side: making.tensors(fields[side], data.inputs) for side in ("inputs", "outputs")}
        described = {"kind": "source", "config_key": "model", "preprocessing": data.preprocessing, "labels": data.labels}
        artifact.write(folder, artifact.Manifest(**{**described, **fields}))
        digest = artifact.sha256(folder / weights)
    artifact.write_json(METRICS, {"schema": artifact.METRICS_SCHEMA, **training, "weights_sha256": digest})
    for warning in training.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{SOURCE}: {model.name}, {summary(training)}")


def obtain(importer: ModuleType, settings: Any, *arguments: Any) -> Mapping[str, Any]:
    """importer.obtain, in a process of its own where the user's file could take this one with it."""
    if not importer.ISOLATED:
        return importer.obtain(settings, *arguments)

    def aborted(how: str) -> ModelError:
        return ModelError(
            f"model.path: {settings.path} makes its runtime abort ({how}); export it again, with simpler operators or newer tools"
        )

    return isolation.call(importer.obtain, settings, *arguments, aborted=aborted)


def summary(training: dict) -> str:
    if training["accuracy_validation"] is None:
        if "loss_validation" in training:
            return f"loss on validation {training['loss_validation']:.4g}"
        tried = f", right on {training['tried_right']} of {training['tried_samples']} samples" if "tried_right" in training else ""
        return f"imported as it is{tried}"
    return f"accuracy on validation {training['accuracy_validation']:.4f} after {training['epochs']} epochs"


if __name__ == "__main__":
    run_main(main)
