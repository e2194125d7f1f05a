"""The schemes of the ONNX format as functions: (float model, settings, calibration feeds, nodes to keep float) -> model."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import iterate_graphs
from edgewise.formats.onnx import channels
from edgewise.formats.onnx.export import BATCH

Arrays = dict[str, np.ndarray]
Recipe = Callable[[Any, Mapping[str, Any], Sequence[Arrays], list[str]], Any]

METHODS: dict[str, tuple[str, dict[str, Any]]] = {  # -> ONNX Runtime's name and options
    "minmax": ("MinMax", {}),
    "mean": ("MinMax", {"moving_average": True}),  # of the extremes of each run; of all of them, since they are collected at once
    # 512 levels: 256 on each side of zero. The defaults, 128 bins and 128 levels, leave no choice: the result is minmax.
    # Each further bin is one more range to try, which costs time: 640 bins clip at most a fifth of the range.
    "entropy": ("Entropy", {"num_bins": 640, "num_quantized_bins": 512}),
    "percentile": ("Percentile", {"percentile": 99.999}),
}
CALIBRATION_BATCH = 16  # samples per run; the activations of a whole run are kept in memory
TABLES = ("Gather",)
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
SHIELDED = ("Conv", "ConvTranspose", "Gemm")  # whose float weights ONNX Runtime may quantize as it loads a file


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


def int8_static(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """QDQ: int8 weights, uint8 activations with ranges from the calibration feeds.

    In transformers only products and tables are quantized: the residual stream has outliers that 8 bits cannot represent (ViT: SQNR
    2.9 dB with everything quantized, 21.6 dB this way, at the same speed).

    reduce_range: weights of 7 bits. On x86 without VNNI, int8 dot products overflow their 16-bit accumulators: a small convolutional
    network has SQNR 15 dB there, and 44 dB with 7 bits (48 dB with reference kernels).
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    _check_bodies(model, kept)
    _copy_shared_weights(model, kept)
    residual = _is_transformer(model)
    operators = [*PRODUCTS, *TABLES] if residual else sorted({*QDQRegistry, *QLinearOpsRegistry})
    options = {
        "ActivationSymmetric": settings["symmetric"],
        "OpTypesToExcludeOutputQuantization": ["MatMul"] if residual else [],
        "TensorQuantOverrides": channels.find_axes(model) if settings["per_channel"] else {},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = _save(model, Path(folder))
        method = settings["calibration"]["method"]
        batches = _batches(model, calibration, 1 if method == "mean" else CALIBRATION_BATCH)
        ranges = _find_ranges(path, operators, method, [batches] if method == "mean" else [[batch] for batch in batches])
        inferred = load_model_with_shape_infer(path)
    quantizer = QDQQuantizer(
        *(inferred, settings["per_channel"], bool(settings.get("reduce_range")), QuantType.QInt8, QuantType.QUInt8, ranges),
        *([], [*kept, *_find_between(model, kept)], operators, options),
    )
    quantizer.quantize_model()
    _shield(quantizer.model.model, kept)
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
    """Of a Conv, a ConvTranspose or a Gemm: the size of axis 1 of its input."""
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
            " settle the condition (model.inputs, or inputs of a fixed size), keep these layers float (keep_float), or use int8-dynamic"
        )


def _copy_shared_weights(model: Any, kept: Sequence[str]) -> None:
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


def _is_transformer(model: Any) -> bool:
    """Whether the graph has layer norms or attention (a Softmax that is not its output)."""
    ends = {tensor.name for tensor in model.graph.output}
    kinds = {node.op_type for node in model.graph.node if node.output[0] not in ends}
    return bool(kinds & {"LayerNormalization", "Softmax"})


class Batches:
    """Some batches, as a CalibrationDataReader of ONNX Runtime."""

    def __init__(self, feeds: Sequence[Arrays]):
        self.remaining = iter(feeds)

    def get_next(self) -> Arrays | None:
        return next(self.remaining, None)


def _batches(model: Any, feeds: Sequence[Arrays], size: int = CALIBRATION_BATCH) -> list[Arrays]:
    """Feeds of batch size 1 joined to larger batches, of the size that the file fixes, if it does, and of the types that it takes. They
    stay apart where an input has no axis for samples."""
    from onnx.helper import tensor_dtype_to_np_dtype

    kinds = {tensor.name: tensor.type.tensor_type for tensor in model.graph.input}
    axes = {name: _sample_axis(kind, feeds[0][name]) for name, kind in kinds.items()} if feeds else {}
    fixed = [kinds[name].shape.dim[axis].dim_value for name, axis in axes.items() if axis is not None]
    batch = next(filter(None, fixed), size) if None not in axes.values() else 1
    whole = feeds if not any(fixed) else [*feeds, *feeds[: -len(feeds) % batch]]  # a fixed batch is filled up
    types = {name: tensor_dtype_to_np_dtype(kind.elem_type) for name, kind in kinds.items()}

    def join(name: str, arrays: list[np.ndarray]) -> np.ndarray:
        axis = axes[name]
        return (arrays[0] if axis is None else np.concatenate(arrays, axis=axis)).astype(types[name], copy=False)

    parts = [whole[start : start + batch] for start in range(0, len(whole), batch)]
    return [{name: join(name, [feed[name] for feed in part]) for name in kinds} for part in parts]


def _sample_axis(kind: Any, sample: np.ndarray) -> int | None:
    """Where an input of the file has its samples: the axis of that name, else the one on which the file fixes another size than a single
    sample has; None where there is none. A file for single samples needs no axis to join them."""
    dims = kind.shape.dim
    named = [place for place, dim in enumerate(dims) if dim.dim_param == BATCH]
    sized = [place for place, dim in enumerate(dims) if dim.dim_value > 0 and dim.dim_value != sample.shape[place]]
    return next(iter([*named, *sized]), None)


def _find_ranges(path: Path, operators: list[str], method: str, collections: Sequence[Sequence[Arrays]]) -> Any:
    """The range of each activation over all batches. collections: the batches whose activations are kept in memory together."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    name, options = METHODS[method]
    scratch = str(path.with_name("augmented.onnx"))
    calibrator = create_calibrator(path, operators, scratch, CalibrationMethod[name], extra_options=options)
    with contextlib.redirect_stdout(io.StringIO()):
        for batches in collections:
            calibrator.collect_data(Batches(batches))
        return calibrator.compute_data()


def _save(model: Any, folder: Path) -> Path:
    import onnx

    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


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
