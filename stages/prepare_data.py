"""Read, resize and split the data: the data set of the configuration -> models/data/.

inputs/NAME.npy  one row a sample: pictures resized, uint8 [n, height, width, channels]
targets.npy      int64 [n], positions in the manifest's labels
splits.json      {"train": [index, ...], "validation", "calibration", "test"}
files.json       [{"name", "sha256", "group"}, ...]
"""

import dataclasses
import importlib.metadata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact, splitting
from stages.core.config import Plugin, read
from stages.core.errors import run_main
from stages.core.plugins import Encoder, Item, Unreadable
from stages.core.settings import build

TARGET = Path("models/data")
NAMED = 20  # so many unreadable samples are named in the manifest; all are counted
TOOLS = ("numpy", "pillow")


def collect(found: Iterable[Item | Unreadable], encoder: Encoder) -> tuple[list[Item], list[Unreadable]]:
    """Encode each sample as it comes; keep everything about it but its value."""
    items, unreadable = [], []
    for item in found:
        if isinstance(item, Unreadable):
            unreadable.append(item)
        else:
            encoder.add(item.value)
            items.append(dataclasses.replace(item, value=None))
    return items, unreadable


def number_groups(items: Sequence[Item]) -> np.ndarray:
    """A number for each sample, int [n]: the same for samples that share a group or, as copies of one file, their hash."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(item.group or item.sha256, len(numbers)) for item in items])


def describe(items: list[Item], unreadable: list[Unreadable], counts: dict[str, dict[str, int]], groups: int) -> dict[str, Any]:
    return {
        "counts": counts,
        "samples": len(items),
        "groups": groups,
        "unreadable": {"count": len(unreadable), "named": {u.name: u.reason for u in unreadable[:NAMED]}},
    }


def prepare(data: Plugin, seed: int, target: Path = TARGET, models: Path = Path("models")) -> artifact.Manifest:
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    with artifact.building(target, models) as folder:
        encoder = module.encoder(settings, folder / "inputs")
        items, unreadable = collect(module.items(settings), encoder)
        labels = sorted({item.label for item in items})
        targets = np.array([labels.index(item.label) for item in items], np.int64)
        groups = number_groups(items)
        splits = splitting.split(targets, groups, settings.splits, seed)
        fields = encoder.finish(splits["train"])
        np.save(folder / "targets.npy", targets)
        artifact.write_json(folder / "splits.json", {name: indices.tolist() for name, indices in splits.items()})
        artifact.write_json(folder / "files.json", [{"name": i.name, "sha256": i.sha256, "group": i.group} for i in items])
        details = describe(items, unreadable, splitting.counts(targets, splits, labels), len(set(groups)))
        tools = {name: importlib.metadata.version(name) for name in TOOLS}
        manifest = artifact.Manifest(kind="data", config_key="data", labels=tuple(labels), details=details, tools=tools, **fields)
        artifact.write(folder, manifest)
    return manifest


def main() -> None:
    config = read()
    manifest = prepare(config.data, config.seed)
    sizes = ", ".join(f"{sum(by_label.values())} {name}" for name, by_label in manifest.details["counts"].items())
    print(f"{manifest.details['samples']} samples of {len(manifest.labels)} classes: {sizes}")


if __name__ == "__main__":
    run_main(main)
