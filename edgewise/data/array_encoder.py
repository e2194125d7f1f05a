"""Write an .npy file row by row: the data set never has to fit in memory."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.lib import format as npy

from edgewise.artifacts.artifact import Tensor
from edgewise.config.settings import option
from edgewise.data.common import versions
from edgewise.errors import DataError


class ArrayFile:
    """with ArrayFile(path) as rows: rows.append(array). All rows have the shape and dtype of the first."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = path.open("wb")
        self._length = 0
        self.shape: tuple[int, ...] = ()
        self.dtype: np.dtype = np.dtype(np.uint8)

    def append(self, row: np.ndarray) -> None:
        if not self._length:
            self.shape, self.dtype = row.shape, row.dtype
            self._write_header()
        if (row.shape, row.dtype) != (self.shape, self.dtype):
            raise ValueError(f"{row.dtype} {list(row.shape)} does not match the rows before, {self.dtype} {list(self.shape)}")
        self._stream.write(np.ascontiguousarray(row).tobytes())
        self._length += 1

    def close(self) -> None:
        """The header again, with the right length: numpy pads it so that the first axis may grow in place."""
        if not self._stream.closed:
            self._stream.seek(0)
            self._write_header()
            self._stream.close()

    def _write_header(self) -> None:
        shape = (self._length, *self.shape)
        npy.write_array_header_1_0(self._stream, {"descr": npy.dtype_to_descr(self.dtype), "fortran_order": False, "shape": shape})

    def __enter__(self) -> "ArrayFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


# Store arrays that go into the model as they are: audio features, sensor windows, ids.

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
