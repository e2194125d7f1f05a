"""The tables of a flatbuffer, read and changed in place by the numbers of their fields. Those of MNN's schema stand in graph.py.

A table begins with the distance back to its vtable, which says where each field lies; strings, vectors and tables are reached by a
distance forward (https://flatbuffers.dev/internals/).
"""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np


class Table:
    """One table. data: the whole file; place: where the table begins in it."""

    def __init__(self, data: bytearray, place: int):
        self.data, self.place = data, place
        vtable = place - self._read("<i", place)
        size = self._read("<H", vtable)
        self._fields = struct.unpack_from(f"<{(size - 4) // 2}H", data, vtable + 4)

    @classmethod
    def root(cls, data: bytearray) -> "Table":
        return cls(data, struct.unpack_from("<I", data)[0])

    def find(self, field: int) -> int | None:
        """Where a field lies in the file; None where the table leaves it out, which means its default."""
        offset = self._fields[field] if field < len(self._fields) else 0
        return self.place + offset if offset else None

    def integer(self, field: int, default: int = 0, kind: str = "<i") -> int:
        place = self.find(field)
        return default if place is None else int(self._read(kind, place))

    def set_integer(self, field: int, value: int) -> None:
        """Change an int32 field that the table has."""
        place = self.find(field)
        assert place is not None
        struct.pack_into("<i", self.data, place, value)

    def table(self, field: int) -> "Table | None":
        place = self.find(field)
        return None if place is None else Table(self.data, self._follow(place))

    def tables(self, field: int) -> list["Table"]:
        return [Table(self.data, self._follow(place)) for place in self._elements(field, 4)]

    def text(self, field: int) -> str:
        place = self.find(field)
        return "" if place is None else self._text(self._follow(place))

    def text_place(self, field: int) -> tuple[int, int] | None:
        """Where the characters of a text begin and end."""
        place = self.find(field)
        start = 0 if place is None else self._follow(place)
        return None if place is None else (start + 4, start + 4 + int(self._read("<I", start)))

    def texts(self, field: int) -> list[str]:
        return [self._text(self._follow(place)) for place in self._elements(field, 4)]

    def array(self, field: int, kind: Any) -> np.ndarray:
        """A vector of numbers, [n], which shares the memory of the file."""
        place = self.find(field)
        if place is None:
            return np.zeros(0, kind)
        start = self._follow(place)
        return np.frombuffer(self.data, kind, self._read("<I", start), start + 4)

    def _elements(self, field: int, size: int) -> Iterator[int]:
        place = self.find(field)
        if place is not None:
            start = self._follow(place)
            yield from range(start + 4, start + 4 + size * self._read("<I", start), size)

    def _follow(self, place: int) -> int:
        return place + int(self._read("<I", place))

    def _text(self, start: int) -> str:
        return bytes(self.data[start + 4 : start + 4 + self._read("<I", start)]).decode()

    def _read(self, kind: str, place: int) -> Any:
        if place < 0:
            raise struct.error("a distance leads out of the file")
        return struct.unpack_from(kind, self.data, place)[0]
