"""The schemes of the ONNX format as functions: (float model, settings, calibration feeds, nodes to keep float) -> model."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.onnx import channels
from edgewise.formats.onnx.qdq import TABLES, copy_shared_weights, int8_static
from edgewise.formats.onnx.ranges import Arrays
from edgewise.onnx_reading import iterate_graphs

Recipe = Callable[[Any, Mapping[str, Any], Sequence[Arrays], list[str]], Any]


def fp32(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    return model


def fp16(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """Half precision inside, float32 inputs and outputs."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    largest = float(np.finfo(np.float16).max)  # the converter's own limit is 10000, and changes weights beyond it
    converted = ONNXModel(convert_float_to_float16(model, max_finite_val=largest, keep_io_types=True, node_block_list=kept))
    unique = {tuple(node.output): node for node in converted.graph().node}  # a value that two kept nodes read is cast twice
    converted.graph().ClearField("node")
    converted.graph().node.extend(unique.values())
    converted.topological_sort()  # the converter appends its casts at the end
    return converted.model


def int8_dynamic(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """8-bit weights; the ranges of activations are found at run time.

    Convolutions get unsigned weights, because ONNX Runtime has no fast kernel for signed ones (ResNet-18 on x86: 18 ms against 7).
    For matrix products it is the reverse (ViT: 1.4 ms signed, 2.2 ms unsigned).
    per_channel: of convolutions too (a detector of speech: SQNR 15.6 dB, with one scale for each of their weights 3.6 dB).
    reduce_range: signed weights of 7 bits, see int8_static; products of unsigned ones do not overflow anywhere.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _separate_filters(model)
    floats = channels.read_filters(model)
    _replace_gemm(model)
    reduced, bodies = bool(settings.get("reduce_range")), len([*iterate_graphs(model.graph)]) > 1
    for operators, weights in ((["Conv"], QuantType.QUInt8), (["MatMul", "LSTM", *TABLES], QuantType.QInt8)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            signed = weights == QuantType.QInt8
            quantize_dynamic(
                *(model, path, operators, settings["per_channel"], reduced and signed, weights),
                nodes_to_exclude=kept,
                extra_options={"EnableSubgraph": bodies},
            )
            model = _load(path)
    channels.spread_zero_points(model)
    if settings["per_channel"]:
        channels.scale_channels(model, floats)
    return model


def _separate_filters(model: Any) -> None:
    """Give other nodes their own copy of the weights of convolutions, whose scales and zero points only convolutions can read."""
    nodes = [node for graph in iterate_graphs(model.graph) for node in graph.node]
    filters = {node.input[1] for node in nodes if node.op_type == "Conv"}
    copy_shared_weights(model, [node.name for node in nodes if node.op_type != "Conv" and filters.intersection(node.input)])


def int4_weight(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """Blocks of 4-bit weights in matrix products; the rest stays float."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    _replace_gemm(model)
    block, symmetric = settings["block_size"], settings["symmetric"]
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=block, is_symmetric=symmetric, nodes_to_exclude=kept)
    quantizer.process()
    return _restore_names(quantizer.model.model)


RECIPES: dict[str, Recipe] = {
    "fp32": fp32,
    "fp16": fp16,
    "int8-dynamic": int8_dynamic,
    "int8-static": int8_static,
    "int8-mixed": int8_static,  # with the layers in float that the search found
    "int8-qat": int8_static,  # of a model fine-tuned for it
    "int4-weight": int4_weight,
}


def _load(path: Path) -> Any:
    import onnx

    return _restore_names(onnx.load(path))


def _restore_names(model: Any) -> Any:
    """Remove the suffixes that quantizers add to the names of nodes."""
    for graph in iterate_graphs(model.graph):
        for node in graph.node:
            node.name = node.name.removesuffix("_quant").removesuffix("_Q4")
    return model


def _replace_gemm(model: Any) -> None:
    """Rewrite each Gemm(a, B, c) as MatMul(a, B) + c under the Gemm's name. ONNX Runtime's 4-bit tool supports only MatMul; its dynamic
    tool does the same but renames the nodes, so that nodes to keep float would be quantized."""
    graphs = [*iterate_graphs(model.graph)]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for graph in reversed(graphs):  # bodies first: a graph that is written anew has copies of them
        nodes = [new for node in graph.node for new in _make_product(node, constants)]
        copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
        graph.ClearField("node")
        graph.node.extend(copies)
    inner = [node for graph in iterate_graphs(model.graph) for node in graph.node]
    used = {name for node in inner for name in node.input} | {t.name for g in iterate_graphs(model.graph) for t in g.output}
    held = [tensor for name, tensor in constants.items() if name in used]
    copied = [type(tensor).FromString(tensor.SerializeToString()) for tensor in held]
    model.graph.ClearField("initializer")
    model.graph.initializer.extend(copied)


def _make_product(node: Any, constants: dict[str, Any]) -> list[Any]:
    from onnx import helper, numpy_helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    simple = all(attributes.get(key, default) == default for key, default in {"alpha": 1.0, "beta": 1.0, "transA": 0}.items())
    if node.op_type != "Gemm" or not simple or node.input[1] not in constants:
        return [node]
    right = node.input[1]
    if attributes.get("transB"):
        transposed = np.ascontiguousarray(numpy_helper.to_array(constants[right]).T)
        right = f"{right}/Transpose"
        constants[right] = numpy_helper.from_array(transposed, right)
    if len(node.input) < 3:
        return [helper.make_node("MatMul", [node.input[0], right], node.output, name=node.name)]
    product = f"{node.output[0]}/product"
    return [
        helper.make_node("MatMul", [node.input[0], right], [product], name=node.name),
        helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}/bias"),
    ]
