"""Store arrays that go into the model as they are: audio features, sensor windows, ids."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.artifact import Tensor
from stages.core.errors import DataError
from stages.core.settings import option
from stages.data.array_file import ArrayFile
from stages.data.common import versions

DTYPE = option("float32", "what the model takes: float32, or int64 for ids", choices=("float32", "int64"))


class ArrayEncoder:
    """Stores each array of a sample in inputs/NAME.npy. All samples have the same names and shapes."""

    def __init__(self, settings: Any, folder: Path):
        self.dtype, self.folder = np.dtype(settings.dtype), folder
        self.files: dict[str, ArrayFile] = {}
        self.count = 0

    def add(self, value: Mapping[str, np.ndarray]) -> None:
        if not self.count:
            self.files = {check_name(name): ArrayFile(self.folder / "inputs" / f"{name}.npy") for name in value}
        if set(value) != set(self.files):
            raise DataError(f"data: sample {self.count} has the arrays {sorted(value)}, those before had {sorted(self.files)}")
        for name, array in value.items():
            self._append(name, check_values(np.asarray(array), f"data: sample {self.count}, array {name!r}"))
        self.count += 1

    def _append(self, name: str, array: np.ndarray) -> None:
        try:
            self.files[name].append(array.astype(self.dtype))
        except ValueError as error:
            raise DataError(f"data: sample {self.count}, array {name!r}: {error}; cut or pad all samples to one shape") from None

    def finish(self, train: np.ndarray) -> Mapping[str, Any]:
        for file in self.files.values():
            file.close()
        tensors = (Tensor(name, (None, *file.shape), str(self.dtype), None, "array") for name, file in self.files.items())
        return {"inputs": tuple(tensors), "preprocessing": {"kind": "none"}, "tools": versions("numpy")}


def check_name(name: str) -> str:
    if not re.fullmatch(r"\w+", name):
        raise DataError(f"data: {name!r} cannot name an input; letters, digits and _ only")
    return name


def check_values(array: np.ndarray, where: str) -> np.ndarray:
    """DataError for what a model cannot take."""
    if array.dtype.kind not in "fiub":
        raise DataError(f"{where}: values of type {array.dtype} are no numbers; give floats, whole numbers or booleans of one shape")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: {np.count_nonzero(~np.isfinite(array))} of {array.size} values are NaN or infinite; fill or drop them")
    return array


def content_hash(value: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(value.items()):
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
