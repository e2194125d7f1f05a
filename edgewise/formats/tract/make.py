"""Make the files of tract: model.onnx as it is, or with weights of 16 bits, and beside it what tract does not keep of it."""

import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import WAYS_TO_ONNX, read_float
from edgewise.formats.tract import run
from edgewise.formats.tract.run import MODEL, PORTS
from edgewise.onnx_reading import iterate_graphs

SOURCES = ("onnx",)
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"tract": "tract", "onnx": "onnx"}
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": PRODUCTS},
    "fp16": {"weights": "float16", "activations": "float32", "covers": PRODUCTS},  # how they are computed is an engine setting
}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {}
WIDENED = "/Cast"  # ends the name of a weight of 16 bits, where it is float32 again


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. source: models/onnx, with layers.json. ValueError in one line where tract cannot load the file."""
    model, ports = read_float(source, "tract is used for float files here")
    described = {**ports, "operators": describe_operators(model)}
    shutil.copyfile(source / MODEL, folder / MODEL)
    (folder / PORTS).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    try:
        run.load(str(folder), {})
    except RuntimeError as error:
        raise ValueError(f"tract cannot load this model: {error}; use onnx for it") from error
    return {**ports, "layers": json.loads((source / "layers.json").read_text(encoding="utf-8"))}


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

    shutil.copyfile(parent / PORTS, folder / PORTS)
    onnx.save(RECIPES[scheme](onnx.load(parent / MODEL), keep_nodes), folder / MODEL)


def fp32(model: Any, kept: Collection[str]) -> Any:
    return model


def fp16(model: Any, kept: Collection[str]) -> Any:
    """The weights of products in half precision, each behind a Cast to float32, which tract folds as it loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    graph, names = model.graph, find_narrowed(model, kept)
    for tensor in graph.initializer:
        if tensor.name in names:
            tensor.CopyFrom(numpy_helper.from_array(narrow(numpy_helper.to_array(tensor), tensor.name), tensor.name))
    for node in (node for inner in iterate_graphs(graph) for node in inner.node if node.op_type in PRODUCTS):
        node.input[:] = [f"{name}{WIDENED}" if name in names else name for name in node.input]
    casts = [helper.make_node("Cast", [name], [f"{name}{WIDENED}"], name=f"{name}{WIDENED}", to=TensorProto.FLOAT) for name in names]
    nodes = [*casts, *(type(node).FromString(node.SerializeToString()) for node in graph.node)]
    graph.ClearField("node")
    graph.node.extend(nodes)
    return model


def narrow(weight: np.ndarray, name: str) -> np.ndarray:
    """ValueError for a weight that is too large for float16."""
    largest = float(abs(weight).max(initial=0))
    if largest > float(np.finfo(np.float16).max):
        raise ValueError(
            f"weight {name}: {largest:.3g} is too large for float16 (65504): keep its layer float with keep_float, or use fp32"
        )
    return weight.astype(np.float16)


def find_narrowed(model: Any, kept: Collection[str]) -> list[str]:
    """Weights of products that no kept node and no other operator reads."""
    from onnx import TensorProto

    nodes = [node for graph in iterate_graphs(model.graph) for node in graph.node]
    narrowed = {name for node in nodes if node.op_type in PRODUCTS and node.name not in kept for name in node.input}
    others = {name for node in nodes if node.op_type not in PRODUCTS or node.name in kept for name in node.input}
    floats = [tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2]
    return [tensor.name for tensor in floats if tensor.name in narrowed - others]


def describe_operators(model: Any) -> dict[str, dict[str, str | None]]:
    """Name -> type, and the product whose result the operator reads through others, into which tract may fuse it."""
    found: dict[str, dict[str, str | None]] = {}
    products: dict[str, str] = {}
    for node in model.graph.node:
        behind = next((products[name] for name in node.input if name in products), None)
        product = node.name if node.op_type in PRODUCTS else behind
        products.update(dict.fromkeys(node.output, product) if product else {})
        found[node.name] = {"type": node.op_type, "product": product}
    return found


RECIPES: dict[str, Callable[[Any, Collection[str]], Any]] = {"fp32": fp32, "fp16": fp16}
