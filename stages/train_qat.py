"""train-qat: the source trained on with 8 bits simulated, for the variants of scheme int8-qat.

    python -m stages.train_qat

Reads   models/source, models/data (training, validation and calibration split); tunings, train and seed of the configuration
Writes  models/qat/SCHEME for every scheme: KEY/, a source, for each training that a variant asks for, and KEY.json with its curve;
        a manifest `skipped`, with the reason, where none does or where the source cannot be trained
"""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path

from stages.core import artifact, config
from stages.core.artifact import Manifest
from stages.core.errors import VariantFailed, run_main
from stages.core.making import SOURCE, making, tool_versions
from stages.core.variant import Tuning
from stages.importers import quantization_aware

DATA, TARGET = Path("models/data"), Path("models/qat")


def train(wanted: Mapping[str, Tuning], configuration: config.Config, folder: Path) -> None:
    artifact.require_ok(artifact.read(SOURCE), str(SOURCE))
    for key, tuning in wanted.items():
        (folder / key).mkdir()
        with making(quantization_aware.REQUIRES):
            history = quantization_aware.tune(SOURCE, DATA, tuning, configuration.train, configuration.seed, folder / key)
        artifact.write_json(folder / f"{key}.json", dict(history))


def outcome(scheme: str, wanted: Mapping[str, Tuning], configuration: config.Config, folder: Path) -> Manifest:
    made = Manifest(kind="qat", scheme=scheme, config_key=f"tunings.{scheme}")
    if not wanted:
        return dataclasses.replace(made, status="skipped", reason=f"no variant of scheme {scheme} asks for training")
    try:
        train(wanted, configuration, folder)
    except VariantFailed as failure:
        print(f"train-qat: {scheme}: skipped: {failure}", file=sys.stderr)
        return dataclasses.replace(made, status="skipped", reason=str(failure))
    return dataclasses.replace(made, tools=tool_versions(quantization_aware.REQUIRES))


def main() -> None:
    configuration = config.read()
    with artifact.building(TARGET) as folder:
        for scheme, wanted in configuration.tunings.items():
            (folder / scheme).mkdir()
            artifact.write(folder / scheme, outcome(scheme, wanted, configuration, folder / scheme))


if __name__ == "__main__":
    run_main(main)
