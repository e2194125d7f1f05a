"""Ranges of activations in an ONNX graph, found by ONNX Runtime's calibrators from calibration feeds, or refined by NNCF.

Operators of com.microsoft are declared first: ONNX's own inference does not know what they return, and ONNX Runtime's static quantizer
leaves layers float whose inputs have no type. Ranges of values that only an activation reads are cut where it has come to an end (see
common.rounding).

NNCF's estimators and its fast bias correction may take the place of ONNX Runtime's calibrators. The file that NNCF writes itself runs at
twice the float latency in ONNX Runtime (YOLOX-Nano: 16.9 ms, float 8.4): Q and DQ stand in front of products alone, while the int8 kernels
need a Q behind them too. So qdq places them, with what NNCF found.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common import nncf_settings
from edgewise.formats.common.nncf_settings import make_arguments, silence_nncf
from edgewise.formats.common.onnx_graphs import BATCH
from edgewise.formats.common.rounding import LEVELS, Function, find_ends, hard_swish, sigmoid

Arrays = dict[str, np.ndarray]

METHODS: dict[str, tuple[str, dict[str, Any]]] = {  # -> ONNX Runtime's name and options
    "minmax": ("MinMax", {}),
    "mean": ("MinMax", {"moving_average": True}),  # of the extremes of each run; of all of them, since they are collected at once
    # 512 levels: 256 on each side of zero. The defaults, 128 bins and 128 levels, leave no choice: the result is minmax.
    # Each further bin is one more range to try, which costs time: 640 bins clip at most a fifth of the range.
    "entropy": ("Entropy", {"num_bins": 640, "num_quantized_bins": 512}),
    "percentile": ("Percentile", {"percentile": 99.999}),
}
CALIBRATION_BATCH = 16  # samples per run; the activations of a whole run are kept in memory
STANDARD = ("", "ai.onnx")
FLOAT_TENSOR = "tensor(float)"  # as ONNX Runtime calls the type


def find_ranges(model: Any, operators: Sequence[str], method: str, feeds: Sequence[Arrays]) -> tuple[Any, Any]:
    """The model with its shapes inferred, and ONNX Runtime's record of the range of each activation of these operators, narrowed where an
    activation has come to an end. method: one of METHODS; feeds: of batch size 1."""
    import onnx
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        declare_types(model)
        onnx.save(model, path)
        batches = join_batches(model, feeds, 1 if method == "mean" else CALIBRATION_BATCH)
        ranges = _collect(path, operators, method, [batches] if method == "mean" else [[batch] for batch in batches])
        inferred = load_model_with_shape_infer(path)
        narrow(inferred, ranges)
        return inferred, ranges


def _collect(path: Path, operators: Sequence[str], method: str, collections: Sequence[Sequence[Arrays]]) -> Any:
    """The range of each activation over all batches. collections: the batches whose activations are kept in memory together."""
    from onnxruntime.quantization.calibrate import CalibrationMethod, create_calibrator

    name, options = METHODS[method]
    scratch = str(path.with_name("augmented.onnx"))
    calibrator = create_calibrator(path, [*operators], scratch, CalibrationMethod[name], extra_options=options)
    with contextlib.redirect_stdout(io.StringIO()):
        for batches in collections:
            calibrator.collect_data(Batches(batches))
        return calibrator.compute_data()


class Batches:
    """Some batches, as a CalibrationDataReader of ONNX Runtime."""

    def __init__(self, feeds: Sequence[Arrays]):
        self.remaining = iter(feeds)

    def get_next(self) -> Arrays | None:
        return next(self.remaining, None)


def join_batches(model: Any, feeds: Sequence[Arrays], size: int = CALIBRATION_BATCH) -> list[Arrays]:
    """Feeds of batch size 1 joined to larger batches, of the size that the file fixes, if it does, and of the types that it takes. They
    stay apart where an input has no axis for samples, or samples have various sizes."""
    from onnx.helper import tensor_dtype_to_np_dtype

    kinds = {tensor.name: tensor.type.tensor_type for tensor in model.graph.input}
    axes = {name: _sample_axis(kind, feeds[0][name]) for name, kind in kinds.items()} if feeds else {}
    fixed = [kinds[name].shape.dim[axis].dim_value for name, axis in axes.items() if axis is not None]
    alike = None not in axes.values() and len({tuple(feed[name].shape for name in kinds) for feed in feeds}) < 2
    batch = next(filter(None, fixed), size) if alike else 1
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


def declare_types(model: Any) -> None:
    """Add the types of the float outputs of such nodes to the model, in place, as ONNX Runtime infers them."""
    known = {value.name for value in (*model.graph.value_info, *model.graph.output)}
    nodes = (node for node in model.graph.node if node.domain not in STANDARD)
    names = [name for node in nodes for name in node.output if name and name not in known]
    if names:
        model.graph.value_info.extend(_infer_types(model, names))


def _infer_types(model: Any, names: list[str]) -> list[Any]:
    import onnx
    import onnxruntime

    watched = type(model).FromString(model.SerializeToString())
    del watched.graph.output[:]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    ports = onnxruntime.InferenceSession(watched.SerializeToString(), providers=["CPUExecutionProvider"]).get_outputs()
    return [
        onnx.helper.make_tensor_value_info(port.name, onnx.TensorProto.FLOAT, port.shape) for port in ports if port.type == FLOAT_TENSOR
    ]


def narrow(model: Any, ranges: Any) -> None:
    """Cut, in place, the ranges of inputs of activations at both ends, as far as the output moves by no more than half of its own step.
    ranges: of `ranges.find_ranges`, with this model."""
    from onnxruntime.quantization.calibrate import TensorData

    for given, made, function in _find_activations(model):
        if given in ranges.data and made in ranges.data:
            (low, high), (least, most) = ([np.asarray(limit).item() for limit in ranges.data[name].range_value] for name in (given, made))
            step = (max(0.0, most) - min(0.0, least)) / LEVELS
            ends = find_ends(function, low, high, step / 2)
            ranges.data[given] = TensorData(lowest=np.array(ends[0], np.float32), highest=np.array(ends[1], np.float32))


def _hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Function:
    return lambda x: np.clip(alpha * x + beta, 0, 1)


def _make_function(node: Any) -> Function | None:
    """What a node of one input computes; None for other operators."""
    if node.op_type == "HardSigmoid":
        return _hard_sigmoid(**{attribute.name: attribute.f for attribute in node.attribute})
    known: Mapping[str, Function] = {"HardSwish": hard_swish, "Sigmoid": sigmoid, "Tanh": np.tanh}
    return known.get(node.op_type)


def _find_activations(model: Any) -> Iterator[tuple[str, str, Function]]:
    """(input, output, function) of activations whose input nothing else reads: one operator, or one that its input is multiplied by, as in
    SiLU, x * sigmoid(x)."""
    readers: dict[str, list[Any]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            readers.setdefault(name, []).append(node)
    ends = {tensor.name for tensor in model.graph.output}
    for node in model.graph.node:
        function = _make_function(node)
        if function is None or node.input[0] in ends:
            continue
        others = [reader for reader in readers[node.input[0]] if reader is not node]
        if not others:
            yield node.input[0], node.output[0], function
        elif len(others) == 1 and others[0].op_type == "Mul" and sorted(others[0].input) == sorted((node.input[0], node.output[0])):
            yield node.input[0], others[0].output[0], _times(function)


def _times(function: Function) -> Function:
    return lambda x: x * function(x)


def refine_by_nncf(
    model: Any, ranges: Any, settings: Mapping[str, Any], feeds: Sequence[Arrays], kept: Sequence[str], transformer: bool
) -> None:
    """Put NNCF's ranges into `ranges` and its biases into the model, both in place. ranges: of `ranges.find_ranges`; kept: nodes that stay
    float. ValueError for a method that NNCF has not."""
    from onnx import numpy_helper
    from onnxruntime.quantization.calibrate import TensorData

    tool = _quantize_by_nncf(model, settings, feeds, kept, transformer)
    values = {tensor.name: tensor for tensor in tool.graph.initializer}
    for tensor in model.graph.initializer:
        changed = values.get(tensor.name)
        if changed is not None and changed.data_type == tensor.data_type and list(changed.dims) == list(tensor.dims):
            tensor.CopyFrom(changed)
    for node in tool.graph.node:
        if node.op_type == "QuantizeLinear" and node.input[0] in ranges.data:
            low, high = _find_covered(*(numpy_helper.to_array(values[name]) for name in node.input[1:3]))
            ranges.data[node.input[0]] = TensorData(lowest=low, highest=high)


def _find_covered(scale: np.ndarray, zero: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a quantizer covers, with a scale for each channel that of all of them together; float32 scalars."""
    bounds = np.iinfo(zero.dtype)
    low, high = ((bound - zero.astype(np.float64)) * scale for bound in (bounds.min, bounds.max))
    return np.array(low.min(), np.float32), np.array(high.max(), np.float32)


def _quantize_by_nncf(model: Any, settings: Mapping[str, Any], feeds: Sequence[Arrays], kept: Sequence[str], transformer: bool) -> Any:
    method = settings["calibration"]["method"]
    if method not in nncf_settings.METHODS:
        raise ValueError(
            f"calibration.method: {method!r} with tool: nncf; allowed: {', '.join(nncf_settings.METHODS)}, or set tool: onnxruntime"
        )
    with silence_nncf():
        import nncf

        batches = join_batches(model, feeds, 1)
        advanced, options = make_arguments(settings, len(batches), kept, transformer)
        copied = type(model).FromString(model.SerializeToString())
        return nncf.quantize(copied, nncf.Dataset(batches), advanced_parameters=advanced, **options)
