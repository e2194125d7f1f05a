"""TFLite files as older and other converters wrote them, made of a file of today's."""

import copy
import struct
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path) -> Any:
    from ai_edge_litert.tools import flatbuffer_utils

    return flatbuffer_utils.read_model(str(path))


def write(model: Any, path: Path) -> Path:
    from ai_edge_litert.tools import flatbuffer_utils

    flatbuffer_utils.write_model(model, str(path))
    return path


def age(model: Any) -> Any:
    """Operators in the deprecated field alone, as converters before TensorFlow 2.4 wrote them."""
    for code in model.operatorCodes:
        code.builtinCode = 0
    return model


def halve(model: Any) -> Any:
    """Each float32 constant of the first graph as float16 behind a DEQUANTIZE, as converters store weights."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.DEQUANTIZE
    code.version = 2
    model.operatorCodes.append(code)
    casts = []
    for index, tensor in enumerate(list(graph.tensors)):
        data = model.buffers[tensor.buffer].data
        if tensor.type != schema.TensorType.FLOAT32 or data is None:
            continue
        stored = copy.copy(tensor)
        stored.name, stored.type = tensor.name + b"_half", schema.TensorType.FLOAT16
        half = np.frombuffer(bytes(data), np.float32).astype(np.float16)
        model.buffers[tensor.buffer].data = np.frombuffer(half.tobytes(), np.uint8)
        graph.tensors.append(stored)
        tensor.buffer = 0
        cast = schema.OperatorT()
        cast.inputs, cast.outputs, cast.opcodeIndex = [len(graph.tensors) - 1], [index], len(model.operatorCodes) - 1
        casts.append(cast)
    graph.operators = [*casts, *graph.operators]
    return model


def put_root_first(content: bytes) -> bytes:
    """The same file with its root table at byte 8, right behind the identifier, as some writers place it."""
    (root,) = struct.unpack_from("<I", content)
    (distance,) = struct.unpack_from("<i", content, root)
    vtable = root - distance
    vtable_size, table_size = struct.unpack_from("<HH", content, vtable)
    fields = struct.unpack_from(f"<{(vtable_size - 4) // 2}H", content, vtable + 4)
    added = -(-table_size // 64) * 64  # so that buffers stay aligned
    table = bytearray(content[root : root + table_size]).ljust(added, b"\0")
    struct.pack_into("<i", table, 0, 8 - (vtable + added))
    for number, place in enumerate(fields):
        if place and number != VERSION:
            (to,) = struct.unpack_from("<I", content, root + place)
            struct.pack_into("<I", table, place, root + place + to + added - (8 + place))
    return struct.pack("<I", 8) + content[4:8] + bytes(table) + content[8:]


VERSION = 0  # the only field of a model's table that is a number and no reference


def transposed(padding: int, kernel: int, stride: int, side: int) -> Any:
    """x [1, 6, 6, 3] to y [1, side, side, 2] by MediaPipe's Convolution2DTransposeBias. padding: 1 SAME, 2 VALID."""
    rng = np.random.default_rng(0)
    weights, bias = rng.normal(0, 1, (2, kernel, kernel, 3)).astype(np.float32), rng.normal(0, 1, 2).astype(np.float32)
    tensors = {"x": ([1, 6, 6, 3], "float32"), "w": weights, "b": bias, "y": ([1, side, side, 2], "float32")}
    model = build(tensors, [("CUSTOM", ["x", "w", "b"], ["y"], {})], ["x"], ["y"])
    model.operatorCodes[0].customCode = b"Convolution2DTransposeBias"
    model.subgraphs[0].operators[0].customOptions = np.frombuffer(struct.pack("<3i", padding, stride, stride), np.uint8)
    return model


def keeping() -> Any:
    """x [1, 3] to y [1, 4] by SVDF, which keeps the last five of its inner values in a variable tensor."""
    rng = np.random.default_rng(0)
    features, times = rng.normal(0, 1, (4, 3)).astype(np.float32), rng.normal(0, 1, (4, 5)).astype(np.float32)
    tensors = {"x": ([1, 3], "float32"), "f": features, "t": times, "kept": ([1, 20], "float32"), "y": ([1, 4], "float32")}
    model = build(tensors, [("SVDF", ["x", "f", "t", "", "kept"], ["y"], {"rank": 1})], ["x"], ["y"])
    model.subgraphs[0].tensors[3].isVariable = True
    return model


def build(
    tensors: dict[str, Any],
    operators: list[tuple[str, list[str], list[str], dict[str, Any]]],
    inputs: list[str],
    outputs: list[str],
    signature: tuple[list[str], list[str]] | None = None,
) -> Any:
    """A model of one graph. tensors: (shape, type), or the values of constants; -1: an open side. operators: (name in the schema, inputs,
    outputs, options); "": an input that is left out. signature: names of the inputs and outputs."""
    from ai_edge_litert import schema_py_generated as schema

    model, graph, numbers = schema.ModelT(), schema.SubGraphT(), {name: place for place, name in enumerate(tensors)} | {"": -1}
    model.buffers, model.operatorCodes, graph.operators = [schema.BufferT()], [], []
    graph.tensors = [_tensor(model, name, given) for name, given in tensors.items()]
    known = {name.lower(): name for name in vars(schema.BuiltinOptions)}
    for kind, given, made, options in operators:
        operator, code = schema.OperatorT(), schema.OperatorCodeT()
        operator.inputs, operator.outputs, operator.opcodeIndex = (
            [numbers[n] for n in given],
            [numbers[n] for n in made],
            len(graph.operators),
        )
        table = known.get(f"{kind.replace('_', '').lower()}options")
        if table:
            operator.builtinOptionsType, operator.builtinOptions = getattr(schema.BuiltinOptions, table), getattr(schema, f"{table}T")()
            vars(operator.builtinOptions).update(options)
        code.builtinCode = code.deprecatedBuiltinCode = getattr(schema.BuiltinOperator, kind)
        graph.operators.append(operator)
        model.operatorCodes.append(code)
    graph.inputs, graph.outputs = [numbers[n] for n in inputs], [numbers[n] for n in outputs]
    model.version, model.subgraphs = 3, [graph]
    if signature:
        sides = [
            [schema.TensorMapT(name=n.encode(), tensorIndex=i) for n, i in sorted(zip(names, indices, strict=True))]
            for names, indices in zip(signature, (graph.inputs, graph.outputs), strict=True)
        ]
        model.signatureDefs = [schema.SignatureDefT(inputs=sides[0], outputs=sides[1], signatureKey=b"serving_default", subgraphIndex=0)]
    return model


def _tensor(model: Any, name: str, given: Any) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    tensor, constant = schema.TensorT(), isinstance(given, np.ndarray)
    shape, dtype = (given.shape, given.dtype.name) if constant else given
    tensor.name, tensor.shape, tensor.type = name.encode(), [abs(side) for side in shape], getattr(schema.TensorType, dtype.upper())
    tensor.shapeSignature = list(shape) if -1 in shape else None
    if constant:
        buffer, tensor.buffer = schema.BufferT(), len(model.buffers)
        buffer.data = np.frombuffer(given.tobytes(), np.uint8)
        model.buffers.append(buffer)
    return tensor
