"""train-export: obtain the source: train it from nothing, continue from a checkpoint, or import the user's file.

    python -m stages.train_export

Reads   models/data; model, train and seed of the configuration
Writes  models/source: the float model in its native framework, its manifest, and what proves later copies of it
        metrics/train.json: scores on validation and the curve; `accuracy_validation` is null where nothing was trained, or no classes
"""

import sys
from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.sources.obtaining import SOURCE, summary, write_source

CODE = (
    "edgewise.sources.obtaining",
    "{source}",
    "edgewise.proof.describing",
    "edgewise.artifacts.samples",
    "edgewise.agent.preprocess",
    "edgewise.agent.sessions",
    "edgewise.stats.paired",
)

METRICS = Path("metrics/train.json")


def main() -> None:
    configuration = schema.read()
    training = write_source(configuration)
    artifact.write_json(METRICS, training)
    for warning in training.get("warnings", ()):
        print(f"warning: {warning}", file=sys.stderr)
    print(f"{SOURCE}: {configuration.model.name}, {summary(training)}")


if __name__ == "__main__":
    run_main(main)
