"""train-export: obtain the source: train it from scratch or from a checkpoint, or import the user's file.

    python -m stages.train_export

Reads   models/data; model, train and seed of the configuration
Writes  models/source: the float model in its native framework, its manifest, and the probe outputs that variants are compared with
        metrics/train.json: scores on validation and the curve; `accuracy_validation` is null if nothing was trained or
        the targets are not classes
"""

import sys
from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.sources.model_source import SOURCE, summarize, write_source

CODE = ("edgewise.sources.model_source", "{source}", "{samples}", "{proof}", "{objectives}", "{trial}", "edgewise.onnx_reading")

METRICS = Path("metrics/train.json")


def main() -> None:
    configuration = schema.read()
    training = write_source(configuration)
    artifact.write_json(METRICS, training)
    for warning in training.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{SOURCE}: {configuration.model.name}, {summarize(training)}")


if __name__ == "__main__":
    run_main(main)
