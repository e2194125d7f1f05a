"""Read, resize and split the data: the data set of the configuration -> models/data/.

inputs/NAME.npy  one row a sample: pictures resized, uint8 [n, height, width, channels]
targets.npy      int64 [n], positions in the manifest's labels; of multi_label and values float32 [n, labels]
splits.json      {"train": [index, ...], "validation", "calibration", "test"}
files.json       [{"name", "sha256", "group"}, ...]
"""

import sys

from edgewise.config.schema import read
from edgewise.data import splitting
from edgewise.data.preparing import prepare
from edgewise.errors import run_main


def main() -> None:
    config = read()
    manifest = prepare(config.data, config.seed)
    sizes = ", ".join(f"{size} {name}" for name, size in manifest.details["sizes"].items())
    for note in splitting.notes(manifest.details):
        print(f"note: {note}", file=sys.stderr)
    print(f"{manifest.details['samples']} samples of {len(manifest.labels)} {manifest.details['targets']}: {sizes}")


if __name__ == "__main__":
    run_main(main)
