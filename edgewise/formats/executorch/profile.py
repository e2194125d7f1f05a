"""Where the time goes in a model.pte, from ExecuTorch's ETDump. Shipped with run.py; Python 3.10 and up.

An ETDump is a flatbuffer (etdump_schema_flatcc.fbs in the wheel). It is read here, since the wheel's own reader loads the exporter and
pandas.
"""

from __future__ import annotations

import os
import re
import struct
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, Optional

from edgewise.formats.executorch import run

RUNTIME, PACKAGE, COMPANIONS, versions = run.RUNTIME, run.PACKAGE, run.COMPANIONS, run.versions
UNSUPPORTED = None
EXECUTION = "Execute"  # the name of the record of a run
DELEGATE_CALL, KERNEL_CALL, NATIVE = "DELEGATE_CALL", "OPERATOR_CALL", "native_call_"
HAND_OVER = "DelegateCall"
NUMBERED = re.compile(r"(.*?) #\d+")  # Convolution (NHWC, QC8) IGEMM #2
TYPES = re.compile(r"\b(F32|F16|Q[SDCUP]8|QC8W|QC4W|QB4W)\b")
DTYPES = {"F32": "float32", "F16": "float16"}  # all others are int8
PRODUCTS = ("Convolution", "Deconvolution", "Fully Connected")  # of XNNPACK, in the order in which the file has them
CONVERT = "Convert"


class Session(run.Session):
    """See plugins.ProfiledSession. XNNPACK tells whole microseconds; what that loses of a delegate's call is in its hand-over."""

    def __init__(self, program: Any, method: Any):
        super().__init__(program, method)
        self._names = run.read_names(program)

    def profile(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "profile.etdp")
            self._program.write_etdump_result_to_file(path)
            with open(path, "rb") as stream:
                runs = [record for record in read_runs(stream.read()) if record["name"] == EXECUTION]
        runs = [record for record in runs if any(event["instruction"] >= 0 and event["chain"] >= 0 for event in record["events"])]
        return {"runs": [list(list_operators(record["events"], self._names)) for record in runs], "trace": None}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """As run.load."""
    return Session(*run.open_method(folder, settings, profiled=True))


def list_operators(events: List[Dict[str, Any]], names: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The operators of one run in order: what each delegate ran, with the rest of its call, and the kernels outside of delegates.

    names: as of run.read_names.
    """
    count: Dict[str, int] = {}
    called, delegates = {}, 0  # type: Dict[int, List[Dict[str, Any]]], int
    for event in events:
        if event["operator"]:
            called.setdefault(event["instruction"], []).append(event)
        elif event["name"] == DELEGATE_CALL:
            ran = called.get(event["instruction"], [])
            products = names["delegates"][delegates] if delegates < len(names["delegates"]) else []
            yield from _list_delegated(ran, products, count)
            delegates += 1
            left = max(0, event["time_ns"] - sum(each["time_ns"] for each in ran))
            yield _operator(f"{HAND_OVER} {delegates}", HAND_OVER, HAND_OVER, left)
        elif (event["name"] or "").startswith(NATIVE):
            kernel = event["name"][len(NATIVE) :]
            packet = kernel.partition(".")[0]
            count[packet] = count.get(packet, 0) + 1
            yield _operator(run.kernel_name(names, packet, count[packet]), packet, kernel, event["time_ns"], fallback=True)


def _list_delegated(ran: List[Dict[str, Any]], products: List[str], count: Dict[str, int]) -> Iterator[dict[str, Any]]:
    """What a delegate ran. products: the names of its products with weights, in order; used where it ran as many."""
    weighted = [event for event in ran if event["operator"].startswith(PRODUCTS)]
    named = dict(zip(map(id, weighted), products)) if len(weighted) == len(products) else {}
    for event in ran:
        found = NUMBERED.fullmatch(event["operator"])
        kernel = found.group(1) if found else event["operator"]
        kind = kernel.partition(" (")[0]
        count[kind] = count.get(kind, 0) + 1
        yield _operator(named.get(id(event), f"{kind} {count[kind]}"), kind, kernel, event["time_ns"])


def _operator(name: str, kind: str, kernel: str, time_ns: int, fallback: bool = False) -> dict[str, Any]:
    found = TYPES.search(kernel)
    return {
        "name": name,
        "type": kind,
        "kernel": kernel,
        "dtype": DTYPES.get(found.group(1), "int8") if found else None,
        "converts": kind.startswith(CONVERT) or run.converts(kind),
        "fallback": fallback,
        "time_ns": time_ns,
    }


def read_runs(dump: bytes) -> List[Dict[str, Any]]:
    """The records of an ETDump: {"name", "events": [{"name", "chain", "instruction", "operator": of a delegate, "time_ns"}]}."""
    content = dump[4:]  # behind its size
    root = Table(content, struct.unpack_from("<I", content)[0])
    return [{"name": record.text(0), "events": list(_read_events(record))} for record in root.tables(1)]


def _read_events(record: Table) -> Iterator[Dict[str, Any]]:
    for event in record.tables(3):
        timed = event.table(0)
        if timed is not None:
            yield {
                "name": timed.text(0),
                "chain": timed.number("<i", 1, 0),
                "instruction": timed.number("<i", 2, -1),
                "operator": timed.text(4),
                "time_ns": timed.number("<Q", 7, 0) - timed.number("<Q", 6, 0),
            }


class Table:
    """A table of a flatbuffer: fields by their number in the schema (https://flatbuffers.dev/internals/)."""

    def __init__(self, data: bytes, place: int):
        self._data, self._place = data, place
        self._layout = place - struct.unpack_from("<i", data, place)[0]
        self._size = struct.unpack_from("<H", data, self._layout)[0]

    def _field(self, number: int) -> Optional[int]:
        """Where a field is; None if it has its default."""
        entry = 4 + 2 * number
        offset = struct.unpack_from("<H", self._data, self._layout + entry)[0] if entry < self._size else 0
        return self._place + offset if offset else None

    def number(self, kind: str, number: int, default: int) -> int:
        place = self._field(number)
        return default if place is None else int(struct.unpack_from(kind, self._data, place)[0])

    def _target(self, place: int) -> int:
        return int(place + struct.unpack_from("<I", self._data, place)[0])

    def table(self, number: int) -> Optional[Table]:
        place = self._field(number)
        return None if place is None else Table(self._data, self._target(place))

    def text(self, number: int) -> str:
        """An empty one where there is none."""
        place = self._field(number)
        if place is None:
            return ""
        start = self._target(place)
        length = struct.unpack_from("<I", self._data, start)[0]
        return self._data[start + 4 : start + 4 + length].decode()

    def tables(self, number: int) -> List[Table]:
        place = self._field(number)
        if place is None:
            return []
        start = self._target(place)
        length = struct.unpack_from("<I", self._data, start)[0]
        return [Table(self._data, self._target(start + 4 + 4 * i)) for i in range(length)]
