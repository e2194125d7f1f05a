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
from stages.core.settings import build, nearest

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


def copies(items: Sequence[Item]) -> dict[str, Any]:
    """Samples with the same content as one before, and those of them that have another label."""
    first: dict[str, Item] = {}
    again = [(first[item.sha256], item) for item in items if first.setdefault(item.sha256, item) is not item]
    torn = [f"{one.name} = {other.name}" for one, other in again if one.label != other.label]
    return {"count": len(again), "with_another_label": len(torn), "named": torn[:NAMED]}


def name_targets(items: Sequence[Item], settings: Any) -> tuple[list[str], np.ndarray]:
    """The labels, sorted, and the position in them of each sample, int64 [n]. DataError unless there are at least two."""
    names = [settings.target(item.label) for item in items]
    labels = sorted(set(names))
    if len(labels) < 2:
        raise DataError(
            f"data: {len(items)} samples of {len(labels)} class {', '.join(labels)}; two classes or more are needed to tell them apart"
        )
    if settings.normal is not None and settings.normal not in labels:
        raise DataError(f"data.normal: no sample has the label {settings.normal!r}; {nearest(settings.normal, labels)}")
    number = {label: i for i, label in enumerate(labels)}
    return labels, np.array([number[name] for name in names], np.int64)


def prepare(data: Plugin, seed: int, target: Path = TARGET, models: Path = Path("models")) -> artifact.Manifest:
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    with artifact.building(target, models) as folder:
        encoder = module.encoder(settings, folder / "inputs")
        items, unreadable = collect(module.items(settings), encoder)
        labels, targets = name_targets(items, settings)
        groups = splitting.number_groups(items)
        splits = splitting.divide(items, groups, settings.splits, seed)
        splitting.check(targets, groups, splits, labels)
        np.save(folder / "targets.npy", targets)
        artifact.write_json(folder / "splits.json", {name: indices.tolist() for name, indices in splits.items()})
        artifact.write_json(folder / "files.json", [{"name": i.name, "sha256": i.sha256, "group": i.group} for i in items])
        manifest = artifact.Manifest(
            kind="data",
            config_key="data",
            labels=tuple(labels),
            details={
                "normal": settings.normal,
                "counts": splitting.counts(targets, splits, labels),
                "samples": len(items),
                "groups": len(set(groups)),
                "groups_in_two_splits": shared(groups, splits),
                "copies": copies(items),
                "unreadable": {"count": len(unreadable), "named": {u.name: u.reason for u in unreadable[:NAMED]}},
            },
            tools={name: importlib.metadata.version(name) for name in ("numpy", "pillow")},
            **encoder.finish(splits["train"]),
        )
        artifact.write(folder, manifest)
    return manifest


def shared(groups: np.ndarray, splits: Mapping[str, np.ndarray]) -> int:
    """Groups in more than one split: only where the data brings splits that are not clean."""
    return sum(len(set(groups[indices])) for indices in splits.values()) - len(set(groups))


def notes(details: Mapping[str, Any]) -> list[str]:
    """What the user should know although nothing is wrong enough to stop."""
    unreadable, copied, leaks = details["unreadable"], details["copies"], details["groups_in_two_splits"]
    found = []
    if unreadable["count"]:
        named = "; ".join(f"{name}: {reason}" for name, reason in unreadable["named"].items())
        found.append(f"{unreadable['count']} samples could not be read and are left out: {named}")
    if copied["with_another_label"]:
        found.append(f"{copied['with_another_label']} samples have a copy with another label: {', '.join(copied['named'])}")
    if leaks:
        found.append(f"{leaks} groups (or copies of a file) are in two of the splits that the data brings: scores will be too good")
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
