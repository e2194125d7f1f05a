"""The user's data set and model files: fingerprint them (probe-data), and read, resize and split the samples (prepare-data)."""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact, targets
from edgewise.config.schema import Plugin
from edgewise.config.settings import build
from edgewise.data import splitting
from edgewise.plugins import Encoder, Item, Unreadable

METRICS, TARGET = Path("metrics"), Path("models/data")
FILE_SETTINGS = ("path", "weights")  # settings of a model that name a file
Splits = Mapping[str, np.ndarray]


def probe(data: Plugin, target: Path = METRICS / "data.json") -> None:
    """Write the digest of the data set, and that of its label_names file."""
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    names = {"label_names_sha256": file_digest(Path(settings.label_names).expanduser())} if settings.label_names else {}
    artifact.write_json(target, {"schema": artifact.METRICS_SCHEMA, "name": data.name, **module.probe(settings), **names})


def probe_model(settings: Mapping[str, Any], target: Path = METRICS / "model.json") -> None:
    """Write the digest of each file that the model's settings name."""
    paths = {key: Path(settings[key]) for key in FILE_SETTINGS if isinstance(settings.get(key), str)}
    digests = {key: digest for key, path in paths.items() if (digest := file_digest(path))}
    artifact.write_json(target, {"schema": artifact.METRICS_SCHEMA, "sha256": digests})


def file_digest(path: Path) -> str | None:
    """sha256 of a file; of a folder (a SavedModel), that of the names and hashes of its files. None if it does not exist, which the stage
    that needs it reports."""
    if not path.exists():
        return None
    if path.is_file():
        return artifact.sha256(path)
    listing = [f"{name} {entry['sha256']}" for name, entry in artifact.describe_files(path).items()]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def prepare(data: Plugin, seed: int, target: Path = TARGET, models: Path = Path("models")) -> artifact.Manifest:
    """Write models/data. DataError if the samples cannot be read, labelled or split."""
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    with artifact.building(target, models) as folder:
        encoder = module.encoder(settings, folder)
        items, unreadable = collect(module.items(settings), encoder)
        kind = targets.find_kind(items, settings.targets)
        labels, encoded = targets.encode(items, settings)
        groups = splitting.number_groups(items)
        splits = splitting.assign_splits(items, groups, settings.splits, seed)
        members = targets.masks_by_label(encoded, kind, labels)
        splitting.check_splits(members, groups, splits, settings.splits, need_every_label=settings.label_names is None)
        targets.store(folder, encoded)
        write_tables(folder, items, splits)
        details = {
            "normal": targets.find_normal_label(items, labels, encoded, settings),
            "targets": kind,
            "counts": targets.count_by_split(members, splits),
            "sizes": {name: len(indices) for name, indices in splits.items()},
        }
        details |= count_samples(items, unreadable, groups, splits)
        fields = encoder.finish(splits["train"])
        manifest = artifact.Manifest(kind="data", config_key="data", labels=tuple(labels), details=details, **fields)
        artifact.write(folder, manifest)
    return manifest


def collect(samples: Iterable[Item | Unreadable], encoder: Encoder) -> tuple[list[Item], list[Unreadable]]:
    """Encode each sample as it is read; keep everything about it except its value."""
    items, unreadable = [], []
    for item in samples:
        if isinstance(item, Unreadable):
            unreadable.append(item)
        else:
            encoder.add(item.value)
            items.append(dataclasses.replace(item, value=None))
    return items, unreadable


def count_samples(items: Sequence[Item], unreadable: Sequence[Unreadable], groups: np.ndarray, splits: Splits) -> dict[str, Any]:
    return {
        "samples": len(items),
        "groups": len(set(groups)),
        "groups_in_two_splits": splitting.count_shared_groups(groups, splits),
        "copies": splitting.find_copies(items),
        "unreadable": {"count": len(unreadable), "named": {u.name: u.reason for u in unreadable[: splitting.MAX_LISTED]}},
    }


def write_tables(folder: Path, items: Sequence[Item], splits: Splits) -> None:
    artifact.write_json(folder / "splits.json", {name: indices.tolist() for name, indices in splits.items()})
    artifact.write_json(folder / "files.json", [{"name": i.name, "sha256": i.sha256, "group": i.group} for i in items])
