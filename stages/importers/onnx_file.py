"""The user's own ONNX model, as it is: any opset from 7 up, float of any width, weights inside or beside it.

models/source/ then holds model.onnx (the user's graph brought to one shape, see onnx_graph), layers.json (layer -> nodes, here one
and the same) and probe.npz with the outputs of the user's own file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import artifact
from stages.core.artifact import Manifest
from stages.core.config import Train
from stages.core.errors import ModelError
from stages.core.samples import Samples
from stages.core.settings import option
from stages.importers import onnx_graph

FORMAT = "onnx"
REQUIRES = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"}
PROBE_SAMPLES = 16
FILE = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class Settings:
    path: str = option(help="an .onnx file; its external data, if any, beside it")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    import onnx

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    model = load(path)
    check_inputs(path, model, manifest)
    probe = samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))
    results = outputs(path, [*probe.values()])
    name = check_outputs(path, results, manifest)
    names = {tensor.name: given.name for tensor, given in zip(onnx_graph.inputs(model), manifest.inputs, strict=True)}
    shapes = {given.name: given.shape for given in manifest.inputs}
    model, notes = onnx_graph.normalize(model, names | {name: "logits"}, shapes)
    onnx.save(model, folder / FILE)
    layers = onnx_graph.layers(model)
    (folder / "layers.json").write_text(json.dumps({layer: [layer] for layer in layers}), encoding="utf-8")
    stored: dict[str, Any] = {f"in:{key}": array for key, array in probe.items()} | {"out:logits": results[name]}
    np.savez(folder / "probe.npz", **stored)
    return {
        "format": FORMAT,
        "inputs": [onnx_graph.describe(tensor) for tensor in model.graph.input],
        "outputs": [{**onnx_graph.describe(model.graph.output[0]), "meaning": onnx_graph.meaning(model)}],
        "details": {"layers": layers, "file": FILE, "notes": notes, "imported_sha256": artifact.sha256(path)},
        "tools": {"onnx": onnx.__version__},
        "weights": FILE,
        "training": {"accuracy_validation": None, "epochs": 0, "curve": []},
    }


def load(path: Path) -> Any:
    """The model with its external data. ModelError where the file is none, or uses what no runtime here has."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelError(f"model.path: {path} {'is a folder' if path.is_dir() else 'does not exist'}; name an .onnx file")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ModelError(f"model.path: {path} is not an ONNX file, or cut short ({error})") from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise ModelError(f"model.path: the external data of {path} cannot be read: {_one_line(error)}; keep it beside the file") from error
    if not model.graph.node:
        raise ModelError(f"model.path: {path} is not an ONNX file: it has no nodes")
    fault = onnx_graph.unsupported(model)
    if fault:
        raise ModelError(f"model.path: {path}: {fault}")
    return model


def check_inputs(path: Path, model: Any, data: Manifest) -> None:
    """ModelError unless the model takes the data's inputs, in their order; a side that it leaves open fits any."""
    taken = [onnx_graph.describe(tensor) for tensor in onnx_graph.inputs(model)]
    fits = len(taken) == len(data.inputs) and all(
        len(own["shape"]) == len(given.shape) and all(a in (None, b) for a, b in zip(own["shape"][1:], given.shape[1:], strict=True))
        for own, given in zip(taken, data.inputs, strict=True)
    )
    if not fits:
        raise ModelError(
            f"model.path: {path} takes {_told(own['shape'] for own in taken)}, the data gives {_told(t.shape for t in data.inputs)}; "
            "set data.image_size, data.channels and data.channels_last so that they fit"
        )


def check_outputs(path: Path, results: Mapping[str, np.ndarray], data: Manifest) -> str:
    """The name of the output that gives one score per label. ModelError where there is none, or NaN in it."""
    wanted = (PROBE_SAMPLES, len(data.labels))
    name = next((name for name, array in results.items() if array.shape == wanted), None)
    if name is None:
        shapes = ", ".join(f"{key} {[None, *array.shape[1:]]}" for key, array in results.items())
        raise ModelError(f"model.path: {path} gives {shapes}; the data has {len(data.labels)} labels ({', '.join(data.labels)})")
    if not np.isfinite(results[name]).all():
        raise ModelError(f"model.path: {path} answers with NaN or infinite values; check its weights and the data's preprocessing")
    return name


def outputs(path: Path, arrays: list[np.ndarray]) -> dict[str, np.ndarray]:
    """float32 outputs by name of the user's own file, one run a sample where its batch is fixed. ModelError where the runtime refuses."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1  # sums in one order: the same probe on any machine of this kind
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        taken, names = session.get_inputs(), [tensor.name for tensor in session.get_outputs()]
        batch = taken[0].shape[0] if isinstance(taken[0].shape[0], int) else len(arrays[0])
        feeds = {tensor.name: array.astype(_dtype(tensor)) for tensor, array in zip(taken, arrays, strict=True)}
        parts = [session.run(names, {k: _rows(a, start, batch) for k, a in feeds.items()}) for start in range(0, len(arrays[0]), batch)]
    except Exception as error:  # ONNX Runtime's exceptions have no other class in common
        raise ModelError(f"model.path: the runtime refuses {path}: {_one_line(error)}") from error
    joined = (np.concatenate([part[i] for part in parts]) for i in range(len(names)))
    return {name: array[: len(arrays[0])].astype(np.float32) for name, array in zip(names, joined, strict=True)}


def _rows(array: np.ndarray, start: int, batch: int) -> np.ndarray:
    """`batch` rows from `start` on, round the end."""
    return array.take(range(start, start + batch), axis=0, mode="wrap")


def _dtype(tensor: Any) -> str:
    kind = tensor.type[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def _told(shapes: Any) -> str:
    return ", ".join(str(["any" if side is None else side for side in shape]).replace("'", "") for shape in shapes) or "nothing"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:240]
