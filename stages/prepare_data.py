"""prepare-data: read, resize and split the data set.

    python -m stages.prepare_data

Reads   the data set that the configuration names; data and seed of the configuration
Writes  models/data:
        inputs/NAME.npy  one row per sample; pictures are resized, uint8 [n, height, width, channels]
                         with data.resize=as_is all pixels of all pictures, uint8 [pixels, channels]
        targets.npy      int64 [n], indices in the manifest's labels; for multi_label and values float32 [n, labels]; for boxes and masks
                         targets.npz, see edgewise.artifacts.targets; not there if the data has no labels
        sizes.npy        of pictures: int32 [n, 2], height and width of each as its file has it
        shapes.npy       with data.resize=as_is: int32 [n, 2], height and width of each as it is stored, with its bars
        splits.json      {"train": [index, ...], "validation", "calibration", "test"}
        files.json       [{"name", "sha256", "group"}, ...]
"""

import sys

from edgewise.artifacts import targets
from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import read
from edgewise.data.dataset import prepare
from edgewise.errors import run_main

CODE = (
    "edgewise.data.dataset",
    "{data}",
    "edgewise.artifacts.artifact",
    "edgewise.artifacts.targets",
    "edgewise.agent.preprocess",
    "edgewise.agent.ragged",
)


def main() -> None:
    config = read()
    manifest = prepare(config.data, config.seed)
    sizes = ", ".join(f"{size} {name}" for name, size in manifest.details["sizes"].items())
    for note in manifest.details["notes"]:
        print(f"note: {note}", file=sys.stderr)
    print(f"{manifest.details['samples']} samples, {describe_targets(manifest)}: {sizes}")


def describe_targets(manifest: Manifest) -> str:
    """3 classes; boxes of 80 classes; no labels."""
    count, kind = len(manifest.labels), manifest.details["targets"]
    if kind == targets.NONE:
        return "no labels"
    return f"{kind} of {count} classes" if kind in targets.SHAPED else f"{count} {kind}"


if __name__ == "__main__":
    run_main(main)
