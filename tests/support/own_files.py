"""Small model files of the kinds that users bring, whole and broken, built without a converter."""

from pathlib import Path

import numpy as np

SIDE, CLASSES = 4, 3


def tflite(path: Path, *, custom: str | None = None, open_sides: bool = False, no_inputs: bool = False, stray: int | None = None) -> Path:
    """float32 [1, 4] to [1, 3] by one FULLY_CONNECTED. custom: a custom operator instead; stray: an input tensor that there is not."""
    from ai_edge_litert import schema_py_generated as s
    from ai_edge_litert.tools import flatbuffer_utils

    weights = np.random.default_rng(0).normal(0, 1, (CLASSES, SIDE)).astype(np.float32)
    model, graph = s.ModelT(), s.SubGraphT()
    empty, held = s.BufferT(), s.BufferT()
    held.data = np.frombuffer(weights.tobytes(), np.uint8)
    graph.tensors = [_tensor(s, b"x", [1, SIDE], 0), _tensor(s, b"w", [CLASSES, SIDE], 1), _tensor(s, b"y", [1, CLASSES], 0)]
    if open_sides:
        graph.tensors[0].shapeSignature = [-1, -1]
    operator, code = s.OperatorT(), s.OperatorCodeT()
    operator.inputs, operator.outputs = [0, 1 if stray is None else stray, -1], [2]
    code.builtinCode = s.BuiltinOperator.CUSTOM if custom else s.BuiltinOperator.FULLY_CONNECTED
    code.deprecatedBuiltinCode = code.builtinCode
    if custom:
        code.customCode = custom.encode()
    else:
        operator.builtinOptionsType, operator.builtinOptions = s.BuiltinOptions.FullyConnectedOptions, s.FullyConnectedOptionsT()
    graph.inputs, graph.outputs, graph.operators = [] if no_inputs else [0], [2], [operator]
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], [empty, held]
    flatbuffer_utils.write_model(model, str(path))
    return path


def _tensor(s, name: bytes, shape: list[int], buffer: int):
    tensor = s.TensorT()
    tensor.name, tensor.shape, tensor.buffer, tensor.type = name, shape, buffer, s.TensorType.FLOAT32
    tensor.quantization = s.QuantizationParametersT()
    return tensor


def onnx(
    path: Path, body: str = "logits = MatMul (x, w)", *, x: str = "float[N,4]", weights: np.ndarray | None = None, opset: int = 17
) -> Path:
    """x to logits [N, 3] by one product; body: other nodes."""
    import onnx as library

    value = np.random.default_rng(0).normal(0, 1, (SIDE, CLASSES)).astype(np.float32) if weights is None else weights
    kind = {"float32": "float", "float64": "double", "float16": "float16"}[str(value.dtype)]
    inputs = f"{x} x, " if x else ""
    model = library.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["" : {opset}, "my.ops" : 1]>
        net ({inputs}{kind}[4,3] w) => ({kind}[N,3] logits) {{ {body} }}""")
    model.graph.initializer.append(library.numpy_helper.from_array(value, "w"))
    library.save(model, path)
    return path


def arrays(folder: Path, labels: int = CLASSES, shape: tuple[int, ...] = (SIDE,)) -> Path:
    """models/data of random float32 arrays."""
    import json

    from edgewise.artifacts import artifact
    from edgewise.artifacts.artifact import Manifest, Port

    rng = np.random.default_rng(0)
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/x.npy", rng.normal(0, 1, (60, *shape)).astype(np.float32))
    np.save(folder / "targets.npy", rng.integers(0, labels, 60))
    (folder / "splits.json").write_text(
        json.dumps({"train": [], "validation": [], "calibration": list(range(30)), "test": list(range(30, 60))})
    )
    names = tuple("abcdefgh"[:labels])
    artifact.write(folder, Manifest("data", inputs=(Port("x", (None, *shape), "float32"),), labels=names, preprocessing={"kind": "none"}))
    return folder


def plain_data(folder: Path, arrays: dict[str, np.ndarray], labels: tuple[str, ...] = ()) -> Path:
    """models/data of these arrays, [n, ...] each, without labels; all samples are for calibration."""
    import json

    from edgewise.artifacts import artifact
    from edgewise.artifacts.artifact import Manifest, Port

    (folder / "inputs").mkdir(parents=True)
    for name, array in arrays.items():
        np.save(folder / f"inputs/{name}.npy", array)
    count = len(next(iter(arrays.values())))
    splits = {"train": [], "validation": [], "calibration": list(range(count)), "test": []}
    (folder / "splits.json").write_text(json.dumps(splits))
    ports = tuple(Port(name, (None, *array.shape[1:]), array.dtype.name) for name, array in arrays.items())
    artifact.write(folder, Manifest("data", inputs=ports, labels=labels, preprocessing={"kind": "none"}, details={"targets": "none"}))
    return folder
