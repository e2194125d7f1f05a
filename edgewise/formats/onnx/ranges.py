"""Ranges of activations in an ONNX graph, found by ONNX Runtime's calibrators from calibration feeds."""

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.onnx import contrib_types, saturation
from edgewise.formats.onnx.export import BATCH

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


def find_ranges(model: Any, operators: Sequence[str], method: str, feeds: Sequence[Arrays]) -> tuple[Any, Any]:
    """The model with its shapes inferred, and ONNX Runtime's record of the range of each activation of these operators, narrowed where an
    activation has come to an end. method: one of METHODS; feeds: of batch size 1."""
    import onnx
    from onnxruntime.quantization.quant_utils import load_model_with_shape_infer

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        contrib_types.declare(model)
        onnx.save(model, path)
        batches = join_batches(model, feeds, 1 if method == "mean" else CALIBRATION_BATCH)
        ranges = _collect(path, operators, method, [batches] if method == "mean" else [[batch] for batch in batches])
        inferred = load_model_with_shape_infer(path)
        saturation.narrow(inferred, ranges)
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
