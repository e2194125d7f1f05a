"""Artifacts: folders with a manifest.json, written completely or not at all.

A stage writes into models/.tmp/ and the folder is renamed when it is complete, so a killed stage leaves nothing that could be taken for
a result. Manifests hold no times and no host names: the same inputs give the same bytes.
"""

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgewise.errors import STORAGE_ERRNOS, EdgewiseError, ModelError, StorageError, VariantFailed

SCHEMA = 1
METRICS_SCHEMA = 2  # of the JSON files in metrics/; schema 1 had flat records
SCORES = ("logits", "probabilities")  # meanings of the output with one value for each label
MAX_LISTED = 5  # labels in an error message
MANIFEST = "manifest.json"
MIN_FREE_BYTES = 2**20  # with less than this free, a failed write is blamed on the disk


@dataclass(frozen=True)
class Port:
    """One input or output of a model, as its file has it. `shape` has None for a size that is free; `meaning` is image, logits, ids ...

    sample_axis: the axis that counts samples; None: one sample a run, without an axis for it. value: of a constant input, which no sample
    changes. state: of an input that carries state, the output whose value it gets in the next step; it starts with zeros.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    layout: str | None = None
    meaning: str | None = None
    sample_axis: int | None = 0
    value: Any = None
    state: str | None = None


def plan_ports(inputs: Sequence[Port], outputs: Sequence[Port]) -> dict[str, dict[str, Any]]:
    """The content of ports.json (see agent.ports): the ports that are a constant, carry state or have samples elsewhere than first."""
    sides = {"inputs": inputs, "outputs": outputs}
    return {side: {port.name: entry for port in ports if (entry := _describe_port(port))} for side, ports in sides.items()}


def _describe_port(port: Port) -> dict[str, Any]:
    entry: dict[str, Any] = {"sample_axis": port.sample_axis} if port.sample_axis != 0 else {}
    entry |= {"value": port.value, "dtype": port.dtype} if port.value is not None else {}
    return entry | ({"state": port.state, "dtype": port.dtype, "shape": list(port.shape)} if port.state is not None else {})


@dataclass(frozen=True)
class Manifest:
    """What an artifact is. `status` is ok, failed (deterministic, with the reason), skipped (nothing needs it) or none (there is nothing
    to hold). `config_key` names the part of models/config.yaml that it was made from."""

    kind: str
    status: str = "ok"
    reason: str | None = None
    format: str | None = None
    scheme: str | None = None
    config_key: str | None = None
    inputs: tuple[Port, ...] = ()
    outputs: tuple[Port, ...] = ()
    preprocessing: Mapping[str, Any] | None = None
    labels: tuple[str, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)
    tools: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    schema: int = SCHEMA

    @property
    def ok(self) -> bool:
        return self.status == "ok"

    @property
    def stateful(self) -> bool:
        """Whether the model carries state, so that a sample is a sequence of steps."""
        return any(port.state is not None for port in self.inputs)

    @property
    def fed(self) -> tuple[Port, ...]:
        """The inputs that samples feed, as callers of a session see them: samples first, then steps where there is state."""
        return tuple(self._seen(port) for port in self.inputs if port.value is None and port.state is None)

    @property
    def answered(self) -> tuple[Port, ...]:
        """The outputs as callers of a session see them: those that feed state are not among them, unless there are no others."""
        carried = {port.state for port in self.inputs}
        answers = [port for port in self.outputs if port.name not in carried] or self.outputs
        return tuple(self._seen(port) for port in answers)

    def _seen(self, port: Port) -> Port:
        rest = [size for place, size in enumerate(port.shape) if place != port.sample_axis]
        first = None if port.sample_axis is None else port.shape[port.sample_axis]
        return replace(port, shape=(first, *([None] if self.stateful else []), *rest), sample_axis=0)

    @property
    def scored(self) -> Port | None:
        """The output with one value for each label, if there is one."""
        return next((port for port in self.outputs if port.meaning in SCORES), None)

    @property
    def size_bytes(self) -> int:
        return sum(entry["bytes"] for entry in self.files.values())


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read(folder: Path) -> Manifest:
    """The manifest of an artifact. EdgewiseError if there is none, or it has another schema."""
    path = Path(folder) / MANIFEST
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EdgewiseError(f"{path} does not exist: run `dvc repro` so that the stage before this one writes it") from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise EdgewiseError(f"{path} is not JSON ({error}): delete {folder} and run `dvc repro`") from None
    schema = raw.get("schema") if isinstance(raw, dict) else None
    if schema != SCHEMA:
        raise EdgewiseError(f"{path} has schema {schema}, this Edgewise reads {SCHEMA}: run `dvc repro --force`")
    try:
        tensors = {side: tuple(Port(**{**t, "shape": tuple(t["shape"])}) for t in raw.pop(side)) for side in ("inputs", "outputs")}
        return Manifest(**{**raw, **tensors, "labels": tuple(raw["labels"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EdgewiseError(f"{path} is no manifest ({type(error).__name__}: {error}): delete {folder} and run `dvc repro`") from None


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and bytes of every file in `folder`, except its own manifest."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    return {str(p.relative_to(folder)): {"sha256": sha256(p), "bytes": p.stat().st_size} for p in paths}


def write(folder: Path, manifest: Manifest) -> None:
    """Write the manifest, with the hash of each file beside it; call this last."""
    content = {**asdict(manifest), "files": describe_files(folder)}
    write_json(folder / MANIFEST, content)


def write_json(path: Path, content: Any) -> None:
    """Write JSON with sorted keys through a temporary file, so that no reader sees an incomplete one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_space(folder: Path, error: Exception) -> None:
    """StorageError if the disk is full: numpy, torch and the converters report that in their own ways, or as a failed conversion, which
    must not be recorded as a failure of the variant."""
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        advice = STORAGE_ERRNOS[errno.ENOSPC]
        raise StorageError(f"No space left on device: {free} bytes are free below {folder.parent.parent}/; {advice}") from error


@contextlib.contextmanager
def building(target: Path, models: Path = Path("models")) -> Iterator[Path]:
    """A folder in models/.tmp/ that replaces `target` when the block succeeds, and is removed otherwise."""
    temporary = models / ".tmp" / str(target).replace(os.sep, "-")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.rename(target)
    except Exception as error:
        check_space(temporary, error)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_status(target: Path, manifest: Manifest, models: Path = Path("models")) -> None:
    """Write an artifact that consists of its manifest only: failed, skipped or none, with the reason."""
    with building(target, models) as folder:
        write(folder, manifest)


def require_scored(manifest: Manifest, labels: Sequence[str]) -> Port:
    """The output with one value for each label, which a task needs. ModelError if there is none."""
    if manifest.scored is not None:
        return manifest.scored
    given = ", ".join(f"{port.name} {list(port.shape[1:])}".replace("None", "any") for port in manifest.answered)
    shown = ", ".join(labels[:MAX_LISTED]) + (" ..." if len(labels) > MAX_LISTED else "")
    raise ModelError(
        f"model.path: the model returns {given}, the data has {len(labels)} labels ({shown}); name the model's own classes"
        " with data.label_names=FILE (and data.label_offset=1 if it has a background class), use the data that it was trained for, or"
        " compare outputs only with task.name=none"
    )


def require_ok(manifest: Manifest, what: str) -> Manifest:
    """Return the manifest of an artifact that a stage needs. VariantFailed with its reason if it is not ok. what: its name."""
    if not manifest.ok:
        raise VariantFailed(manifest.reason or f"{what} is {manifest.status}")
    return manifest
