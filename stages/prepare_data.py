"""Read, resize and split the data: the data set of the configuration -> models/data/.

inputs/NAME.npy  one row a sample: pictures resized, uint8 [n, height, width, channels]
targets.npy      int64 [n], positions in the manifest's labels
splits.json      {"train": [index, ...], "validation", "calibration", "test"}
files.json       [{"name", "sha256", "group"}, ...]
"""

import dataclasses
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact, data_notes, splitting
from stages.core.config import Plugin, read
from stages.core.errors import DataError, run_main
from stages.core.plugins import Encoder, Item, Unreadable
from stages.core.settings import build, nearest

TARGET = Path("models/data")
Splits = Mapping[str, np.ndarray]


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


def name_targets(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The labels, in the data set's order, and the position in them of each sample, int64 [n]. DataError unless there are at least two."""
    names = [settings.target(item.label) for item in items]
    labels, number = settings.number(set(names))
    if len(labels) < 2:
        raise DataError(
            f"data: {len(items)} samples of {len(labels)} class {', '.join(labels)}; two classes or more are needed to tell them apart"
        )
    if settings.normal is not None and settings.normal not in names:
        raise DataError(f"data.normal: no sample has the label {settings.normal!r}; {nearest(settings.normal, set(names))}")
    return labels, np.array([number[name] for name in names], np.int64)


def describe(items: Sequence[Item], unreadable: Sequence[Unreadable], groups: np.ndarray, splits: Splits) -> dict[str, Any]:
    return {
        "samples": len(items),
        "groups": len(set(groups)),
        "groups_in_two_splits": data_notes.shared(groups, splits),
        "copies": data_notes.copies(items),
        "unreadable": {"count": len(unreadable), "named": {u.name: u.reason for u in unreadable[: data_notes.NAMED]}},
    }


def write_tables(folder: Path, items: Sequence[Item], targets: np.ndarray, splits: Splits) -> None:
    np.save(folder / "targets.npy", targets)
    artifact.write_json(folder / "splits.json", {name: indices.tolist() for name, indices in splits.items()})
    artifact.write_json(folder / "files.json", [{"name": i.name, "sha256": i.sha256, "group": i.group} for i in items])


def prepare(data: Plugin, seed: int, target: Path = TARGET, models: Path = Path("models")) -> artifact.Manifest:
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    with artifact.building(target, models) as folder:
        encoder = module.encoder(settings, folder)
        items, unreadable = collect(module.items(settings), encoder)
        labels, targets = name_targets(items, settings)
        groups = splitting.number_groups(items)
        splits = splitting.divide(items, groups, settings.splits, seed)
        splitting.check(targets, groups, splits, labels, settings.splits, learned=settings.label_names is None)
        write_tables(folder, items, targets, splits)
        details = {"normal": settings.normal, "counts": splitting.counts(targets, splits, labels)}
        details |= describe(items, unreadable, groups, splits)
        fields = encoder.finish(splits["train"])
        manifest = artifact.Manifest(kind="data", config_key="data", labels=tuple(labels), details=details, **fields)
        artifact.write(folder, manifest)
    return manifest


def main() -> None:
    config = read()
    manifest = prepare(config.data, config.seed)
    sizes = ", ".join(f"{sum(by_label.values())} {name}" for name, by_label in manifest.details["counts"].items())
    for note in data_notes.notes(manifest.details):
        print(f"note: {note}", file=sys.stderr)
    print(f"{manifest.details['samples']} samples of {len(manifest.labels)} classes: {sizes}")


if __name__ == "__main__":
    run_main(main)
