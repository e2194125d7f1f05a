"""What tells that the user's data or model files have changed."""

import hashlib
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact
from edgewise.config.schema import Plugin
from edgewise.config.settings import build

METRICS = Path("metrics")


def probe(data: Plugin, target: Path = METRICS / "data.json") -> None:
    module = data.load()
    settings = build(module.Settings, data.settings, "data")
    names = {"label_names_sha256": digest(Path(settings.label_names).expanduser())} if settings.label_names else {}
    artifact.write_json(target, {"schema": artifact.METRICS_SCHEMA, "name": data.name, **module.probe(settings), **names})


def digest(path: Path) -> str | None:
    """sha256 of a file; of a folder (a SavedModel), that of its files' names and hashes; None where there is nothing, which a later
    stage names."""
    if not path.exists():
        return None
    if path.is_file():
        return artifact.sha256(path)
    listing = [f"{name} {entry['sha256']}" for name, entry in artifact.describe_files(path).items()]
    return hashlib.sha256("\n".join(listing).encode()).hexdigest()


def probe_model(settings: dict[str, Any], target: Path = METRICS / "model.json") -> None:
    named = {key: Path(settings[key]) for key in ("path", "weights") if isinstance(settings.get(key), str)}
    files = {key: found for key, path in named.items() if (found := digest(path))}
    artifact.write_json(target, {"schema": artifact.METRICS_SCHEMA, "sha256": files})
