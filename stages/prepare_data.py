"""prepare-data: read, resize and split the data set.

    python -m stages.prepare_data

Reads   the data set that the configuration names; data and seed of the configuration
Writes  models/data:
        inputs/NAME.npy  one row per sample; pictures are resized, uint8 [n, height, width, channels]
        targets.npy      int64 [n], indices in the manifest's labels; for multi_label and values float32 [n, labels];
                         not there if the data has no labels
        splits.json      {"train": [index, ...], "validation", "calibration", "test"}
        files.json       [{"name", "sha256", "group"}, ...]
"""

import sys

from edgewise.config.schema import read
from edgewise.data import splitting
from edgewise.data.dataset import prepare
from edgewise.errors import run_main

CODE = ("edgewise.data.dataset", "{data}", "edgewise.artifacts.artifact", "edgewise.artifacts.targets", "edgewise.agent.preprocess")


def main() -> None:
    config = read()
    manifest = prepare(config.data, config.seed)
    sizes = ", ".join(f"{size} {name}" for name, size in manifest.details["sizes"].items())
    for warning in splitting.list_warnings(manifest.details):
        print(f"note: {warning}", file=sys.stderr)
    print(f"{manifest.details['samples']} samples of {len(manifest.labels)} {manifest.details['targets']}: {sizes}")


if __name__ == "__main__":
    run_main(main)
