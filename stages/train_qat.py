"""train-qat: the source trained on with 8 bits simulated, for the variants of scheme int8-qat.

    python -m stages.train_qat

Reads   models/source, models/data (training, validation and calibration split); tunings, train and seed of the configuration
Writes  models/qat/SCHEME for every scheme: KEY/, a source, for each training that a variant asks for, and KEY.json with its curve;
        a manifest `skipped`, with the reason, where none does or where the source cannot be trained
"""

from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.compress import qat
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.proof.describing import SOURCE, by_scheme, making, tool_versions

DATA, TARGET = Path("models/data"), Path("models/qat")


def train(scheme: str, configuration: schema.Config, folder: Path) -> Manifest:
    """Do the trainings of one scheme into `folder`. VariantFailed where this source cannot be trained."""
    artifact.require_ok(artifact.read(SOURCE), str(SOURCE))
    for key, tuning in configuration.tunings[scheme].items():
        (folder / key).mkdir()
        with making(qat.REQUIRES):
            history = qat.tune(SOURCE, DATA, tuning, configuration.train, configuration.seed, folder / key)
        artifact.write_json(folder / f"{key}.json", dict(history))
    return Manifest(kind="qat", scheme=scheme, config_key=f"tunings.{scheme}", tools=tool_versions(qat.REQUIRES))


def main() -> None:
    configuration = schema.read()
    by_scheme(TARGET, configuration.tunings, Manifest(kind="qat"), lambda scheme, folder: train(scheme, configuration, folder))


if __name__ == "__main__":
    run_main(main)
