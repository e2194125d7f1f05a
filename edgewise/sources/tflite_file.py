"""The user's own TFLite file: float, to be quantized, or already quantized, to be evaluated and measured.

models/source/ then holds model.tflite (the file as today's tools read it, see tflite_graph) and probe.npz with the outputs of the
original file.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import imported, tflite_graph, tflite_metadata
from edgewise.sources.inspection import Inspection, Port, one_line
from edgewise.sources.oracle import Fit, Oracle, fit_ports
from edgewise.sources.tflite_metadata import Metadata, TensorNote

FORMAT = "tflite"
REQUIRES = {"ai_edge_litert": "tflite"}
ISOLATED = True
RECOGNIZED = (".tflite",)  # shown by `edgewise inspect` when no importer fits
FILE = "model.tflite"
REAL = ("float32", "float16")
SHOWN_LABELS = 3
SCHEMES = {  # (weights, activations) of the largest constant -> scheme
    ("int8", "float32"): "int8-dynamic",
    ("int8", "int8"): "int8-static",
    ("int8", "int16"): "int16x8-static",
    ("int4", "float32"): "int4-weight",
}


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="a .tflite file with at most one signature")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    from importlib import metadata

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    session = FileSession(path)
    fit = fit_ports(path, settings, session, manifest, imported.make_probe(samples))
    model = tflite_graph.read(path)
    with tflite_graph.reading(path):
        notes = [*tflite_graph.normalize(model), *_take_ports(model, session, fit)]
        tflite_graph.write(model, folder / FILE)
    fields = imported.record(settings, Oracle(session, fit), samples, folder)
    warnings = [*fields["training"].get("warnings", ()), *warn_of_integers(session, fit, manifest)]
    return {
        **fields,
        "training": {**fields["training"], **({"warnings": warnings} if warnings else {})},
        "format": FORMAT,
        "details": {**fields["details"], "layers": {}, "file": FILE, "notes": notes, "imported_sha256": artifact.sha256(path)},
        "tools": {"ai-edge-litert": metadata.version("ai-edge-litert")},
        "weights": FILE,
    }


def _take_ports(model: Any, session: "FileSession", fit: Fit) -> list[str]:
    """Give the model the outputs that are kept, and the shapes that the data has where its own are open. Returns notes on it."""
    kept = {port.name for port in fit.outputs}
    tflite_graph.keep_outputs(model, [place for place, entry in enumerate(session.outputs) if entry["name"] in kept])
    opened = [entry["name"] for entry in session.inputs if None in entry["shape"]]
    if opened:
        tflite_graph.set_input_shapes(model, session.input_shapes())
    return [f"input {name} is fixed to the sizes of the data" for name in opened]


def warn_of_integers(session: "FileSession", fit: Fit, data: Manifest) -> list[str]:
    """A warning for each quantized input that the data feeds with integers: whether they are meant as stored ones cannot be seen."""
    given = {port.name: port.dtype for port in data.inputs}
    fed = [(port.name, given[fit.given[port.name]]) for port in fit.fed]
    return [
        f"input {name} of the file is quantized, and the data gives {dtype}: these are taken as real values, not as what the file stores;"
        f" {session.quantized[name]}"
        for name, dtype in fed
        if name in session.quantized and not dtype.startswith("float")
    ]


def recognizes(path: Path) -> bool:
    return path.is_file() and (path.suffix == ".tflite" or tflite_graph.is_tflite(path))


def load(path: Path) -> Any:
    """An interpreter of the file. ModelError if it is not TFLite, the runtime rejects it, or it holds state that cannot be reset."""
    from ai_edge_litert.interpreter import Interpreter

    if not path.is_file():
        raise ModelError(f"model.path: {path} is not a file; name a .tflite file")
    tflite_graph.check_state(path, tflite_graph.read(path))
    try:
        interpreter = Interpreter(model_path=str(path), num_threads=1)
        interpreter.allocate_tensors()
    except (RuntimeError, ValueError) as error:
        raise ModelError(f"model.path: the TFLite runtime rejects {path}: {one_line(error)}") from error
    return interpreter


def open_session(path: Path) -> "FileSession":
    return FileSession(path)


class FileSession:
    """The user's original file in the TFLite runtime, as a plugins.Session: one sample a run, each from the state of a new file."""

    def __init__(self, path: Path):
        self._path, self._interpreter = path, load(path)
        names = tflite_graph.port_names(tflite_graph.read(path))
        details = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        self._inputs, self._outputs = (dict(zip(*side, strict=True)) for side in zip(names, details, strict=True))
        self.inputs: Sequence[Mapping[str, Any]] = [_describe(name, detail) for name, detail in self._inputs.items()]
        self.outputs: Sequence[Mapping[str, Any]] = [_describe(name, detail) for name, detail in self._outputs.items()]
        self.quantized = {name: _describe_scale(detail) for name, detail in self._inputs.items() if detail["quantization"][0]}
        if not self.inputs:
            raise ModelError(f"model.path: {path} has no inputs; convert it again with its inputs")

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name: real values of what is quantized, else of the types that the file has."""
        try:
            self._resize(feeds)
            self._interpreter.reset_all_variables()
            for name, detail in self._inputs.items():
                self._interpreter.set_tensor(detail["index"], _quantize(feeds[name], detail))
            self._interpreter.invoke()
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"model.path: the TFLite runtime fails on {self._path}: {one_line(error)}") from error
        return {name: _dequantize(self._interpreter.get_tensor(detail["index"]), detail) for name, detail in self._outputs.items()}

    def input_shapes(self) -> list[list[int]]:
        """Of each input, as it was last run."""
        return [detail["shape"].tolist() for detail in self._interpreter.get_input_details()]

    def _resize(self, feeds: Mapping[str, np.ndarray]) -> None:
        """Give inputs with open sides the sizes of the feeds."""
        current = {detail["index"]: tuple(detail["shape"]) for detail in self._interpreter.get_input_details()}
        changed = [name for name, detail in self._inputs.items() if current[detail["index"]] != feeds[name].shape]
        for name in changed:
            self._interpreter.resize_tensor_input(self._inputs[name]["index"], feeds[name].shape, strict=True)
        if changed:
            self._interpreter.allocate_tensors()


def _describe(name: str, detail: Mapping[str, Any]) -> dict[str, Any]:
    """As a session has it. The batch is what the file was written with, 1 as a rule, even where it says that it is open: few such files
    really take another. A quantized port is one of real values."""
    sides = [None if side < 0 else side for side in detail["shape_signature"].tolist()] or detail["shape"].tolist()
    shape = [*detail["shape"].tolist()[:1], *sides[1:]]
    scale, _ = detail["quantization"]
    return {"name": name, "shape": shape, "dtype": "float32" if scale else np.dtype(detail["dtype"]).name}


def _describe_scale(detail: Mapping[str, Any]) -> str:
    scale, zero_point = detail["quantization"]
    return f"real value = {scale:.6g} * (stored {np.dtype(detail['dtype']).name} - {zero_point})"


def _quantize(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    if not scale:
        return values.astype(detail["dtype"], copy=False)
    limits = np.iinfo(detail["dtype"])
    stored: np.ndarray = np.clip(np.rint(values / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])
    return stored


def _dequantize(stored: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    scale, zero_point = detail["quantization"]
    return (stored.astype(np.float32) - zero_point) * np.float32(scale) if scale else stored


def inspect(path: Path) -> Inspection:
    """Reads the flatbuffer without running it."""
    model = tflite_graph.read(path)
    with tflite_graph.reading(path):
        if not model.subgraphs or not len(model.subgraphs[0].inputs):
            raise ModelError(f"model.path: {path} has no inputs; convert it again with its inputs")
        return _inspect_graph(path, model)


def _inspect_graph(path: Path, model: Any) -> Inspection:
    graph, state = model.subgraphs[0], tflite_graph.describe_state(model)
    operators = Counter(tflite_graph.operator_names(model, graph))
    notes = [*([state] if state else []), *tflite_graph.normalize(model)]
    kinds, scheme = tflite_graph.operator_names(model, graph), _find_scheme(model, graph)
    said, labels, more = _read_metadata(path, model)
    inputs, outputs = _find_ports(model, said)
    return Inspection(
        kind=f"TFLite model, {'float' if scheme is None else f'quantized ({scheme})'}, {len(model.subgraphs)} graph(s)",
        inputs=inputs,
        outputs=outputs,
        operators=operators,
        parameters=sum(prod(_shape(tensor)) for tensor in graph.tensors if _is_weight(model, tensor)),
        multiply_adds=sum(_multiply_adds(graph, operator, name) for operator, name in zip(graph.operators, kinds, strict=True)),
        notes=(*notes, *more),
        model=None if tflite_graph.has_resources(model) else {"name": "tflite_file", "path": str(path)},
        schemes=None if scheme is None else (scheme,),
        label_names=labels,
    )


def _read_metadata(path: Path, model: Any) -> tuple[Metadata, tuple[str, ...], list[str]]:
    """What the file says of itself, the names of its classes, and notes on both."""
    try:
        said = tflite_metadata.read(model)
    except ValueError as error:
        return Metadata(), (), [str(error)]
    told: list[Metadata | TensorNote] = [said, *said.inputs, *said.outputs]
    notes = [_quote(note) for note in told if note.name or note.description]
    names = next((note.labels_file for note in said.outputs if note.labels_file), None)
    labels = tflite_metadata.read_labels(path, names) if names else None
    if labels:
        shown = f"{len(labels)}: {', '.join(labels[:SHOWN_LABELS])} ..."
        notes.append(f"it holds the names of its classes ({shown}), data.label_names={path} reads them")
    return said, tuple(labels or ()), notes


def _quote(note: Metadata | TensorNote) -> str:
    return f"in its own words: {': '.join(filter(None, (note.name, note.description)))}"


def _find_ports(model: Any, said: Metadata) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    graph, (inputs, outputs) = model.subgraphs[0], tflite_graph.port_names(model)
    told = dict(enumerate(said.inputs))
    given = [(make_port(graph.tensors[i], name), told.get(place)) for place, (i, name) in enumerate(zip(graph.inputs, inputs, strict=True))]
    taken = tuple(replace(port, mean=note.mean, std=note.std) if note else port for port, note in given)
    return taken, tuple(make_port(graph.tensors[i], name) for i, name in zip(graph.outputs, outputs, strict=True))


def make_port(tensor: Any, name: str) -> Port:
    signature = _shape(tensor) if tensor.shapeSignature is None else tensor.shapeSignature
    scales = _scales(tensor)
    how = (float(scales[0]), _zero_point(tensor)) if len(scales) == 1 else None
    return Port(name, tuple(None if side < 0 else int(side) for side in signature), _dtype(tensor), how)


def _scales(tensor: Any) -> Sequence[float]:
    """The scales of a quantized tensor, one or one per channel; none for a float tensor, which may have no quantization table at all."""
    table = tensor.quantization
    return () if table is None or table.scale is None else tuple(table.scale)


def _zero_point(tensor: Any) -> int:
    """Of a tensor with one scale; a file may leave it out where it is 0."""
    points = tensor.quantization.zeroPoint
    return 0 if points is None or len(points) == 0 else int(points[0])


def _dtype(tensor: Any) -> str:
    return tflite_graph.read_enumeration("TensorType")[tensor.type].lower()


def _shape(tensor: Any) -> tuple[int, ...]:
    return () if tensor.shape is None else tuple(int(side) for side in tensor.shape)


def _is_weight(model: Any, tensor: Any) -> bool:
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) > 0 and (_dtype(tensor) in (*REAL, "int8", "uint8", "int4", "int16") or len(_scales(tensor)) > 0)


def _find_scheme(model: Any, graph: Any) -> str | None:
    """By the types of the largest constant and of its operator's output; None for a float file."""
    best: tuple[int, str, str] = (0, "float32", "float32")
    for operator in graph.operators:
        for index in operator.inputs:
            tensor = graph.tensors[index]
            if index >= 0 and _is_weight(model, tensor):
                best = max(best, (prod(_shape(tensor)), _dtype(tensor), _dtype(graph.tensors[operator.outputs[0]])))
    weights, activations = (dtype.removeprefix("u") for dtype in best[1:])
    return None if weights == "float32" else SCHEMES.get((weights, activations), f"{weights} weights")


def _multiply_adds(graph: Any, operator: Any, name: str) -> int:
    if name not in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"):
        return 0
    given = [_shape(graph.tensors[index]) for index in operator.inputs]
    out: int = prod(np.abs(_shape(graph.tensors[operator.outputs[0]])).tolist())
    if name == "TRANSPOSE_CONV":  # shape of the output, weights [out, h, w, in], input
        return int(prod(given[2]) * prod(given[1][:3]))
    if name == "DEPTHWISE_CONV_2D":
        return int(out * prod(given[1][1:3]))
    return int(out * (given[0][-1] if name == "BATCH_MATMUL" else prod(given[1][1:])))
