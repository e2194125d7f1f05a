"""Make model.mnn with MNN's converter, from the ONNX file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import MODEL as ONNX
from edgewise.formats.common.onnx_graphs import WAYS_TO_ONNX, read_float
from edgewise.formats.mnn import converter, recipes
from edgewise.formats.mnn.onnx_names import find_nodes
from edgewise.formats.mnn.run import MODEL
from edgewise.formats.mnn.value_ranges import METHODS

SOURCES = ("onnx",)
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"MNN": "mnn", "onnx": "onnx"}
PRODUCTS = ("Convolution", "ConvolutionDepthwise", "Deconvolution", "DeconvolutionDepthwise", "MatMul")
STATIC = {"weights": "int8", "activations": "int8", "covers": recipes.STATIC}
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": PRODUCTS},
    "fp16": {"weights": "float16", "activations": "float32", "covers": PRODUCTS},  # how they are computed is an engine setting
    "int8-weight": {"weights": "int8", "activations": "float32", "covers": PRODUCTS},
    "int8-static": STATIC,
    "int8-mixed": STATIC,
    "int8-qat": STATIC,
    "int4-weight": {"weights": "int4", "activations": "float32", "covers": PRODUCTS},
}
STATIC_SETTINGS = {"calibration.method": tuple(METHODS)}
SPREAD_SETTINGS = {**STATIC_SETTINGS, "spread": ("float", "int8")}
BLOCKS = (None, 32, 64, 128, 256)
SETTINGS = {
    "int8-weight": {"block_size": BLOCKS, "symmetric": (False, True)},
    **dict.fromkeys(("int8-static", "int8-mixed"), SPREAD_SETTINGS),
    "int8-qat": STATIC_SETTINGS,
    "int4-weight": {"block_size": BLOCKS, "symmetric": (False, True)},
}
BITS = {"int8-weight": 8, "int4-weight": 4}
# recurrent layers as operators of their own: as loops, MNN 3.6 aborts on LSTMs and computes GRUs wrongly (SQNR 21 dB)
FROM_ONNX = ("-f", "ONNX", "--useOriginRNNImpl")
UNFED = ("int8", "int4", "uint4")


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. source: models/onnx, with layers.json."""
    model, ports = read_float(source, "MNN would round it in another way")
    refused = [f"{port['name']} is {port['dtype']}" for port in ports["inputs"] if port["dtype"] in UNFED]
    if refused:
        raise ValueError(f"input {', '.join(refused)}, which MNN's Python interface cannot be given; use onnx for this model")
    converter.convert([*FROM_ONNX, "--modelFile", source / ONNX, "--bizCode", json.dumps(ports)], folder / MODEL)
    layers = json.loads((source / "layers.json").read_text(encoding="utf-8"))
    found = find_nodes(model, folder, [node for nodes in layers.values() for node in nodes])
    named = {layer: list(dict.fromkeys(name for node in nodes for name in found[node])) for layer, nodes in layers.items()}
    return {**ports, "layers": named}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> Sequence[str] | None:
    """plugins.Maker.quantize."""
    chosen = {**settings, "bits": BITS.get(scheme)}
    return recipes.RECIPES[scheme](parent / MODEL, folder / MODEL, chosen, calibration, keep_nodes)
