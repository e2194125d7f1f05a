"""Static quantization as QuantizeLinear and DequantizeLinear around float operators (QDQ): int8 weights, uint8 activations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.formats.onnx import channels
from edgewise.formats.onnx.ranges import Arrays, find_ranges, refine_by_nncf
from edgewise.onnx_reading import iterate_graphs

TABLES = ("Gather",)
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SHIELDED = ("Conv", "ConvTranspose", "Gemm")  # whose float weights ONNX Runtime may quantize as it loads a file


def int8_static(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """Quantized with ranges from the calibration feeds.

    In transformers only products and tables are quantized: the residual stream has outliers that 8 bits cannot represent (ViT: SQNR
    2.9 dB with everything quantized, 21.6 dB this way, at the same speed).

    reduce_range: weights of 7 bits. On x86 without VNNI, int8 dot products overflow their 16-bit accumulators: a small convolutional
    network has SQNR 15 dB there, and 44 dB with 7 bits (48 dB with reference kernels).
    """
    _check_bodies(model, kept)
    copy_shared_weights(model, kept)
    inferred, ranges = find_ranges(model, choose_operators(model), settings["calibration"]["method"], calibration)
    left = [*kept, *_find_between(model, kept)]
    if settings.get("tool") == "nncf":
        refine_by_nncf(inferred, ranges, settings, calibration, left, _is_transformer(model))
    quantized = insert(inferred, ranges, settings, kept=left)
    _shield(quantized, kept)
    return quantized


def choose_operators(model: Any) -> list[str]:
    """The kinds of nodes that are quantized."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return [*PRODUCTS, *TABLES] if _is_transformer(model) else sorted({*QDQRegistry, *QLinearOpsRegistry})


def insert(model: Any, ranges: Any, settings: Mapping[str, Any], *, kept: Sequence[str] = (), only: Sequence[str] = ()) -> Any:
    """Quantize, in place, the nodes of these names, or without any all but the kept ones. Other nodes read what was rounded for them.
    ranges: of `find_ranges`, with this model."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    options = {
        "ActivationSymmetric": settings["symmetric"],
        "OpTypesToExcludeOutputQuantization": ["MatMul"] if _is_transformer(model) else [],
        "TensorQuantOverrides": channels.find_axes(model) if settings["per_channel"] else {},
    }
    quantizer = QDQQuantizer(
        *(model, settings["per_channel"], bool(settings.get("reduce_range")), QuantType.QInt8, QuantType.QUInt8, ranges),
        *([*only], [*kept], choose_operators(model), options),
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _shield(model: Any, kept: Sequence[str]) -> None:
    """Give kept products an input that is dequantized with a scale for each channel, all of them equal.

    Between a single scale and a QuantizeLinear, ONNX Runtime 1.31 rounds float weights to 8 bits as it loads a file (its transformer
    WeightBiasQuantization), with one scale for the whole tensor: depthwise convolutions that were to stay float are worse than quantized.
    """
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    producers = {name: node for node in model.graph.node for name in node.output}
    nodes = []
    for node in model.graph.node:
        origin = producers.get(node.input[0]) if node.name in kept and node.op_type in SHIELDED and node.input[1] in tensors else None
        if origin is not None and origin.op_type == "DequantizeLinear":
            channels_in, spread = _count_input_channels(node, tensors[node.input[1]]), [origin.input[0]]
            for name in origin.input[1:]:
                spread.append(f"{node.name}/{name}")
                values = np.repeat(numpy_helper.to_array(tensors[name]).reshape(1), channels_in)
                model.graph.initializer.append(numpy_helper.from_array(values, spread[-1]))
            node.input[0] = f"{node.name}/input"
            nodes.append(helper.make_node("DequantizeLinear", spread, [node.input[0]], name=f"{node.name}/DequantizeLinear", axis=1))
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        model.graph.ClearField("node")
        model.graph.node.extend(copies)


def _count_input_channels(node: Any, weight: Any) -> int:
    """The size of axis 1 of the input of a Conv, a ConvTranspose or a Gemm."""
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "Gemm":
        return int(weight.dims[1 if attributes.get("transB") else 0])
    return int(weight.dims[0] if node.op_type == "ConvTranspose" else weight.dims[1] * attributes.get("group", 1))


def _check_bodies(model: Any, kept: Sequence[str]) -> None:
    """ValueError for products with weights in the bodies of If, Loop or Scan, unless they are to stay float."""
    held = {tensor.name for graph in iterate_graphs(model.graph) for tensor in graph.initializer if len(tensor.dims) >= 2}
    inner = [node for graph in [*iterate_graphs(model.graph)][1:] for node in graph.node if node.op_type in PRODUCTS]
    left = [node.name for node in inner if held & set(node.input) and node.name not in kept]
    if left:
        raise ValueError(
            f"{', '.join(left)}: the weights are used in the body of an If or a Loop, which ONNX Runtime's static quantizer does not enter;"
            " fix the condition (model.inputs, or inputs of a fixed size), keep these layers float (keep_float), or use int8-dynamic"
        )


def copy_shared_weights(model: Any, kept: Sequence[str]) -> None:
    """Give kept nodes their own copy of weights that other nodes use too: the quantizer quantizes a weight for all of its readers."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer if len(tensor.dims) >= 2}
    others = {name for node in model.graph.node if node.name not in kept for name in node.input}
    copied: dict[str, Any] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            if node.name in kept and name in weights and name in others:
                node.input[place] = f"{name}/float"
                copied[node.input[place]] = weights[name]
    for name, tensor in copied.items():
        new = model.graph.initializer.add()
        new.CopyFrom(tensor)
        new.name = name


def _find_between(model: Any, kept: Sequence[str]) -> list[str]:
    """Nodes without weights whose results only kept nodes use: quantizing them would undo the benefit of the kept layers."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    found = set(kept)
    for node in reversed(model.graph.node):
        users = [user for name in node.output for user in readers.get(name, ())]
        if node.op_type not in (*PRODUCTS, *TABLES) and users and found.issuperset(users):
            found.add(node.name)
    return sorted(found - set(kept))


def _is_transformer(model: Any) -> bool:
    """Whether the graph has layer norms or attention (a Softmax that is not its output)."""
    ends = {tensor.name for tensor in model.graph.output}
    kinds = {node.op_type for node in model.graph.node if node.output[0] not in ends}
    return bool(kinds & {"LayerNormalization", "Softmax"})
