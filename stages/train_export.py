"""Obtain the source: train it from nothing, continue from a checkpoint, or import the user's file.

reads   models/config.yaml (model, train, seed), models/data
writes  models/source      the float model in its native framework, its manifest, and what proves later copies of it
        metrics/train.json scores on validation and the curve; `accuracy_validation` is null where nothing was trained
"""

from pathlib import Path

from stages.core import artifact, config, making
from stages.core.errors import MissingExtra, run_main
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
            fields = dict(importer.obtain(settings, DATA, configuration.train, configuration.seed, folder))
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
    artifact.write_json(METRICS, {"schema": artifact.SCHEMA, **training, "weights_sha256": digest})
    print(f"{SOURCE}: {model.name}, {summary(training)}")


def summary(training: dict) -> str:
    if training["accuracy_validation"] is None:
        return "imported as it is"
    return f"accuracy on validation {training['accuracy_validation']:.4f} after {training['epochs']} epochs"


if __name__ == "__main__":
    run_main(main)
