"""What a TFLite file says of itself: how its inputs are normalized, and the names of its classes.

Many published files carry TFLite Metadata: a buffer TFLITE_METADATA, a flatbuffer of metadata_schema.fbs (identifier M001), and files
packed as a zip archive behind the model. No maintained package ships that schema, so the few fields that matter are read here, by their
positions in it (tensorflow/tflite-support, tensorflow_lite_support/metadata/metadata_schema.fbs, version 1.5).
"""

import struct
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BUFFER, IDENTIFIER = b"TFLITE_METADATA", b"M001"
SUBGRAPHS, INPUTS, OUTPUTS = 3, 2, 3  # positions of fields: ModelMetadata, SubGraphMetadata
NAME, DESCRIPTION, CONTENT, PROCESS_UNITS, FILES = 0, 1, 3, 4, 6  # TensorMetadata
CONTENT_KIND, FILE_NAME, FILE_KIND = 0, 0, 2  # Content, AssociatedFile
OPTIONS_KIND, OPTIONS, MEAN, STD = 0, 1, 0, 1  # ProcessUnit, NormalizationOptions
NORMALIZATION = 1  # a ProcessUnitOptions
LABELS = (2, 3)  # AssociatedFileType: names along an axis, names of values
CONTENTS = {1: "features", 2: "image", 3: "boxes"}  # ContentProperties
MOST_LABELS_BYTES = 2**24


@dataclass(frozen=True)
class TensorNote:
    """What is said of one input or output. mean, std: real value = (stored value - mean) / std, of a picture's 0..255, one or one for each
    channel. labels_file: the packed file with the names of its classes."""

    name: str = ""
    description: str = ""
    content: str | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    labels_file: str | None = None


@dataclass(frozen=True)
class Metadata:
    """Name and description of the model; inputs, outputs: in the order of the graph."""

    name: str = ""
    description: str = ""
    inputs: tuple[TensorNote, ...] = ()
    outputs: tuple[TensorNote, ...] = ()


def read(model: Any) -> Metadata:
    """The metadata of a ModelT, empty if it has none. ValueError if they are damaged, with what is wrong."""
    place = next((entry.buffer for entry in model.metadata or () if entry.name == BUFFER), None)
    if place is None:
        return Metadata()
    content = bytes(model.buffers[place].data)
    if content[4:8] != IDENTIFIER:
        raise ValueError(f"its metadata are of kind {content[4:8]!r}, only {IDENTIFIER!r} is known")
    try:
        root = _root(content)
        graphs = _tables(root, SUBGRAPHS)
        sides = [[_read_tensor(table) for table in _tables(graphs[0], side)] if graphs else [] for side in (INPUTS, OUTPUTS)]
        return Metadata(_text(root, NAME), _text(root, DESCRIPTION), *map(tuple, sides))
    except (struct.error, IndexError, UnicodeDecodeError, TypeError, ValueError) as error:
        raise ValueError(f"its metadata are damaged ({type(error).__name__})") from error


def read_labels(path: Path, name: str) -> list[str] | None:
    """The lines of a text file that is packed behind the model; None if it is not there."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(name).file_size > MOST_LABELS_BYTES:
                return None
            return archive.read(name).decode("utf-8").splitlines()
    except (zipfile.BadZipFile, KeyError, UnicodeDecodeError, RuntimeError, OSError):
        return None


def _read_tensor(table: Any) -> TensorNote:
    files = [(_text(entry, FILE_NAME), _byte(entry, FILE_KIND)) for entry in _tables(table, FILES)]
    content = _table(table, CONTENT)
    units = [unit for unit in _tables(table, PROCESS_UNITS) if _byte(unit, OPTIONS_KIND) == NORMALIZATION]
    options = _table(units[0], OPTIONS) if units else None
    mean, std = (_floats(options, MEAN), _floats(options, STD)) if options else ((), ())
    return TensorNote(
        name=_text(table, NAME),
        description=_text(table, DESCRIPTION),
        content=CONTENTS.get(_byte(content, CONTENT_KIND)) if content else None,
        mean=mean,
        std=std,
        labels_file=next((name for name, kind in files if kind in LABELS), None),
    )


def _root(content: bytes) -> Any:
    from flatbuffers.table import Table

    return Table(content, struct.unpack_from("<I", content)[0])


def _offset(table: Any, field: int) -> int:
    """Position of a field in its buffer; 0 if the table does not have it."""
    found: int = table.Offset(4 + 2 * field)
    return found + table.Pos if found else 0


def _byte(table: Any, field: int) -> int:
    place = _offset(table, field)
    return table.Bytes[place] if place else 0


def _text(table: Any, field: int) -> str:
    place = _offset(table, field)
    return table.String(place).decode("utf-8") if place else ""


def _table(table: Any, field: int) -> Any:
    from flatbuffers.table import Table

    place = _offset(table, field)
    return Table(table.Bytes, table.Indirect(place)) if place else None


def _tables(table: Any, field: int) -> Sequence[Any]:
    from flatbuffers.table import Table

    offset = table.Offset(4 + 2 * field)
    if not offset:
        return []
    start = table.Vector(offset)
    return [Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(offset))]


def _floats(table: Any, field: int) -> tuple[float, ...]:
    offset = table.Offset(4 + 2 * field)
    return struct.unpack_from(f"<{table.VectorLen(offset)}f", table.Bytes, table.Vector(offset)) if offset else ()
