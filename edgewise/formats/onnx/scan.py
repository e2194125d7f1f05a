"""How much each layer of an ONNX graph suffers from int8: quantize one layer at a time by the static quantizer, keep the rest in float.

What is quantized is computed in float between its roundings (run.AS_WRITTEN), so that the result does not depend on the processor.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent.ports import PortsSession
from edgewise.agent.sessions import run_batched
from edgewise.formats.common import rounding
from edgewise.formats.common.onnx_graphs import find_integer_operator
from edgewise.formats.onnx import qdq, run
from edgewise.formats.onnx.ranges import Arrays, find_ranges

JUDGED, LEAST_JUDGED = 16, 4  # samples whose outputs are compared, the fewer where there are many layers
MOST_RUNS = 2048  # of one sample, in all
BATCH = 8
MOST_FEEDS = 512  # steps of sequences from which the ranges are found
Ports = Mapping[str, Mapping[str, Any]]


def scan(source: Path, feeds: Sequence[Arrays], per_channel: bool, parts: rounding.Parts, ports: Ports) -> dict[str, Any]:
    """plugins.Scanner.scan. Layers in the bodies of If and Loop, which the static quantizer does not enter, are left out."""
    import onnx
    from tqdm import tqdm

    model = onnx.load(source / run.MODEL)
    if find_integer_operator(model):
        raise ValueError("the file is quantized already: there is nothing to scan")
    session = _load(model, ports)
    layers = _find_layers(source, model)
    judged = _join(feeds[: max(LEAST_JUDGED, min(JUDGED, MOST_RUNS // max(1, len(layers))))])
    exact = rounding.cut_parts(run_batched(session, judged, BATCH), parts)
    inner = [each for feed in feeds for each in session.iterate_file_feeds(feed)]
    prepared = find_ranges(model, qdq.choose_operators(model), "minmax", inner[:: -(-len(inner) // MOST_FEEDS)])

    def measure(only: Sequence[str]) -> float:
        given = run_batched(_load(_quantize(*prepared, per_channel, only), ports), judged, BATCH)
        return rounding.find_noise(rounding.sum_errors(exact, rounding.cut_parts(given, parts)), exact)

    bar = tqdm(layers.items(), desc="scan layers", unit="layer", disable=None)
    return {"layers": {layer: {"noise": measure([layer]), "elements": size} for layer, size in bar}, "noise": measure([*layers])}


def _quantize(model: Any, ranges: Any, per_channel: bool, only: Sequence[str]) -> Any:
    """A copy of the model with these nodes quantized; the others read what they did before, unless one of these nodes made it."""
    copied = type(model).FromString(model.SerializeToString())
    qdq.copy_shared_weights(copied, [node.name for node in copied.graph.node if node.name not in only])
    quantized = qdq.insert(copied, ranges, {"symmetric": False, "per_channel": per_channel}, only=only)
    made = {name for node in quantized.graph.node if node.name in only for name in node.output}
    origin = {node.output[0]: node.input[0] for node in quantized.graph.node if node.op_type == "QuantizeLinear"}
    rounded = {node.output[0]: origin.get(node.input[0]) for node in quantized.graph.node if node.op_type == "DequantizeLinear"}
    for node in quantized.graph.node:
        if node.name not in only and node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            given = [rounded.get(name) for name in node.input]
            node.input[:] = [old if new is None or new in made else new for old, new in zip(node.input, given, strict=True)]
    return quantized


def _find_layers(source: Path, model: Any) -> dict[str, int]:
    """The layers that can be quantized alone, each a node, and how many weights they have."""
    listed = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["details"]["layers"]
    kinds = {node.name: node.op_type for node in model.graph.node}
    operators = qdq.choose_operators(model)
    return {name: int(np.prod(layer["shape"])) for name, layer in listed.items() if kinds.get(name) in operators}


def _join(feeds: Sequence[Arrays]) -> Arrays:
    return {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}


def _load(model: Any, ports: Ports) -> PortsSession:
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        onnx.save(model, Path(folder) / run.MODEL)
        return PortsSession(run.load(folder, {"threads": 1, **run.AS_WRITTEN}), ports)
