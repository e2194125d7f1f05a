"""prune: the source with fewer channels, trained again with the whole source as teacher, for the variants with `prune`.

    python -m stages.prune

Reads   models/source, models/data (training, validation and calibration split); prunings, train, model and seed of the configuration
Writes  models/pruned/sources/KEY: a source for each of the settings that variants name, once; KEY.json with its history
        models/pruned/VARIANT for every variant: which of them it is made from; status `skipped` where it is made of models/source,
        `failed` with the reason where the source cannot be pruned so

Finished sources also stand in models/.pruned, which DVC does not know: another pruned variant makes its own source, and the others stay.
"""

from edgewise.compress import pruned_sources
from edgewise.config import schema
from edgewise.errors import run_main

CODE = (
    "edgewise.compress.pruned_sources",
    "{source}",
    "{samples}",
    "{proof}",
    "{objectives}",
    "{trial}",
    "edgewise.sources.torch_source",
    "edgewise.sources.transformers_model",
    "edgewise.onnx_reading",
)


def main() -> None:
    configuration = schema.read()
    if not any(configuration.prunings.values()):
        print("prune: nothing to do, no variant has the setting prune")
    pruned_sources.update(configuration, schema.read_compared("prune"))


if __name__ == "__main__":
    run_main(main)
