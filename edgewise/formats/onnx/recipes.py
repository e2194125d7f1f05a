"""Numeric recipes of the ONNX format. Each takes (float model, settings, calibration feeds, nodes to keep float) and gives a model."""

import contextlib
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Arrays = dict[str, np.ndarray]
Recipe = Callable[[Any, Mapping[str, Any], Sequence[Arrays], list[str]], Any]

METHODS: dict[str, tuple[str, dict[str, Any]]] = {  # ONNX Runtime's name and options
    "minmax": ("MinMax", {}),
    # 512 levels: 256 on each side of zero. Its defaults, 128 bins into 128 levels, leave nothing to choose: the result is minmax.
    # Each further bin is one more range to try, and each try costs time: 640 bins clip at most a fifth of the range.
    "entropy": ("Entropy", {"num_bins": 640, "num_quantized_bins": 512}),
    "percentile": ("Percentile", {"percentile": 99.999}),
}
CALIBRATION_BATCH = 16  # samples in one run; the values of all activations of one run lie in memory at once
TABLES = ("Gather",)
PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def fp32(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    return model


def fp16(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """Half precision inside, float32 inputs and outputs."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    made = ONNXModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=kept))
    unique = {tuple(node.output): node for node in made.graph().node}  # a value that two kept nodes read gets the same cast twice
    made.graph().ClearField("node")
    made.graph().node.extend(unique.values())
    made.topological_sort()  # the converter appends its casts at the end
    return made.model


def int8_dynamic(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """8-bit weights; the ranges of activations are found at each run.

    Convolutions get unsigned weights: with signed ones ONNX Runtime has no fast kernel (ResNet-18 on x86: 18 ms against 7).
    Matrix products are the other way round (ViT: 1.4 ms signed, 2.2 unsigned).
    reduce_range: signed weights of 7 bits, see int8_static; the unsigned ones are multiplied without saturation everywhere.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    _products_of_gemm(model)
    reduced = bool(settings.get("reduce_range"))
    for operators, weights in ((["Conv"], QuantType.QUInt8), (["MatMul", "LSTM", *TABLES], QuantType.QInt8)):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            signed = weights == QuantType.QInt8
            quantize_dynamic(
                *(model, path, operators, settings["per_channel"], reduced and signed), weight_type=weights, nodes_to_exclude=kept
            )
            model = _load(path)
    return model


def int8_static(model: Any, settings: Mapping[str, Any], calibration: Sequence[Arrays], kept: list[str]) -> Any:
    """QDQ: int8 weights, uint8 activations with ranges from the calibration feeds.

    Transformers are quantized in their products and tables only: what is added up along the layers has outliers that 8 bits
    cannot hold (ViT: SQNR 2.9 dB with everything quantized, 21.6 dB so, at the same speed).

    reduce_range: weights of 7 bits. x86 without VNNI adds two products of 8 bits in 16, which saturates: a small convolutional net
    has SQNR 15 dB there, with 7 bits 44 (of the 48 that the file holds).
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    residual = _is_transformer(model)
    operators = [*PRODUCTS, *TABLES] if residual else sorted({*QDQRegistry, *QLinearOpsRegistry})
    options = {"ActivationSymmetric": settings["symmetric"], "OpTypesToExcludeOutputQuantization": ["MatMul"] if residual else []}
    with tempfile.TemporaryDirectory() as folder:
        path = _save(model, Path(folder))
        ranges = _ranges(path, operators, settings["calibration"]["method"], _batches(model, calibration))
        inferred = load_model_with_shape_infer(path)
    quantizer = QDQQuantizer(
        *(inferred, settings["per_channel"], bool(settings.get("reduce_range")), QuantType.QInt8, QuantType.QUInt8, ranges),
        *([], [*kept, *_between(model, kept)], operators, options),
    )
    quantizer.quantize_model()
    return quantizer.model.model


def _between(model: Any, kept: Sequence[str]) -> list[str]:
    """Steps without weights whose results only kept nodes use: in 8 bits they would take away what the kept layers win."""
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
    """Blocks of 4-bit weights in matrix products; everything else stays float."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    _products_of_gemm(model)
    block, symmetric = settings["block_size"], settings["symmetric"]
    quantizer = MatMulNBitsQuantizer(model, bits=4, block_size=block, is_symmetric=symmetric, nodes_to_exclude=kept)
    quantizer.process()
    return _named_as_before(quantizer.model.model)


RECIPES: dict[str, Recipe] = {
    "fp32": fp32,
    "fp16": fp16,
    "int8-dynamic": int8_dynamic,
    "int8-static": int8_static,
    "int8-mixed": int8_static,  # with the layers kept that the search has found
    "int8-qat": int8_static,  # of a model that was trained for it
    "int4-weight": int4_weight,
}


def _is_transformer(model: Any) -> bool:
    """Whether the graph normalizes layers or attends: a Softmax inside, not at its end."""
    ends = {tensor.name for tensor in model.graph.output}
    kinds = {node.op_type for node in model.graph.node if node.output[0] not in ends}
    return bool(kinds & {"LayerNormalization", "Softmax"})


class Once:
    """One batch, as ONNX Runtime's calibration reads it."""

    def __init__(self, feeds: Arrays):
        self.waiting = [feeds]

    def get_next(self) -> Arrays | None:
        return self.waiting.pop() if self.waiting else None


def _batches(model: Any, feeds: Sequence[Arrays]) -> list[Arrays]:
    """Feeds of batch 1 joined; where the file fixes its batch, in that size."""
    batch = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or CALIBRATION_BATCH
    parts = [feeds[start : start + batch] for start in range(0, len(feeds), batch)]
    return [{name: np.concatenate([feed[name] for feed in part]) for name in part[0]} for part in parts]


def _ranges(path: Path, operators: list[str], method: str, batches: list[Arrays]) -> Any:
    """The range of each activation over all batches."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    name, options = METHODS[method]
    scratch = str(path.with_name("augmented.onnx"))
    calibrator = create_calibrator(path, operators, scratch, CalibrationMethod[name], extra_options=options)
    with contextlib.redirect_stdout(io.StringIO()):
        for batch in batches:
            calibrator.collect_data(Once(batch))
        return calibrator.compute_data()


def _save(model: Any, folder: Path) -> Path:
    import onnx

    onnx.save(model, folder / "model.onnx")
    return folder / "model.onnx"


def _load(path: Path) -> Any:
    import onnx

    return _named_as_before(onnx.load(path))


def _named_as_before(model: Any) -> Any:
    """The quantizers add to the names of nodes; give them back those of the float model."""
    for node in model.graph.node:
        node.name = node.name.removesuffix("_quant").removesuffix("_Q4")
    return model


def _products_of_gemm(model: Any) -> None:
    """Write each Gemm(a, B, c) as MatMul(a, B) + c under the Gemm's name. ONNX Runtime's 4-bit tool knows only MatMul; its dynamic
    tool does the same rewriting but renames the nodes, so that those to be kept float would be quantized."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [made for node in graph.node for made in _product_of_gemm(node, constants)]
    used = {name for node in nodes for name in node.input} | {tensor.name for tensor in graph.output}
    graph.ClearField("node")
    graph.ClearField("initializer")
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)


def _product_of_gemm(node: Any, constants: dict[str, Any]) -> list[Any]:
    from onnx import helper, numpy_helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = all(attributes.get(key, usual) == usual for key, usual in {"alpha": 1.0, "beta": 1.0, "transA": 0}.items())
    if node.op_type != "Gemm" or not plain or node.input[1] not in constants:
        return [node]
    right = node.input[1]
    if attributes.get("transB"):
        turned = np.ascontiguousarray(numpy_helper.to_array(constants[right]).T)
        right = f"{right}/Transpose"
        constants[right] = numpy_helper.from_array(turned, right)
    if len(node.input) < 3:
        return [helper.make_node("MatMul", [node.input[0], right], node.output, name=node.name)]
    product = f"{node.output[0]}/product"
    return [
        helper.make_node("MatMul", [node.input[0], right], [product], name=node.name),
        helper.make_node("Add", [product, node.input[2]], node.output, name=f"{node.name}/bias"),
    ]
