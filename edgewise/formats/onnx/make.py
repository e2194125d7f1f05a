"""Make model.onnx: convert the source, and quantize with ONNX Runtime's own tools."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import WAYS_TO_ONNX, describe_port, find_integer_operator
from edgewise.formats.common.quiet import suppress_warnings
from edgewise.formats.onnx import channels, export, facts, qdq, ranges, recipes

SOURCES = ("torch", "onnx")
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "torch": "onnx", "nncf": "openvino"}
OPEN_SIZES = True

PRODUCTS = qdq.PRODUCTS
INT8 = {"weights": "int8", "activations": "int8", "covers": PRODUCTS}
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": PRODUCTS},
    "fp16": {"weights": "float16", "activations": "float16", "covers": PRODUCTS},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": ("Conv", "Gemm", "LSTM", "MatMul")},
    "int8-static": INT8,
    "int8-mixed": INT8,
    "int8-qat": INT8,
    "int4-weight": {"weights": "int4", "activations": "float32", "covers": ("Gemm", "MatMul")},
}
STATIC = {"calibration.method": tuple(ranges.METHODS), "per_channel": (False, True), "symmetric": (False, True)}
STATIC |= {"reduce_range": (False, True), "tail": ("float", "int8"), "tool": ("onnxruntime", "nncf")}
SETTINGS = {
    "int8-dynamic": {"per_channel": (False, True), "reduce_range": (False, True)},
    "int8-static": {**STATIC, "spread": ("float", "int8")},
    "int8-mixed": {**STATIC, "spread": ("float", "int8")},
    "int8-qat": STATIC,
    "int4-weight": {"block_size": (16, 32, 64, 128, 256), "symmetric": (False, True)},
}
MODEL = "model.onnx"
FLOAT16 = "model.float16.onnx"  # beside it in the source, if the user's file is float16


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. settings: opset (of an export; an ONNX file keeps its own), ir_version. ValueError names a lost layer."""
    import onnx

    kind = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["format"]
    model, layers = export.READERS[kind](source, settings["opset"])
    model.ir_version = settings["ir_version"]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / MODEL)
    graph = model.graph
    return {"inputs": [describe_port(t) for t in graph.input], "outputs": [describe_port(t) for t in graph.output], "layers": layers}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> Sequence[str]:
    """plugins.Maker.quantize. A file that is quantized already stays unchanged: it is the one scheme that it is."""
    import onnx

    model = onnx.load(parent / MODEL)
    if find_integer_operator(model):
        _check_own_scheme(parent, scheme)
        shutil.copyfile(parent / MODEL, folder / MODEL)
        return ()
    version, own = model.ir_version, source / FLOAT16
    with suppress_warnings():
        float16 = scheme == "fp16" and own.exists() and not keep_nodes
        left = channels.find_spread(model, calibration) if settings.get("spread") == "float" else ()
        kept = [*keep_nodes, *left, *(facts.find_tail(parent).operators if settings.get("tail") == "float" else ())]
        quantized = onnx.load(own) if float16 else recipes.RECIPES[scheme](model, settings, calibration, kept)
    quantized.ir_version = version
    onnx.save(quantized, folder / MODEL)
    return left


def _check_own_scheme(parent: Path, scheme: str) -> None:
    """ValueError if a file that is quantized already is to be something else than it is."""
    nodes = facts.facts(parent)["nodes"]
    integer = [node for node in nodes if "float" not in node["weights_dtype"]]
    largest = max(integer or nodes, key=lambda node: node["elements"], default={"weights_dtype": "no", "activations_dtype": "no"})
    kind = [largest[key].removeprefix("u") for key in ("weights_dtype", "activations_dtype")]
    own = [name for name, declared in SCHEMES.items() if [declared["weights"], declared["activations"]] == kind]
    if scheme not in own:
        what = f"measured as {', '.join(own)}" if own else f"none of the schemes here: it has {kind[0]} weights with {kind[1]} activations"
        raise ValueError(f"the file is quantized already and stays as it is: it can be {what}, not {'as ' if own else ''}{scheme}")
