"""Write an .npy file row by row: the data set never has to fit in memory."""

from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.lib import format as npy


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
