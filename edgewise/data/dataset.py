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
from edgewise.errors import DataError
from edgewise.plugins import Encoder, Item, Unreadable

METRICS, TARGET = Path("metrics"), Path("models/data")
FILE_SETTINGS = ("path", "weights", "teacher")  # settings of a model and of its training that name a file
ADVICE = "a folder for each class; an array y; a column with labels"
Splits = Mapping[str, np.ndarray]


def probe(data: Plugin, target: Path = METRICS / "data.json") -> Mapping[str, Any]:
    """Write the digest of the data set, and that of its label_names file; `targets` is among it where the data has no labels."""
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    names = {"label_names_sha256": file_digest(Path(settings.label_names).expanduser())} if settings.label_names else {}
    declared = {"declared": settings.declared} if settings.declared else {}
    found = {"schema": artifact.METRICS_SCHEMA, "name": data.name, **module.probe(settings), **names, **declared}
    artifact.write_json(target, found)
    return found


def check_labels(task: Plugin, probed: Mapping[str, Any]) -> None:
    """DataError if the task needs labels and the data has none, which its settings do not tell. probed: of `probe`."""
    wanted = task.load().TARGETS
    if wanted is not None and probed.get("targets") == targets.NONE:
        raise DataError(
            f"data.name: {probed['name']}: this data has no labels, but the task '{task.name}' needs {wanted}; "
            f"label it ({ADVICE}), or set task.name=none, which compares the outputs of variants alone"
        )


def probe_model(settings: Mapping[str, Any], target: Path = METRICS / "model.json") -> None:
    """Write the digest of each file that the model's settings, or those of its training, name."""
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
        items, unreadable = collect(module.items(settings), encoder, settings.targets)
        labels, encoded = targets.encode(items, settings)
        groups = splitting.number_groups(items)
        members = targets.masks_by_label(encoded, targets.find_kind(items, settings.targets), labels)
        splits = divide(items, groups, members, settings, seed)
        targets.store(folder, encoded)
        write_tables(folder, items, splits)
        details = describe(items, labels, encoded, settings) | {
            "counts": targets.count_by_split(members, splits),
            "sizes": {name: len(indices) for name, indices in splits.items()},
            **targets.count_parts(encoded, labels, splits),
            **count_samples(items, unreadable, groups, splits),
        }
        details["notes"] = [*splitting.list_warnings(details), *settings.notes]
        fields = encoder.finish(splits["train"])
        manifest = artifact.Manifest(kind="data", config_key="data", labels=tuple(labels), details=details, **fields)
        artifact.write(folder, manifest)
    return manifest


def divide(items: Sequence[Item], groups: np.ndarray, members: Mapping[str, np.ndarray], settings: Any, seed: int) -> Splits:
    """The splits, by the data's own or by data.splits. DataError if these samples are not enough for them."""

    def by(shares: splitting.Shares) -> Splits:
        return splitting.assign_splits(items, groups, shares, seed)

    splits = by(settings.splits)
    listed_elsewhere = settings.label_names is not None or settings.targets in targets.SHAPED  # these may lack samples of a class
    splitting.check_splits(members, groups, splits, settings.splits, need_every_label=not listed_elsewhere, divide=by)
    return splits


def describe(items: Sequence[Item], labels: Sequence[str], encoded: targets.Targets, settings: Any) -> dict[str, Any]:
    """What the manifest says of the labels."""
    return {
        "normal": targets.find_normal_label(items, labels, encoded, settings),
        "targets": targets.find_kind(items, settings.targets),
        "declared": settings.declared,
        "problems": targets.count_problems(items, splitting.MAX_LISTED),
    }


def collect(samples: Iterable[Item | Unreadable], encoder: Encoder, kind: str) -> tuple[list[Item], list[Unreadable]]:
    """Encode each sample as it is read; keep everything about it except its value, and its label if kind is none."""
    items, unreadable = [], []
    for item in samples:
        if isinstance(item, Unreadable):
            unreadable.append(item)
        else:
            encoder.add(item.value)
            items.append(dataclasses.replace(item, value=None, label=None if kind == targets.NONE else item.label))
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
