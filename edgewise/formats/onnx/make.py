"""Make model.onnx: convert the source, and quantize with ONNX Runtime's own tools."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.quiet import suppress_warnings
from edgewise.formats.onnx import export, recipes

SOURCES = ("torch", "onnx")
TF2ONNX = "`python -m tf2onnx.convert {} --opset 18 --output mine.onnx` makes an ONNX file of it, to be brought in its place"
ELSEWHERE = {"keras": f"{TF2ONNX.format('--keras FILE')} (a SavedModel: `--saved-model FOLDER`)", "tflite": TF2ONNX.format("--tflite FILE")}
REQUIRES = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "torch": "onnx"}

PRODUCTS = recipes.PRODUCTS
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
STATIC = {"calibration.method": tuple(recipes.METHODS), "per_channel": (False, True), "symmetric": (False, True)}
STATIC["reduce_range"] = (False, True)
SETTINGS = {
    "int8-dynamic": {"per_channel": (False, True), "reduce_range": (False, True)},
    "int8-static": STATIC,
    "int8-mixed": STATIC,
    "int8-qat": STATIC,
    "int4-weight": {"block_size": (16, 32, 64, 128, 256), "symmetric": (False, True)},
}
MODEL = "model.onnx"


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. settings: opset (of an export; an ONNX file keeps its own), ir_version. ValueError names a lost layer."""
    import onnx

    kind = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["format"]
    model, layers = export.READERS[kind](source, settings["opset"])
    model.ir_version = settings["ir_version"]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / MODEL)
    graph = model.graph
    return {"inputs": [_describe(t) for t in graph.input], "outputs": [_describe(t) for t in graph.output], "layers": layers}


def _describe(tensor: Any) -> dict[str, Any]:
    import onnx

    kind = tensor.type.tensor_type
    shape = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return {"name": tensor.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize."""
    import onnx

    model = onnx.load(parent / MODEL)
    version = model.ir_version
    with suppress_warnings():
        quantized = recipes.RECIPES[scheme](model, settings, calibration, list(keep_nodes))
    quantized.ir_version = version
    onnx.save(quantized, folder / MODEL)
