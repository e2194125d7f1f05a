"""Arrays in .npy or .npz files: inputs [n, ...] of any rank and type and y, labels [n] or numbers [n, k]; sequences are [n, steps, ...].

path: features.npy, labels: labels.npy     one input, named x
path: set.npz                              array y holds the labels, groups the groups, every other array is an input of this name

Without labels, in neither file, the data is good for the task `none`.
"""

import hashlib
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.targets import CLASSES, NONE
from edgewise.config.settings import option
from edgewise.data.common import DataSettings, TargetSettings, sort_numerically
from edgewise.data.encoders import DTYPE, ArrayEncoder, content_hash
from edgewise.errors import DataError
from edgewise.plugins import Item

__all__ = ["Settings", "encoder", "items", "probe"]

LABELS, GROUPS = "y", "groups"
encoder = ArrayEncoder


@dataclass(frozen=True, kw_only=True)
class Settings(TargetSettings, DataSettings):
    path: str = option(help=".npy file with the inputs, or .npz file with inputs and y; absolute or relative to the project")
    labels: str | None = option(None, ".npy file with y; null: the array y in the .npz file, if there is one")
    groups: str | None = option(None, ".npy file with the groups; null: the array groups in the .npz file, if there is one")
    dtype: str = DTYPE

    def sort_labels(self, labels: Any) -> list[str]:
        return sort_numerically(labels)


def probe(settings: Settings) -> Mapping[str, Any]:
    """Digest of the files' content."""
    paths = [Path(p).expanduser() for p in (settings.path, settings.labels, settings.groups) if p]
    digest, names = hashlib.sha256(), set[str]()
    for path in paths:
        names |= load(path).keys()
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    found = {"digest": digest.hexdigest(), "files": len(paths), "bytes": sum(path.stat().st_size for path in paths)}
    return found if settings.labels or LABELS in names else {**found, "targets": NONE}


def items(settings: Settings) -> Iterator[Item]:
    arrays = read(settings)
    labels, groups = arrays.pop(LABELS, None), arrays.pop(GROUPS, None)
    for i in range(len(next(iter(arrays.values())))):
        value = {name: array[i] for name, array in arrays.items()}
        label, group = (None if array is None else array[i] for array in (labels, groups))
        yield Item(f"{i:06d}", settings.parse_label(label), None if group is None else str(group), content_hash(value), value)


def read(settings: Settings) -> dict[str, np.ndarray]:
    """All arrays by name. DataError unless all have one row per sample."""
    arrays = load(Path(settings.path).expanduser())
    for key, path in ((LABELS, settings.labels), (GROUPS, settings.groups)):
        if path:
            arrays[key] = only_array(Path(path).expanduser(), "labels" if key == LABELS else key)
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items()}
    if len(set(lengths.values())) > 1 or 0 in lengths.values() or not set(arrays) - {LABELS, GROUPS}:
        raise DataError(f"data.path: {settings.path}: rows by array: {lengths}; each input, y and groups must have one row per sample")
    if LABELS in arrays and arrays[LABELS].ndim != 1 and settings.targets == CLASSES:
        raise DataError(
            f"data.labels: shape {list(arrays[LABELS].shape)}; give one label per sample: the argmax of one-hot rows; "
            "for other targets set data.targets to multi_label or values"
        )
    return arrays


def only_array(path: Path, key: str) -> np.ndarray:
    """The array of a file, the first of several. DataError if it has none. key: of the setting."""
    array = next(iter(load(path).values()), None)
    if array is None:
        raise DataError(f"data.{key}: {path}: holds no array; give a .npy file")
    return array


# what numpy, zipfile and zlib raise for files that are damaged, encrypted or of another type (OverflowError, SyntaxError: in a header)
READ_ERRORS = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    OverflowError,
    SyntaxError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
)


ZIP = b"PK"  # what an .npz begins with


def load(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name; .npy files are memory-mapped. Never unpickles anything. DataError if the file cannot be read."""
    try:
        with path.open("rb") as stream:  # np.load leaves a broken archive open if it has opened it itself
            if stream.read(2) == ZIP:
                stream.seek(0)
                with np.load(stream, allow_pickle=False) as archive:
                    return {name: archive[name] for name in archive.files}
        return {"x": np.load(path, mmap_mode="r", allow_pickle=False)}
    except READ_ERRORS as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n")[0]
        raise DataError(f"data.path: {path}: {reason}; give a .npy or .npz file of numbers (no objects, no ragged rows)") from None
