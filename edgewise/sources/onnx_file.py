"""The user's own ONNX model, imported unchanged: opset 7 or later, float of any width, weights inside or in external data.

models/source/ then holds model.onnx (the normalized graph, see onnx_graph), layers.json (layer -> its nodes, here the layer itself) and
probe.npz with the outputs of the user's original file.
"""

import contextlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import imported, onnx_graph
from edgewise.sources.inspection import Inspection, Port, one_line, product, total

FORMAT = "onnx"
REQUIRES = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx"}
ISOLATED = True
RECOGNIZED = (".onnx",)  # shown by `edgewise inspect` when no importer fits
FILE = "model.onnx"


@dataclass(frozen=True, kw_only=True)
class Settings(imported.Settings):
    path: str = option(help="an .onnx file, with its external data, if any, in the same folder")


def obtain(settings: Settings, data: Path, train: Train, seed: int, folder: Path) -> Mapping[str, Any]:
    import onnx

    manifest, samples, path = artifact.read(data), Samples.open(data), Path(settings.path)
    model = load(path)
    accepted = [onnx_graph.describe_tensor(tensor) for tensor in onnx_graph.list_inputs(model)]
    imported.check_inputs(path, [entry["shape"][1:] for entry in accepted], manifest)
    runner = Runner(path)
    results = runner.run(imported.make_probe(samples))
    chosen = list(results)[imported.check_outputs(path, [array.shape[1:] for array in results.values()], manifest)]
    names = {entry["name"]: given.name for entry, given in zip(accepted, manifest.inputs, strict=True)}
    shapes = {given.name: given.shape for given in manifest.inputs}
    model, notes = onnx_graph.normalize(model, names | {chosen: "logits"}, shapes)
    onnx.save(model, folder / FILE)
    layers = onnx_graph.list_layers(model)
    (folder / "layers.json").write_text(json.dumps({layer: [layer] for layer in layers}), encoding="utf-8")
    fields = imported.finish(settings, lambda feeds: runner.run(feeds)[chosen], manifest, samples, folder)
    return {
        **fields,
        "format": FORMAT,
        "inputs": [onnx_graph.describe_tensor(tensor) for tensor in model.graph.input],
        "outputs": [{**fields["outputs"][0], **onnx_graph.describe_tensor(model.graph.output[0])}],
        "details": {"layers": layers, "file": FILE, "notes": notes, "imported_sha256": artifact.sha256(path)},
        "tools": {"onnx": onnx.__version__},
        "weights": FILE,
    }


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
    fault = onnx_graph.find_unsupported(model)
    if fault:
        raise ModelError(f"model.path: {path}: {fault}")
    return model


class Runner:
    """The user's original file in ONNX Runtime. ModelError if that rejects it."""

    def __init__(self, path: Path):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1  # fixed order of sums: the same probe on all machines of a type
        self.path = path
        with self._convert_errors():
            self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = self.session.get_inputs()
        self.names = [tensor.name for tensor in self.session.get_outputs()]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """float32 outputs by name, [n, ...], in batches if the file fixes the batch size. feeds: [n, ...] in the order of the inputs."""
        count = len(next(iter(feeds.values())))
        batch = self.inputs[0].shape[0] if isinstance(self.inputs[0].shape[0], int) else count
        cast = {tensor.name: array.astype(_dtype(tensor)) for tensor, array in zip(self.inputs, feeds.values(), strict=True)}
        with self._convert_errors():
            parts = [
                self.session.run(self.names, {key: _rows(array, start, batch) for key, array in cast.items()})
                for start in range(0, count, batch)
            ]
        joined = (np.concatenate([part[i] for part in parts]) for i in range(len(self.names)))
        return {name: array[:count].astype(np.float32) for name, array in zip(self.names, joined, strict=True)}

    @contextlib.contextmanager
    def _convert_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # ONNX Runtime's exceptions have no other common base class
            raise ModelError(f"model.path: ONNX Runtime rejects {self.path}: {one_line(error)}; export it again") from error


def _rows(array: np.ndarray, start: int, batch: int) -> np.ndarray:
    """`batch` rows from `start` on; after the last row comes the first."""
    return array.take(range(start, start + batch), axis=0, mode="wrap")


def _dtype(tensor: Any) -> str:
    kind: str = tensor.type[len("tensor(") : -1]
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def inspect(path: Path) -> Inspection:
    """Reads the file without running it."""
    import onnx

    model = load(path)
    operators = Counter(node.op_type for graph in onnx_graph.iterate_graphs(model.graph) for node in graph.node)
    onnx_graph.lift_constants(model)
    constants = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    nodes = [node for graph in onnx_graph.iterate_graphs(model.graph) for node in graph.node]
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    notes = [f"opset {opset} is converted to {onnx_graph.OPSET} for the quantizers"] if opset < onnx_graph.QUANTIZABLE else []
    return Inspection(
        kind=f"ONNX model, opset {opset}, IR version {model.ir_version}, by {model.producer_name or 'an unknown tool'}",
        inputs=tuple(_port(tensor) for tensor in onnx_graph.list_inputs(model)),
        outputs=tuple(_port(tensor) for tensor in model.graph.output),
        operators=operators,
        parameters=sum(onnx.numpy_helper.to_array(tensor).size for tensor in model.graph.initializer if _is_weight(tensor)),
        multiply_adds=_multiply_adds(model, nodes, constants),
        notes=tuple(notes),
        model={"name": "onnx_file", "path": str(path)},
    )


def _port(tensor: Any) -> Port:
    kind = tensor.type.WhichOneof("value") or "tensor_type"
    if kind != "tensor_type":
        return Port(tensor.name, (), kind.removesuffix("_type"), known_rank=False)
    if not tensor.type.tensor_type.elem_type:
        return Port(tensor.name, (), "unknown type", known_rank=False)
    entry = onnx_graph.describe_tensor(tensor)
    return Port(entry["name"], tuple(entry["shape"]), entry["dtype"], known_rank=tensor.type.tensor_type.HasField("shape"))


def _is_weight(tensor: Any) -> bool:
    import onnx

    return bool(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).kind == "f")


def _multiply_adds(model: Any, nodes: list[Any], constants: dict[str, tuple[int, ...]]) -> int | None:
    """Multiply-adds for batch size 1, by inferred shapes; None if they stay unknown."""
    import onnx

    _set_batch_one(onnx_graph.list_inputs(model))
    for tensor in model.graph.output:
        tensor.ClearField("type")  # it may have another batch size
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    known = (*inferred.value_info, *inferred.input, *inferred.output)
    sides = {t.name: [d.dim_value if d.HasField("dim_value") else None for d in t.type.tensor_type.shape.dim] for t in known}
    shapes: dict[str, Any] = {**{name: shape for name, shape in sides.items() if shape}, **constants}
    return total([_node_multiply_adds(node, shapes) for node in nodes])


def _set_batch_one(inputs: list[Any]) -> None:
    """Set the first dimension of every input to 1 where it is dynamic, or the fixed batch size, which is that of the first input."""
    firsts = [tensor.type.tensor_type.shape.dim[0] for tensor in inputs if len(tensor.type.tensor_type.shape.dim)]
    batch = firsts[0].dim_value if firsts else 0
    for first in firsts:
        if first.dim_value in (0, batch):  # 0 is also that of a dynamic one
            first.dim_value = 1


def _node_multiply_adds(node: Any, shapes: dict[str, Any]) -> int | None:
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
        return 0
    a, b, out = (shapes.get(name, (None,)) for name in (node.input[0], node.input[1], node.output[0]))
    if node.op_type in ("Conv", "ConvTranspose"):
        return product(a if node.op_type == "ConvTranspose" else out, b[1:])
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return product(out, a[-2:-1] if transposed else a[-1:])
