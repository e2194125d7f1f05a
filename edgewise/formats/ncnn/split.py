"""Cut a net into parts that together compute the same as the whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.formats.ncnn import net_files
from edgewise.formats.ncnn.blobs import find_shapes
from edgewise.formats.ncnn.net_files import Layer
from edgewise.formats.ncnn.recipes import INT8_TERM, REQUANTIZED
from edgewise.formats.ncnn.run import BIN, PARAM, PORTS, read_ports

UNSUPPORTED = None
TABLE = "Embed"  # turns integers into floats; what else reads them gives integers


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> "Graph":
    """plugins.Splitter.cuttable: read from the files alone."""
    return Graph(folder)


class Graph:
    """plugins.Cuttable. Constants (MemoryData) are not steps: each part has its own copy of those it reads. Blobs cross a cut as floats."""

    channel_axis = 1

    def __init__(self, folder: Path):
        layers, self._ports = net_files.read(folder), read_ports(str(folder))
        self.files = (PARAM, BIN, PORTS)
        self.inputs, self.outputs = ([_plain(port) for port in self._ports[side]] for side in ("inputs", "outputs"))
        self._constants = {layer.outputs[0]: layer for layer in layers if layer.kind == "MemoryData"}
        self._nodes = [layer for layer in layers if layer.kind not in ("Input", "MemoryData")]
        self._given = {port["blob"]: port for port in self._ports["inputs"]}
        self._wanted = {port["blob"]: port for port in self._ports["outputs"]}
        self._shapes = find_shapes(folder, [blob for layer in self._nodes for blob in layer.outputs])
        self._integers = _find_integers(self._nodes, {blob for blob, port in self._given.items() if port["held"] != "float32"})
        self.steps = self._steps()

    def write(self, start: int, end: int, folder: Path) -> None:
        own, given, wanted = self._nodes[start:end], self._crossing(start), self._crossing(end)
        copied = [self._constants[blob] for blob in dict.fromkeys(b for layer in own for b in layer.inputs) if blob in self._constants]
        entries = [Layer("Input", blob, (), (blob,), {}, {}) for blob in given]
        net_files.write(folder, [*entries, *copied, *own])
        ports = {"inputs": [self._port(blob) for blob in given], "outputs": [self._port(blob) for blob in wanted]}
        (folder / PORTS).write_text(json.dumps(ports, indent=1, sort_keys=True) + "\n", encoding="utf-8")

    def _steps(self) -> list[Mapping[str, Any]]:
        steps: list[Mapping[str, Any]] = []
        for place, layer in enumerate(self._nodes):
            crossing = self._crossing(place + 1)
            held = sum(array.nbytes for array in layer.arrays.values())
            steps.append(
                {"node": layer.name, "weights_bytes": held, "crossing": 0 if self._integers.intersection(crossing) else len(crossing)}
            )
        return steps

    def _crossing(self, place: int) -> list[str]:
        """Blobs that cross a cut before step `place`; at the ends, the net's inputs and outputs."""
        if place in (0, len(self._nodes)):
            return list(self._wanted if place else self._given)
        later = {blob for layer in self._nodes[place:] for blob in layer.inputs} | self._wanted.keys()
        return [blob for blob in (*self._given, *(b for layer in self._nodes[:place] for b in layer.outputs)) if blob in later]

    def _port(self, blob: str) -> dict[str, Any]:
        """An entry of model.json; a blob within the net gets an axis for its one sample."""
        known = self._given.get(blob) or self._wanted.get(blob)
        if known:
            return known
        shape = [1, *self._shapes[blob]]
        return {"name": blob, "blob": blob, "shape": shape, "dtype": "float32", "held": "float32", "axis": 0}


def _plain(port: Mapping[str, Any]) -> dict[str, Any]:
    return {key: port[key] for key in ("name", "shape", "dtype")}


def _find_integers(layers: Sequence[Layer], given: set[str]) -> set[str]:
    """Blobs that hold integers: of the inputs, what is computed of them, and what convolutions give to others of int8."""
    found = set(given)
    for layer in layers:
        int8 = "input_scales" in layer.arrays and layer.integer(INT8_TERM) > REQUANTIZED
        passed = layer.kind != TABLE and "input_scales" not in layer.arrays and found.intersection(layer.inputs)
        if int8 or passed:
            found.update(layer.outputs)
    return found
