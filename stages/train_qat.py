"""train-qat: the source fine-tuned with fake quantization, for the variants of scheme int8-qat.

    python -m stages.train_qat

Reads   models/source, models/data (training, validation and calibration split); tunings, train and seed of the configuration
Writes  models/qat/SCHEME for every scheme: KEY/, a source, for each training that a variant needs, and KEY.json with its history;
        a manifest with status `skipped` and the reason where no variant needs one or the source cannot be trained
"""

from pathlib import Path

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.compress import qat
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.proof.making import SOURCE, find_tool_versions, translate_errors, write_schemes

CODE = (
    "edgewise.compress.qat",
    "{samples}",
    "{proof}",
    "{objectives}",
    "edgewise.sources.torch_source",
    "edgewise.sources.transformers_model",
)

DATA, TARGET = Path("models/data"), Path("models/qat")


def train(scheme: str, configuration: schema.Config, folder: Path) -> Manifest:
    """Run all trainings of one scheme, into `folder`. VariantFailed where this source cannot be trained."""
    artifact.require_ok(artifact.read(SOURCE), str(SOURCE))
    for key, tuning in configuration.tunings[scheme].items():
        (folder / key).mkdir()
        with translate_errors(qat.REQUIRES):
            history = qat.fine_tune(SOURCE, DATA, tuning, configuration.train, configuration.seed, folder / key)
        artifact.write_json(folder / f"{key}.json", dict(history))
    return Manifest(kind="qat", scheme=scheme, config_key=f"tunings.{scheme}", tools=find_tool_versions(qat.REQUIRES))


def main() -> None:
    configuration = schema.read()
    if not any(configuration.tunings.values()):
        print("train-qat: nothing to do, no variant has the scheme int8-qat")
    write_schemes(TARGET, configuration.tunings, Manifest(kind="qat"), lambda scheme, folder: train(scheme, configuration, folder))


if __name__ == "__main__":
    run_main(main)
