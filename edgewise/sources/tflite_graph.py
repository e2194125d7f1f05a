"""The user's TFLite file as one that today's tools read: what older and other converters wrote is rewritten, its results stay the same.

what the file has                         what becomes of it
operators in deprecated_builtin_code      builtin_code, which alone is read by newer tools (they would see ADD everywhere)
float16 constants behind DEQUANTIZE       float32 constants: the same values, so that every scheme can be made of them
Convolution2DTransposeBias of MediaPipe   TRANSPOSE_CONV with a bias, which every runtime has
tensors without a quantization table      an empty one
tensors that no operator reads or writes  removed
"""

import contextlib
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.errors import ModelError

IDENTIFIER = b"TFL3"  # bytes 4 to 8 of every file
TFLITE_SAME = 1  # TfLitePadding in a custom operator's options; 2 is VALID
TRANSPOSE_CONV_WITH_BIAS = 3  # the operator's version from which on it has a fourth input
OMITTED = -1  # in place of an operator's input that it does without
DAMAGED = (IndexError, KeyError, TypeError, AttributeError, ValueError, struct.error)  # what a graph that contradicts itself leads to


def is_tflite(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(8)[4:] == IDENTIFIER


def read(path: Path) -> Any:
    """The file as a ModelT. ModelError if it is not TFLite, or damaged."""
    from ai_edge_litert.tools import flatbuffer_utils

    if not is_tflite(path):
        raise ModelError(f"model.path: {path} is not a TFLite file (bytes 4 to 8 are not TFL3); name a .tflite file")
    with reading(path):
        return flatbuffer_utils.read_model(str(path))


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """ModelError where the file turns out to be damaged: the reader has no checks of its own."""
    try:
        yield
    except DAMAGED as error:
        raise ModelError(f"model.path: {path} is truncated or damaged ({type(error).__name__}); copy or convert it again") from error


def write(model: Any, path: Path) -> None:
    from ai_edge_litert.tools import flatbuffer_utils

    flatbuffer_utils.write_model(model, str(path))


def normalize(model: Any) -> list[str]:
    """Rewrite the model in place, see above. Returns notes on what was changed."""
    steps: Mapping[str, Callable[[Any], int]] = {
        "operator codes of a converter before TensorFlow 2.4 are rewritten ({})": _complete_codes,
        "weights stored as float16 are taken as float32, with the same values ({})": _widen_constants,
        "MediaPipe's Convolution2DTransposeBias is taken as TRANSPOSE_CONV ({})": _replace_transposed,
    }
    counts = {words: step(model) for words, step in steps.items()}
    _complete_quantization(model)
    _drop_unused(model)
    return [words.format(count) for words, count in counts.items() if count]


def operator_names(model: Any, graph: Any) -> list[str]:
    """The name of each operator as the schema has it, in either of the two fields; CUSTOM with its own name."""
    known = read_enumeration("BuiltinOperator")
    return [_operator_name(model.operatorCodes[operator.opcodeIndex], known) for operator in graph.operators]


def read_enumeration(enumeration: str) -> dict[int, str]:
    """Number -> name in the schema that ships with the runtime."""
    from ai_edge_litert import schema_py_generated

    return {value: name for name, value in vars(getattr(schema_py_generated, enumeration)).items() if not name.startswith("_")}


def port_names(model: Any) -> tuple[list[str], list[str]]:
    """Names of the inputs and of the outputs in the order of the graph: those of its only signature, else those of its tensors."""
    graph, signatures = model.subgraphs[0], model.signatureDefs or []
    only = signatures[0] if len(signatures) == 1 else None
    inputs, outputs = (
        _unique(_name_side(graph, side, entries or ()))
        for side, entries in ((graph.inputs, only and only.inputs), (graph.outputs, only and only.outputs))
    )
    return inputs, outputs


def _name_side(graph: Any, side: Sequence[int], entries: Sequence[Any]) -> list[str]:
    """A name for each port of one side. entries: of the signature; a tensor that is given back twice, or is an input too, has several."""
    named: dict[int, list[str]] = {}
    for entry in entries:
        named.setdefault(int(entry.tensorIndex), []).append(entry.name.decode())
    return [named[int(i)].pop(0) if named.get(int(i)) else graph.tensors[i].name.decode() for i in side]


def describe_state(model: Any) -> str | None:
    """A note on what the file keeps from one run to the next; None if it keeps nothing."""
    if has_resources(model):
        return "it keeps resource variables from run to run, which TFLite cannot reset: it cannot be a source as it stands"
    count = sum(bool(tensor.isVariable) for graph in model.subgraphs for tensor in graph.tensors)
    return f"it keeps state from run to run (variable tensors: {count}), which is reset for each sample" if count else None


def check_state(path: Path, model: Any) -> None:
    """ModelError if the file holds state that cannot be reset between two samples."""
    if has_resources(model):
        raise ModelError(
            f"model.path: {path} keeps resource variables from run to run (VAR_HANDLE), which TFLite cannot reset between two samples;"
            " convert it again with its state as inputs and outputs, and name them in model.state={IN: OUT}"
        )


def has_resources(model: Any) -> bool:
    return any("VAR_HANDLE" in operator_names(model, graph) for graph in model.subgraphs)


def keep_outputs(model: Any, places: Sequence[int]) -> None:
    """Keep the outputs at these places only, and of the first graph the operators that they need."""
    graph = model.subgraphs[0]
    if len(places) == len(graph.outputs):
        return
    graph.outputs = [int(graph.outputs[place]) for place in places]
    needed, kept = set(graph.outputs), list[Any]()
    for operator in reversed(graph.operators):
        if needed.intersection(map(int, operator.outputs)):
            kept.insert(0, operator)
            needed.update(map(int, operator.inputs))
    graph.operators = kept
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == 0:
            signature.outputs = [entry for entry in signature.outputs if entry.tensorIndex in graph.outputs]
    _drop_unused(model)


def set_input_shapes(model: Any, shapes: Sequence[Sequence[int]]) -> None:
    """Fix the inputs to these shapes, and let all other tensors follow from them, as the runtime works it out."""
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_litert.tools import flatbuffer_utils

    graph = model.subgraphs[0]
    for index, shape in zip(graph.inputs, shapes, strict=True):
        graph.tensors[index].shape = list(shape)
    interpreter = Interpreter(model_content=bytes(flatbuffer_utils.convert_object_to_bytearray(model)), num_threads=1)
    interpreter.allocate_tensors()
    known = {detail["index"]: detail["shape"].tolist() for detail in interpreter.get_tensor_details()}
    for index, tensor in enumerate(graph.tensors):
        tensor.shape, tensor.shapeSignature = known.get(index, tensor.shape), None


def _operator_name(code: Any, known: Mapping[int, str]) -> str:
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    name = known.get(number, f"operator {number}")
    return f"CUSTOM {(code.customCode or b'').decode()}" if name == "CUSTOM" else name


def _unique(names: Sequence[str]) -> list[str]:
    """The names, numbered where one comes twice: a tensor may be given back twice."""
    seen: Counter[str] = Counter()
    made = []
    for name in names:
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return made


def _complete_codes(model: Any) -> int:
    """Put the number of each operator into both fields. Returns how many had the deprecated one alone."""
    old = [code for code in model.operatorCodes if code.deprecatedBuiltinCode > code.builtinCode]
    for code in old:
        code.builtinCode = code.deprecatedBuiltinCode
    return len(old)


def _widen_constants(model: Any) -> int:
    """Let each float16 constant be stored as the float32 that its DEQUANTIZE would make of it. Returns their number."""
    widened: dict[int, int] = {}
    for graph in model.subgraphs:
        steps = list(zip(graph.operators, operator_names(model, graph), strict=True))
        casts = [operator for operator, name in steps if name == "DEQUANTIZE" and _is_half(model, graph.tensors[operator.inputs[0]])]
        for cast in casts:
            buffer = graph.tensors[cast.inputs[0]].buffer
            if buffer not in widened:
                widened[buffer] = _add_buffer(model, np.frombuffer(model.buffers[buffer].data, np.float16).astype(np.float32))
            graph.tensors[cast.outputs[0]].buffer = widened[buffer]
        graph.operators = [operator for operator, _ in steps if operator not in casts]
    return len(widened)


def _is_half(model: Any, tensor: Any) -> bool:
    from ai_edge_litert import schema_py_generated as schema

    data = model.buffers[tensor.buffer].data
    return tensor.type == schema.TensorType.FLOAT16 and data is not None and len(data) > 0


def _add_buffer(model: Any, values: np.ndarray) -> int:
    """The number of a new buffer with these values."""
    from ai_edge_litert import schema_py_generated as schema

    buffer = schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _drop_unused(model: Any) -> None:
    """Remove the tensors that nothing reads or writes, which quantizers stumble on, and the values of constants that are left over."""
    for place, graph in enumerate(model.subgraphs):
        used = {int(i) for operator in graph.operators for side in _sides(operator) for i in getattr(operator, side)}
        kept = [i for i in range(len(graph.tensors)) if i in used | {*map(int, graph.inputs), *map(int, graph.outputs)}]
        _renumber(model, place, {old: new for new, old in enumerate(kept)})
    held = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors} | {entry.buffer for entry in model.metadata or ()}
    for index in set(range(len(model.buffers))) - held:
        model.buffers[index].data = None


def _renumber(model: Any, place: int, numbers: Mapping[int, int]) -> None:
    """Keep these tensors of the graph at `place` only, old number -> new one."""
    graph = model.subgraphs[place]
    graph.tensors = [graph.tensors[old] for old in numbers]
    for owner, sides in ((graph, ("inputs", "outputs")), *((operator, _sides(operator)) for operator in graph.operators)):
        for side in sides:
            setattr(owner, side, [OMITTED if i == OMITTED else numbers[int(i)] for i in getattr(owner, side)])
    for signature in model.signatureDefs or ():
        if signature.subgraphIndex == place:
            for entry in (*signature.inputs, *signature.outputs):
                entry.tensorIndex = numbers[entry.tensorIndex]


def _sides(operator: Any) -> list[str]:
    """The fields of an operator that hold numbers of tensors."""
    return [side for side in ("inputs", "outputs", "intermediates") if getattr(operator, side) is not None]


def _replace_transposed(model: Any) -> int:
    """Let MediaPipe's transposed convolution be the one of TFLite: it has the same weights [out, height, width, in] and the same options,
    as 32-bit numbers. Returns how many there were."""
    from ai_edge_litert import schema_py_generated as schema

    found = 0
    for graph in model.subgraphs:
        for operator, name in zip(graph.operators, operator_names(model, graph), strict=True):
            if name != "CUSTOM Convolution2DTransposeBias":
                continue
            padding, across, down = np.frombuffer(bytes(operator.customOptions)[:12], "<i4").tolist()
            options = schema.TransposeConvOptionsT()
            options.padding = schema.Padding.SAME if padding == TFLITE_SAME else schema.Padding.VALID
            options.strideW, options.strideH = across, down
            operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.TransposeConvOptions, options
            operator.customOptions = None
            data, weights, bias = operator.inputs
            operator.inputs = [_add_shape(model, graph, graph.tensors[operator.outputs[0]].shape), weights, data, bias]
            operator.opcodeIndex = _add_code(model, schema.BuiltinOperator.TRANSPOSE_CONV, TRANSPOSE_CONV_WITH_BIAS)
            found += 1
    return found


def _add_shape(model: Any, graph: Any, shape: Sequence[int]) -> int:
    """The number of a new int32 constant with a shape."""
    from ai_edge_litert import schema_py_generated as schema

    tensor = schema.TensorT()
    tensor.name, tensor.shape, tensor.type = f"shape_{len(graph.tensors)}".encode(), [len(shape)], schema.TensorType.INT32
    tensor.buffer = _add_buffer(model, np.asarray(shape, np.int32))
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _add_code(model: Any, number: int, version: int) -> int:
    """The position of an operator's code, added where the model has none."""
    from ai_edge_litert import schema_py_generated as schema

    for place, code in enumerate(model.operatorCodes):
        if (code.builtinCode, code.version) == (number, version):
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = version
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _complete_quantization(model: Any) -> None:
    from ai_edge_litert import schema_py_generated as schema

    for graph in model.subgraphs:
        for tensor in graph.tensors:
            tensor.quantization = tensor.quantization or schema.QuantizationParametersT()
