"""Read, resize and split the data: the data set of the configuration -> models/data/.

inputs/NAME.npy  one row a sample: pictures resized, uint8 [n, height, width, channels]
targets.npy      int64 [n], positions in the manifest's labels
splits.json      {"train": [index, ...], "validation", "calibration", "test"}
files.json       [{"name", "sha256", "group"}, ...]
"""

import dataclasses
import importlib.metadata
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact, splitting
from stages.core.config import Plugin, read
from stages.core.errors import DataError, run_main
from stages.core.plugins import Encoder, Item, Unreadable
from stages.core.settings import build

TARGET = Path("models/data")
NAMED = 20  # so many unreadable samples, or copies, are named in the manifest; all are counted


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
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for item in items:
        if item.group is not None:
            parent[root(item.sha256)] = root(f"group {item.group}")
    return np.unique([root(item.sha256) for item in items], return_inverse=True)[1]


def copies(items: Sequence[Item]) -> dict[str, Any]:
    """Samples with the same content as one before, and those of them that have another label."""
    first: dict[str, Item] = {}
    again = [(first[item.sha256], item) for item in items if first.setdefault(item.sha256, item) is not item]
    torn = [f"{one.name} = {other.name}" for one, other in again if one.label != other.label]
    return {"count": len(again), "with_another_label": len(torn), "named": torn[:NAMED]}


def check(targets: np.ndarray, groups: np.ndarray, splits: Mapping[str, np.ndarray], labels: Sequence[str]) -> None:
    """DataError unless every split has samples, and train and test have some of every class."""
    for name, indices in splits.items():
        if not len(indices):
            raise DataError(
                f"data: {len(targets)} samples in {len(set(groups))} groups leave {name} empty; add samples or raise data.splits"
            )
    for number, label in enumerate(labels):
        mine = targets == number
        if any(not mine[splits[name]].any() for name in ("train", "test")):
            raise DataError(
                f"data: class {label!r} has {mine.sum()} samples in {len(set(groups[mine]))} groups, too few to learn from some and test "
                "on others; add more of it, or take it out"
            )


def label_of(items: Sequence[Item]) -> list[str]:
    labels = sorted({item.label for item in items})
    if len(labels) < 2:
        raise DataError(f"data: {len(items)} samples of {len(labels)} class {labels}; two classes or more are needed to tell them apart")
    return labels


def prepare(data: Plugin, seed: int, target: Path = TARGET, models: Path = Path("models")) -> artifact.Manifest:
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    with artifact.building(target, models) as folder:
        encoder = module.encoder(settings, folder / "inputs")
        items, unreadable = collect(module.items(settings), encoder)
        labels = label_of(items)
        targets = np.array([labels.index(item.label) for item in items], np.int64)
        groups = number_groups(items)
        splits = splitting.split(targets, groups, settings.splits, seed)
        check(targets, groups, splits, labels)
        np.save(folder / "targets.npy", targets)
        artifact.write_json(folder / "splits.json", {name: indices.tolist() for name, indices in splits.items()})
        artifact.write_json(folder / "files.json", [{"name": i.name, "sha256": i.sha256, "group": i.group} for i in items])
        details = {
            "counts": splitting.counts(targets, splits, labels),
            "samples": len(items),
            "groups": len(set(groups)),
            "copies": copies(items),
            "unreadable": {"count": len(unreadable), "named": {u.name: u.reason for u in unreadable[:NAMED]}},
        }
        manifest = artifact.Manifest(
            kind="data", config_key="data", labels=tuple(labels), details=details, tools=tools(), **encoder.finish(splits["train"])
        )
        artifact.write(folder, manifest)
    return manifest


def tools() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("numpy", "pillow")}


def notes(details: Mapping[str, Any]) -> list[str]:
    """What the user should know although nothing is wrong enough to stop."""
    found = []
    if details["unreadable"]["count"]:
        found.append(f"{details['unreadable']['count']} samples could not be read and are left out: {details['unreadable']['named']}")
    if details["copies"]["with_another_label"]:
        found.append(
            f"{details['copies']['with_another_label']} samples have a copy with another label: {', '.join(details['copies']['named'])}"
        )
    for name, by_label in details["counts"].items():
        absent = [label for label, count in by_label.items() if not count]
        if absent:
            found.append(f"{name} has no sample of: {', '.join(absent)}")
    return found


def main() -> None:
    config = read()
    manifest = prepare(config.data, config.seed)
    sizes = ", ".join(f"{sum(by_label.values())} {name}" for name, by_label in manifest.details["counts"].items())
    for note in notes(manifest.details):
        print(f"note: {note}", file=sys.stderr)
    print(f"{manifest.details['samples']} samples of {len(manifest.labels)} classes: {sizes}")


if __name__ == "__main__":
    run_main(main)
