"""Model files of kinds that are easily taken for another, or described wrongly; each small file in tests/data/ stands for one kind."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import ModelError
from edgewise.inspect import model_file, suggestion
from edgewise.sources import onnx_file, tflite_file
from edgewise.sources.inspection import Inspection
from tests.conftest import ROOT

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
DATA, CONF = ROOT / "tests/data", ROOT / "conf"


def found(path: Path) -> Inspection:
    return model_file.inspect_file(path, CONF)[1]


@pytest.mark.parametrize("name", ["x.tflite", "x.onnx", "x"])
def test_the_identifier_of_a_tflite_file_decides_whatever_its_first_byte_and_name(name, tmp_path):
    (tmp_path / name).write_bytes((DATA / "root_offset_8.tflite").read_bytes())
    assert model_file.find_importer(tmp_path / name, CONF) is tflite_file


@pytest.mark.parametrize("length", [264, 0x1208, 0x120108])
def test_the_length_of_a_safetensors_header_is_not_taken_for_an_onnx_file(length, tmp_path):
    """The file begins with that length; 1 of 32 lengths begins with the byte of an ONNX file."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    (tmp_path / "weights").write_bytes(struct.pack("<Q", length) + header.ljust(length).encode() + bytes(4))
    assert not onnx_file.recognizes(tmp_path / "weights")


@pytest.mark.parametrize("name", ["model", "model.onnx", "model.tflite"])
def test_an_onnx_file_of_any_name_is_recognized(name, tmp_path):
    (tmp_path / name).write_bytes((DATA / "shared_weights.onnx").read_bytes())
    assert found(tmp_path / name).kind.startswith("ONNX model")


def test_a_tflite_file_without_quantization_tables_is_described():
    seen = found(DATA / "no_quantization_table.tflite")
    assert seen.kind.startswith("TFLite model, float") and seen.schemes is None
    assert all(port.quantization is None for port in (*seen.inputs, *seen.outputs))


def test_a_scalar_input_is_described_as_one():
    path = DATA / "scalar_input.onnx"
    seen = found(path)
    assert (seen.parameters, seen.multiply_adds) == (45, 40)
    assert "scale scalar float32" in model_file.describe_file(path, seen)


FLOAT = onnx.TensorProto.FLOAT


def tensor(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def sequence(name: str) -> Any:
    inner = onnx.helper.make_tensor_type_proto(FLOAT, ["n", 4])
    return onnx.helper.make_value_info(name, onnx.helper.make_sequence_type_proto(inner))


def lookup(name: str) -> Any:
    """A map from strings to floats, as classifiers of scikit-learn give it."""
    inner = onnx.helper.make_tensor_type_proto(FLOAT, [])
    return onnx.helper.make_value_info(name, onnx.helper.make_map_type_proto(onnx.TensorProto.STRING, inner))


def model(inputs: Sequence[Any], outputs: Sequence[Any], *nodes: Any, weights: Mapping[str, tuple[int, ...]] | None = None) -> Any:
    held = [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in (weights or {}).items()]
    graph = onnx.helper.make_graph(list(nodes), "net", list(inputs), list(outputs), held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])


def node(kind: str, given: Sequence[str], made: Sequence[str], **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, given, made, **attributes)


def product(x: Any, out: Any, *others: Any, **weights: tuple[int, ...]) -> Any:
    return model([x, *others], [out], node("MatMul", ["x", "w"], ["y"]), weights={"w": (4, 5), **weights})


WHOLE = {
    "open shape": (product(tensor("x", None), tensor("y", None)), "any shape"),
    "only a rank": (product(tensor("x", [None, None]), tensor("y", ["a", "b"])), "[any, any]"),
    "no batch": (product(tensor("x", [4]), tensor("y", [5])), "[4]"),
    "an output without a type": (product(tensor("x", ["n", 4]), onnx.ValueInfoProto(name="y")), "y any shape unknown type"),
    "weights among the inputs": (product(tensor("x", ["n", 4]), tensor("y", ["n", 5]), tensor("w", [4, 5])), "x [any, 4]"),
    "a state": (
        model(
            [tensor("x", ["n", 4]), tensor("h", [2, 1, 5])],
            [tensor("y", ["n", 5]), tensor("next", [2, 1, 5])],
            *(node("MatMul", ["x", "w"], ["y"]), node("Tanh", ["h"], ["next"])),
            weights={"w": (4, 5)},
        ),
        "h [2, 1, 5]",
    ),
    "a sequence given back": (model([tensor("x", ["n", 4])], [sequence("y")], node("SequenceConstruct", ["x"], ["y"])), "y sequence"),
    "a map given back": (model([tensor("x", ["n", 4])], [lookup("y")], node("Identity", ["x"], ["y"])), "y map"),
    "a scalar given back": (model([tensor("x", ["n", 4])], [tensor("y", [])], node("ReduceSum", ["x"], ["y"], keepdims=0)), "y scalar"),
    "strings": (
        model(
            *([tensor("x", ["n"], onnx.TensorProto.STRING)], [tensor("y", ["n"], onnx.TensorProto.STRING)]),
            node("Identity", ["x"], ["y"]),
        ),
        "x [any]",
    ),
    "no outputs": (model([tensor("x", ["n", 4])], [], node("Relu", ["x"], ["y"])), "x [any, 4]"),
    "an unknown rank between": (
        model(
            [tensor("x", ["n", 4]), tensor("s", ["k"], onnx.TensorProto.INT64)],
            [tensor("y", None)],
            *(node("Reshape", ["x", "s"], ["r"]), node("Conv", ["r", "w"], ["y"])),
            weights={"w": (2, 3, 3, 3)},
        ),
        "multiply-adds  unknown",
    ),
}


UNFED = "strings"


@pytest.mark.parametrize("case", WHOLE)
def test_any_onnx_file_is_described_port_by_port(case, tmp_path):
    made, expected = WHOLE[case]
    onnx.save(made, tmp_path / "m.onnx")
    seen = onnx_file.inspect(tmp_path / "m.onnx")
    described = model_file.describe_file(tmp_path / "m.onnx", seen)
    assert expected in described
    given = [name for name in (port.name for port in (*made.graph.input, *made.graph.output)) if name != "w"]
    assert [port.name for port in (*seen.inputs, *seen.outputs)] == given
    asked = suggestion.Asked(tmp_path / "m.onnx", onnx_file, CONF, model_file.read_formats(CONF), run=False)
    if case == UNFED:
        with pytest.raises(ModelError, match="x takes strings, which is not among the types that data can have: float32"):
            suggestion.suggest(seen, asked)
    else:
        assert set(suggestion.suggest(seen, asked)[0]) == {"data", "task", "model", "reference", "variants"}


REFUSED = {
    "no inputs": (model([], [tensor("y", [4, 5])], node("Relu", ["w"], ["y"]), weights={"w": (4, 5)}), "it has no inputs"),
    "weights alone among the inputs": (
        model([tensor("w", [4, 5])], [tensor("y", [4, 5])], node("Relu", ["w"], ["y"]), weights={"w": (4, 5)}),
        "it has no inputs",
    ),
    "a sequence": (model([sequence("x")], [tensor("y", [])], node("SequenceLength", ["x"], ["y"])), "input x is not a tensor"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_onnx_file_that_cannot_be_a_source_is_refused_in_one_line(case, tmp_path):
    made, message = REFUSED[case]
    onnx.save(made, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=message):
        onnx_file.inspect(tmp_path / "m.onnx")
