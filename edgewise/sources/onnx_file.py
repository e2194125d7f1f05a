"""The user's own ONNX model, imported unchanged: opset 7 or later, float of any width, weights inside or in external data.

models/source/ then holds model.onnx (the normalized graph, see onnx_graph), model.float16.onnx if the file is float16 (see onnx_numbers),
layers.json (layer -> its nodes, here the layer itself) and probe.npz with the outputs of the user's original file.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.onnx_reading import list_nodes
from edgewise.sources import imported, onnx_counting, onnx_graph, onnx_numbers, onnx_rewriting
from edgewise.sources.inspection import Inspection, Port, one_line
from edgewise.sources.oracle import Oracle, fit_ports

FORMAT = "onnx"
REQUIRES = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"}
ISOLATED = True
OPEN_SIZES = True
RECOGNIZED = (".onnx",)  # shown by `edgewise inspect` when no importer fits
FILE = "model.onnx"
FLOAT16 = "model.float16.onnx"  # a float16 file as it is, which formats/onnx takes for its scheme fp16


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="an .onnx file, with its external data, if any, in the same folder")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    import onnx

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    model = load(path)
    check_shapes(path, model)
    session = FileSession(path)
    fit = fit_ports(path, settings, session, manifest, imported.make_probe(samples))
    sizes, found = {port.name: fit.sizes(port, manifest) for port in fit.fed}, describe_numbers(model)
    float16 = onnx_graph.keep_float16(model, fit, sizes)
    if float16 is not None:
        onnx.save(float16, folder / FLOAT16)
    model, notes = onnx_graph.normalize(model, fit, sizes)
    onnx.save(model, folder / FILE)
    layers = onnx_graph.list_layers(model)
    (folder / "layers.json").write_text(json.dumps({layer: [layer] for layer in layers}), encoding="utf-8")
    fields = imported.record(settings, Oracle(session, fit), samples, folder)
    return {
        **fields,
        "format": FORMAT,
        "inputs": describe_graph(model.graph.input, fields["inputs"]),
        "outputs": describe_graph(model.graph.output, fields["outputs"]),
        "details": {**fields["details"], **found, "layers": layers, "file": FILE, "notes": notes, "imported_sha256": artifact.sha256(path)},
        "tools": {"onnx": onnx.__version__},
        "weights": FILE,
    }


def check_shapes(path: Path, model: Any) -> None:
    """ModelError for an input that has no shape, not even a number of axes."""
    name = next((tensor.name for tensor in onnx_graph.list_inputs(model) if not tensor.type.tensor_type.HasField("shape")), None)
    if name is not None:
        raise ModelError(
            f"model.path: {path}: input {name} has no shape in the file; export it with one, whose first size is open: [batch, ...]"
        )


def describe_numbers(model: Any) -> dict[str, Any]:
    """Entries of the manifest's details for a file that is not float32: the precision that its outputs are compared at, and how it is
    quantized already."""
    quantized, precision = onnx_numbers.recognize_quantized(model), onnx_numbers.find_precision(model)
    return {**({"precision": precision} if precision else {}), **({"quantized": quantized.described} if quantized else {})}


def describe_graph(tensors: Sequence[Any], ports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The ports in the graph's order, with its shapes and types; inputs that became constants are gone."""
    known = {port["name"]: port for port in ports}
    return [{**known[tensor.name], **onnx_graph.describe_tensor(tensor)} for tensor in tensors]


def recognizes(path: Path) -> bool:
    """By name, or by the first byte: the protobuf tag of field 1, the IR version.

    Two other kinds may begin with that byte: a TFLite file, by the offset of its root table, and safetensors, by the length of its header,
    a number of eight bytes whose upper half is 0.
    """
    if not path.is_file():
        return False
    head = _read_head(path)
    return head[4:] != b"TFL3" and (path.suffix == ".onnx" or (head[:1] == b"\x08" and head[4:] != bytes(4)))


def _read_head(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(8)


def load(path: Path) -> Any:
    """The model with its external data. ModelError if the file is not ONNX, or uses what no runtime here supports."""
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ModelError(f"model.path: {path} {'is a folder' if path.is_dir() else 'does not exist'}; name an .onnx file")
    try:
        model = onnx.load(path)
    except DecodeError as error:
        raise ModelError(f"model.path: {path} is not an ONNX file, or truncated ({error}); export it again") from error
    except (OSError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"model.path: the external data of {path} cannot be read: {one_line(error)}; keep it in the same folder"
        ) from error
    if not model.graph.node:
        raise ModelError(f"model.path: {path} is not an ONNX file: it has no nodes; name an .onnx file")
    model, _ = onnx_rewriting.repair(model)
    fault = onnx_graph.find_unsupported(model)
    if fault:
        raise ModelError(f"model.path: {path}: {fault}")
    return model


class FileSession:
    """The user's original file in ONNX Runtime, as a plugins.Session. ModelError if that rejects it."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1  # fixed order of sums: the same probe on all machines of a type
        self.path = path
        with self._convert_errors():
            self._session = onnxruntime.InferenceSession(_repaired(path) or path, options, providers=["CPUExecutionProvider"])
        self.inputs: Sequence[Mapping[str, Any]] = [_describe_port(tensor) for tensor in self._session.get_inputs()]
        self.outputs: Sequence[Mapping[str, Any]] = [_describe_port(tensor) for tensor in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, of the types that the file has."""
        names = [entry["name"] for entry in self.outputs]
        cast = {entry["name"]: feeds[entry["name"]].astype(entry["dtype"], copy=False) for entry in self.inputs}
        with self._convert_errors():
            return dict(zip(names, self._session.run(names, cast), strict=True))

    @contextlib.contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            raise ModelError(f"model.path: ONNX Runtime rejects {self.path}: {one_line(error)}; export it again") from error


def _repaired(path: Path) -> bytes | None:
    """The content of the file as `load` reads it, where the runtime would refuse it or take it otherwise: a size of 0 literally, say."""
    import onnx

    _, changed = onnx_rewriting.repair(onnx.load(path, load_external_data=False))
    if not changed:
        return None
    model, _ = onnx_rewriting.repair(onnx.load(path))
    content: bytes = model.SerializeToString()
    return content


def _describe_port(tensor: Any) -> dict[str, Any]:
    """Name, shape (None for an open dimension, which some exporters write as -1) and type of one input or output."""
    kind: str = tensor.type.removeprefix("tensor(").removesuffix(")") if tensor.type.startswith("tensor(") else tensor.type
    shape = [side if isinstance(side, int) and side > 0 else None for side in tensor.shape]
    return {"name": tensor.name, "shape": shape, "dtype": {"float": "float32", "double": "float64"}.get(kind, kind)}


def inspect(path: Path) -> Inspection:
    """Reads the file without running it."""
    model = load(path)
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    found = onnx_numbers.recognize_quantized(model)
    converted = [f"opset {opset} is converted to {onnx_graph.OPSET} for the quantizers"] if opset < onnx_graph.QUANTIZABLE else []
    kind = f"ONNX model, opset {opset}, IR version {model.ir_version}, by {model.producer_name or 'an unknown tool'}"
    return Inspection(
        kind=f"{kind}, {found.described}" if found else kind,
        inputs=tuple(_port(tensor) for tensor in onnx_graph.list_inputs(model)),
        outputs=tuple(_port(tensor) for tensor in model.graph.output),
        operators=Counter(node.op_type for node in list_nodes(model)),
        parameters=onnx_counting.count_parameters(model),
        multiply_adds=onnx_counting.count_multiply_adds(model),
        notes=(*(["it is measured as it is"] if found else converted), *_note_open_sizes(onnx_graph.list_inputs(model))),
        model={"name": "onnx_file", "path": str(path)},
        schemes=(found.scheme or found.described,) if found else None,
    )


def _note_open_sizes(inputs: Sequence[Any]) -> list[str]:
    """A note for each input with more open axes than the one that counts the samples."""
    shapes = {tensor.name: onnx_graph.describe_tensor(tensor)["shape"] for tensor in inputs if tensor.type.HasField("tensor_type")}
    names = [name for name, shape in shapes.items() if shape.count(None) > 1]
    return [f"input {name} has open sizes: every variant has those of the data" for name in names]


def _port(tensor: Any) -> Port:
    kind = tensor.type.WhichOneof("value") or "tensor_type"
    if kind != "tensor_type":
        return Port(tensor.name, (), kind.removesuffix("_type"), known_rank=False)
    if not tensor.type.tensor_type.elem_type:
        return Port(tensor.name, (), "unknown type", known_rank=False)
    entry, dims = onnx_graph.describe_tensor(tensor), tensor.type.tensor_type.shape.dim
    batch = next((place for place, dim in enumerate(dims) if onnx_counting.is_batch(dim.dim_param)), None)
    known = tensor.type.tensor_type.HasField("shape")
    dtype = "string" if entry["dtype"] == "object" else entry["dtype"]
    return Port(entry["name"], tuple(entry["shape"]), dtype, known_rank=known, batch_axis=batch)
