"""The schemes of tract as functions, and the operators of a graph as a profile names them."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import iterate_graphs

PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
WIDENED = "/Cast"  # ends the name of a weight of 16 bits, where it is float32 again


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
