"""ONNX files that are correct, and that a quantizer, a converter or a newer runtime nevertheless stumbles on, come in like any other."""

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.proof import checks
from edgewise.sources import onnx_file
from tests.support.onnx_sources import converted, imported, layers_of, model, node, normal, quantized, worst_db

pytestmark = pytest.mark.framework

X, WEIGHTS = normal(24, 6), {"v": normal(6, 8, seed=1), "w": normal(8, 3, seed=2)}
NODES = [
    node("MatMul", ["x", "v"], ["p"], name="first"),
    node("Relu", ["p"], ["r"], name="relu"),
    node("MatMul", ["r", "w"], ["y"], name="last"),
]
SIDES = {"x": ["batch", 6]}, {"y": ["batch", 3]}


def with_functions():
    """A function of the file's own that holds weights, in float64."""
    import onnx
    from onnx import helper

    held = onnx.numpy_helper.from_array(WEIGHTS["v"].astype(np.float64), "v")
    inner = [node("Cast", ["a"], ["d"], to=11), node("Constant", [], ["v"], value=held), node("MatMul", ["d", "v"], ["m"])]
    body = helper.make_function("own", "Block", ["a"], ["b"], [*inner, node("Cast", ["m"], ["b"], to=1)], [helper.make_opsetid("", 21)])
    block = node("Block", ["x"], ["p"], domain="own", name="block")
    made = model([block, *NODES[1:]], *SIDES, {"w": WEIGHTS["w"]})
    made.functions.append(body)
    made.opset_import.append(helper.make_opsetid("own", 1))
    return made


def with_equal_names():
    made = model(NODES, *SIDES, WEIGHTS)
    for each in made.graph.node:
        each.name = "node"
    return made


def in_no_order():
    return model(NODES[::-1], *SIDES, WEIGHTS)


def of_an_early_version():
    """Opset 8 and IR version 3, whose initializers are no inputs."""
    made = model(NODES, *SIDES, WEIGHTS)
    made.opset_import[0].version, made.ir_version = 8, 3
    return made


def with_sparse_weights():
    """One in the place of an initializer, whose indices count in the flat tensor; one in a Constant node, with indices by axis."""
    from onnx import helper, numpy_helper

    first, last = WEIGHTS["v"], WEIGHTS["w"]
    flat = numpy_helper.from_array(np.arange(first.size), "places")
    sparse = helper.make_sparse_tensor(numpy_helper.from_array(first.ravel(), "v"), flat, list(first.shape))
    by_axis = numpy_helper.from_array(np.argwhere(np.ones_like(last)), "places")
    constant = helper.make_sparse_tensor(numpy_helper.from_array(last.ravel(), "w"), by_axis, list(last.shape))
    made = model([node("Constant", [], ["w"], sparse_value=constant), *NODES], *SIDES)
    made.graph.sparse_initializer.append(sparse)
    return made


KINDS = {
    "sparse weights": with_sparse_weights,
    "functions": with_functions,
    "equal names": with_equal_names,
    "no order": in_no_order,
    "an early version": of_an_early_version,
}


@pytest.mark.parametrize("kind", KINDS)
def test_such_a_file_computes_the_same_and_its_weights_are_layers(kind, tmp_path):
    source = imported(KINDS[kind](), {"x": X}, tmp_path / "source")
    np.testing.assert_allclose(checks.read_probe(source)[1]["y"], np.maximum(X[:16] @ WEIGHTS["v"], 0) @ WEIGHTS["w"], rtol=1e-4, atol=1e-5)
    parent = converted("onnx", source, tmp_path / "float")
    assert worst_db("onnx", parent, source) > 100
    assert len(layers_of(parent)) == 2


def test_an_output_that_is_an_input_is_given_back(tmp_path):
    sides = SIDES[0], {"y": ["batch", 3], "x": ["batch", 6]}
    source = imported(model(NODES, *sides, WEIGHTS), {"x": X}, tmp_path / "source")
    np.testing.assert_array_equal(checks.read_probe(source)[1]["x_out"], X[:16])
    assert worst_db("onnx", converted("onnx", source, tmp_path / "float"), source) > 100


def test_an_output_that_is_listed_twice_is_given_twice(tmp_path):
    """As torch's older exporter writes a module that returns one tensor two times. A value with the name of the copy is there already."""
    nodes = [node("MatMul", ["x", "v"], ["y_out"], name="first"), NODES[1], NODES[2]]
    nodes[1] = node("Relu", ["y_out"], ["r"], name="relu")
    net = model(nodes, *SIDES, WEIGHTS)
    net.graph.output.append(net.graph.output[0])
    source = imported(net, {"x": X}, tmp_path / "source")
    outputs = checks.read_probe(source)[1]
    assert list(outputs) == ["y", "y_out_out"]
    np.testing.assert_array_equal(*outputs.values())
    assert worst_db("onnx", converted("onnx", source, tmp_path / "float"), source) > 100


def test_a_number_of_samples_that_is_open_in_name_only_is_fixed(tmp_path):
    nodes = [*NODES[:-1], node("Reshape", ["r", "one"], ["s"], name="shape"), node("MatMul", ["s", "w"], ["y"], name="last")]
    net = model(nodes, *SIDES, {**WEIGHTS, "one": np.array([1, 8])})
    source = imported(net, {"x": X}, tmp_path / "source")
    manifest = artifact.read(source)
    assert [manifest.inputs[0].shape, manifest.outputs[0].shape] == [(1, 6), (1, 3)]
    assert "it is fixed to 1" in " ".join(manifest.details["notes"])
    assert worst_db("onnx", converted("onnx", source, tmp_path / "float"), source) > 100


def test_an_input_without_a_shape_is_refused(tmp_path):
    net = model(NODES, *SIDES, WEIGHTS)
    net.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(onnx_file.ModelError, match=r"input x has no shape in the file; export it with one"):
        imported(net, {"x": X}, tmp_path / "source")


def test_a_sample_that_is_one_number_reaches_a_scalar_input(tmp_path):
    """numpy makes no array of a single number by itself, and the runtime takes arrays only."""
    nodes = [node("Reshape", ["x", "shape"], ["s"], name="shape"), node("MatMul", ["s", "v"], ["y"], name="last")]
    net = model(nodes, {"x": []}, {"y": [1, 3]}, {"v": normal(1, 3), "shape": np.array([1, 1])})
    source = imported(net, {"x": X[:, 0]}, tmp_path / "source")
    assert worst_db("onnx", converted("onnx", source, tmp_path / "float"), source) > 100


def test_an_output_that_is_a_constant_can_be_narrowed(tmp_path):
    anchors = np.random.default_rng(3).uniform(size=(5, 4)).astype(np.float32)
    nodes = [*NODES, node("Mul", ["held", "two"], ["anchors"], name="scale")]
    net = model(nodes, SIDES[0], {**SIDES[1], "anchors": [5, 4]}, {**WEIGHTS, "held": anchors, "two": np.array(2, np.float32)})
    source = imported(net, {"x": X}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "float")
    assert worst_db("onnx", quantized("onnx", "fp16", parent, source, tmp_path / "fp16"), source) > 50


def test_an_input_keeps_its_name_where_openvino_folds_the_operator_behind_it(tmp_path):
    nodes = [node("Cast", ["ids"], ["a"], to=7, name="cast"), node("Gather", ["table", "a"], ["e"], name="table")]
    nodes += [node("ReduceMean", ["e", "axes"], ["m"], name="mean", keepdims=0), node("MatMul", ["m", "w"], ["y"], name="last")]
    weights = {"table": normal(9, 8, seed=1), "w": WEIGHTS["w"], "axes": np.array([1])}
    net = model(nodes, {"ids": [np.int32, ["batch", 5]]}, {"y": ["batch", 3]}, weights)
    source = imported(net, {"ids": np.random.default_rng(0).integers(0, 9, (24, 5)).astype(np.int32)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "float")
    assert worst_db("openvino", converted("openvino", parent, tmp_path / "openvino"), source) > 100


def test_filters_that_another_node_reads_are_quantized_for_the_convolution_alone(tmp_path):
    """The scales per channel of a convolution have a shape that nothing else can read."""
    nodes = [node("Conv", ["image", "c"], ["a"], name="conv"), node("ReduceMean", ["c", "axes"], ["m"], name="mean", keepdims=0)]
    nodes += [node("Mul", ["a", "c"], ["y"], name="times")]
    net = model(
        nodes, {"image": ["batch", 3, 5, 5]}, {"y": [3, 3, 3, 3], "m": [3]}, {"c": normal(3, 3, 3, 3, seed=1), "axes": np.array([1, 2, 3])}
    )
    source = imported(net, {"image": normal(24, 3, 5, 5)}, tmp_path / "source", outputs=["y"], inputs={"image": {"sample_axis": 0}})
    parent = converted("onnx", source, tmp_path / "float")
    assert worst_db("onnx", quantized("onnx", "int8-dynamic", parent, source, tmp_path / "int8"), source) > 20


def test_a_file_with_some_quantized_layers_is_what_these_are(tmp_path):
    """Its largest layer may be float."""
    nodes = [node("QuantizeLinear", ["x", "s", "z"], ["q"]), node("DequantizeLinear", ["q", "s", "z"], ["d"])]
    nodes += [node("DequantizeLinear", ["v", "t", "o"], ["vd"]), node("MatMul", ["d", "vd"], ["p"], name="first")]
    nodes += [node("Relu", ["p"], ["r"]), node("MatMul", ["r", "w"], ["y"], name="last")]
    weights = {"v": np.rint(WEIGHTS["v"] * 40).clip(-127, 127).astype(np.int8), "w": normal(8, 30, seed=2)}
    scales = {"s": np.float32(0.03), "z": np.uint8(128), "t": np.float32(0.025), "o": np.int8(0)}
    net = model(nodes, SIDES[0], {"y": ["batch", 30]}, weights | scales)
    source = imported(net, {"x": X}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "float")
    assert worst_db("onnx", quantized("onnx", "int8-static", parent, source, tmp_path / "int8"), source) > 100
    with pytest.raises(ValueError, match="can be measured as int8-static"):
        quantized("onnx", "fp32", parent, source, tmp_path / "fp32")
