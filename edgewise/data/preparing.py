"""Read, resize and split a data set, once: the folder models/data of all later stages."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact, samples
from edgewise.config.schema import Plugin
from edgewise.config.settings import build
from edgewise.data import splitting
from edgewise.plugins import Encoder, Item, Unreadable

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


def describe(items: Sequence[Item], unreadable: Sequence[Unreadable], groups: np.ndarray, splits: Splits) -> dict[str, Any]:
    return {
        "samples": len(items),
        "groups": len(set(groups)),
        "groups_in_two_splits": splitting.shared(groups, splits),
        "copies": splitting.copies(items),
        "unreadable": {"count": len(unreadable), "named": {u.name: u.reason for u in unreadable[: splitting.NAMED]}},
    }


def write_tables(folder: Path, items: Sequence[Item], answers: np.ndarray, splits: Splits) -> None:
    np.save(folder / "targets.npy", answers)
    artifact.write_json(folder / "splits.json", {name: indices.tolist() for name, indices in splits.items()})
    artifact.write_json(folder / "files.json", [{"name": i.name, "sha256": i.sha256, "group": i.group} for i in items])


def prepare(data: Plugin, seed: int, target: Path = TARGET, models: Path = Path("models")) -> artifact.Manifest:
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    with artifact.building(target, models) as folder:
        encoder = module.encoder(settings, folder)
        items, unreadable = collect(module.items(settings), encoder)
        labels, answers = samples.named(items, settings)
        groups = splitting.number_groups(items)
        splits = splitting.divide(items, groups, settings.splits, seed)
        members = samples.members(answers, settings.targets, labels)
        splitting.check(members, groups, splits, settings.splits, learned=settings.label_names is None)
        write_tables(folder, items, answers, splits)
        details = {
            "normal": samples.normal(items, labels, answers, settings),
            "targets": settings.targets,
            "counts": samples.counts(members, splits),
            "sizes": {name: len(indices) for name, indices in splits.items()},
        }
        details |= describe(items, unreadable, groups, splits)
        fields = encoder.finish(splits["train"])
        manifest = artifact.Manifest(kind="data", config_key="data", labels=tuple(labels), details=details, **fields)
        artifact.write(folder, manifest)
    return manifest
