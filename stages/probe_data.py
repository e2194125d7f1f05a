"""Notice that what the user brings has changed: the data set, and the files that the model's settings name.

    python -m stages.probe_data

Reads   the data and model sections of models/config.yaml
Writes  metrics/data.json   the digest of the data set
        metrics/model.json  sha256 of each file that a model setting names (weights, path)

Runs always; the stages after it only when a digest differs.
"""

from edgewise.config.schema import read
from edgewise.data.probing import probe, probe_model
from edgewise.errors import run_main


def main() -> None:
    configuration = read()
    probe(configuration.data)
    probe_model(configuration.model.settings)


if __name__ == "__main__":
    run_main(main)
