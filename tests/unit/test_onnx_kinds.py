"""ONNX files of kinds that converters and quantizers stumble on: branches, open and odd sizes, stacked, grouped and shared
weights, integer inputs, recurrent layers. Each is built here, and compared with what ONNX Runtime makes of the file itself."""

import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.proof import checks
from edgewise.sources import onnx_file
from edgewise.stats.agreement import sqnr_db
from tests.conftest import ROOT
from tests.support.onnx_sources import (
    by_channel,
    converted,
    facts_of,
    graph,
    imported,
    kinds,
    layers_of,
    model,
    node,
    normal,
    outputs,
    quantized,
    share_of,
    whole_db,
    worst_db,
)

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
DATA = ROOT / "tests/data"
FORMATS = ("onnx", "openvino")


# branches and loops


def chosen_by(nodes, condition: str, inputs, weights):
    """Two branches that multiply x by different matrices, chosen by `condition`."""
    bodies = [graph([node("MatMul", ["x", f"w{n}"], [f"y{n}"], name=f"branch{n}")], {}, {f"y{n}": ["n", 5]}) for n in (0, 1)]
    return model([*nodes, node("If", [condition], ["y"], then_branch=bodies[1], else_branch=bodies[0])], inputs, {"y": ["n", 5]}, weights)


def rate_net():
    """As in detectors of speech: a scalar input says for which sampling rate, and chooses the branch."""
    weights = {"w0": normal(8, 5), "w1": normal(8, 5, seed=1), "wanted": np.array(16000)}
    return chosen_by([node("Equal", ["rate", "wanted"], ["c"])], "c", {"x": ["n", 8], "rate": [np.int64, []]}, weights)


@pytest.mark.parametrize(("rate", "branch"), [(16000, 1), (8000, 0)])
def test_a_branch_that_a_constant_input_decides_is_inlined(rate, branch, tmp_path):
    source = imported(rate_net(), {"x": normal(24, 8)}, tmp_path / "source", inputs={"rate": rate})
    assert kinds(source) == ["MatMul"] and [port.name for port in artifact.read(source).inputs] == ["x"]
    assert artifact.read(source).details["layers"].keys() == {f"branch{branch}"}
    assert f"input rate is the constant {rate} (model.inputs)" in artifact.read(source).details["notes"]
    parent = converted("onnx", source, tmp_path / "onnx")
    np.testing.assert_allclose(outputs("onnx", parent, source)["y"], normal(24, 8)[:16] @ normal(8, 5, seed=branch), rtol=1e-5, atol=1e-6)
    assert worst_db("onnx", quantized("onnx", "int8-static", parent, source, tmp_path / "int8"), source) > 25


def test_a_branch_that_the_size_of_the_data_decides_is_inlined(tmp_path):
    nodes = [node("Shape", ["x"], ["s"]), node("Gather", ["s", "one"], ["g"]), node("Equal", ["g", "eight"], ["c"])]
    weights = {"w0": normal(8, 5), "w1": normal(8, 5, seed=1), "one": np.array(1), "eight": np.array(8)}
    source = imported(chosen_by(nodes, "c", {"x": ["n", "width"]}, weights), {"x": normal(24, 8)}, tmp_path / "source")
    assert kinds(source) == ["MatMul"]


@pytest.fixture(scope="module")
def branches(tmp_path_factory) -> tuple[Path, Path]:
    """A branch that the values decide, so both stay."""
    folder = tmp_path_factory.mktemp("branches")
    source = imported(DATA / "branches.onnx", {"x": normal(24, 8)}, folder / "source")
    return source, converted("onnx", source, folder / "onnx")


def test_weights_in_branches_are_layers_of_every_onnx_variant_that_can_be(branches, tmp_path):
    source, parent = branches
    assert list(layers_of(parent)) == ["Gemm_0", "Gemm_0_1"] and worst_db("onnx", parent, source) >= 100
    for scheme, least_db in (("fp32", 100), ("fp16", 50), ("int8-dynamic", 30)):
        made = quantized("onnx", scheme, parent, source, tmp_path / scheme)
        assert share_of("onnx", scheme, made) == 1.0 and worst_db("onnx", made, source) >= least_db
    kept = quantized("onnx", "int8-dynamic", parent, source, tmp_path / "kept", keep=["Gemm_0"])
    assert share_of("onnx", "int8-dynamic", kept, ["Gemm_0"]) == 0.5


def test_the_static_quantizer_does_not_enter_branches_and_says_so(branches, tmp_path):
    source, parent = branches
    with pytest.raises(ValueError, match=r"^Gemm_0, Gemm_0_1: the weights are used in the body of an If or a Loop.*use int8-dynamic$"):
        quantized("onnx", "int8-static", parent, source, tmp_path / "made")


def test_weights_in_branches_are_found_in_openvino(branches, tmp_path):
    source, _ = branches
    parent = converted("openvino", source, tmp_path / "openvino")
    assert worst_db("openvino", parent, source) >= 100
    present = {entry["name"]: entry["elements"] for entry in facts_of("openvino", parent)["nodes"]}
    assert [present[name] for names in layers_of(parent).values() for name in names] == [40, 40]
    made = quantized("openvino", "fp16", parent, source, tmp_path / "fp16", keep=layers_of(parent)["Gemm_0"])
    assert share_of("openvino", "fp16", made, layers_of(parent)["Gemm_0"]) == 0.5


def convolutions_in_branches():
    """Two branches, each with a convolution of its own, whose weights stand in a Constant node of its body; the mean decides."""
    bodies = []
    for n in (0, 1):
        held = onnx.numpy_helper.from_array(normal(4, 3, 3, 3, seed=n), f"w{n}")
        inside = [node("Constant", [], [f"w{n}"], value=held), node("Conv", ["x", f"w{n}"], [f"y{n}"], name=f"branch{n}")]
        bodies.append(graph(inside, {}, {f"y{n}": [1, 4, 6, 6]}))
    nodes = [node("ReduceMean", ["x"], ["m"], keepdims=0), node("Less", ["m", "zero"], ["c"])]
    nodes += [node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])]
    return model(nodes, {"x": [1, 3, 8, 8]}, {"y": [1, 4, 6, 6]}, {"zero": np.float32(0)})


def test_weights_that_the_bodies_of_branches_hold_are_quantized(tmp_path):
    source = imported(convolutions_in_branches(), {"x": normal(24, 3, 8, 8)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    assert set(layers_of(parent)) == {"branch0", "branch1"} and worst_db("onnx", parent, source) >= 100
    made = quantized("onnx", "int8-dynamic", parent, source, tmp_path / "int8")
    assert share_of("onnx", "int8-dynamic", made) == 1.0 and worst_db("onnx", made, source) >= 20


def test_a_branch_that_no_calibration_sample_takes_is_said_to_be_unknown(tmp_path):
    source = imported(convolutions_in_branches(), {"x": np.abs(normal(24, 3, 8, 8))}, tmp_path / "source")
    parent = converted("openvino", converted("onnx", source, tmp_path / "onnx"), tmp_path / "openvino")
    with pytest.raises(ValueError, match=r"^no calibration sample takes one of the branches of an If.*or use fp16$"):
        quantized("openvino", "int8-static", parent, source, tmp_path / "int8")


def loop_net():
    """x is multiplied by w three times, the last time outside of the loop."""
    from onnx import TensorProto, helper

    typed = [helper.make_tensor_value_info(*entry) for entry in (("i", 7, []), ("go", 9, []), ("a", 1, ["n", 8]))]
    ends = [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("b", 1, ["n", 8])]
    body = helper.make_graph([node("Identity", ["go"], ["on"]), node("MatMul", ["a", "w"], ["b"], name="inner")], "body", typed, ends)
    nodes = [node("Loop", ["times", "", "x"], ["l"], body=body), node("MatMul", ["l", "w"], ["y"], name="outer")]
    return model(nodes, {"x": ["n", 8]}, {"y": ["n", 8]}, {"w": normal(8, 8) / 3, "times": np.array(2)})


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_a_loop_shares_with_the_graph_around_it_count_once(name, tmp_path):
    source = imported(loop_net(), {"x": normal(24, 8)}, tmp_path / "source")
    parent = converted(name, source, tmp_path / name)
    assert worst_db(name, parent, source) >= 100
    assert 0 < share_of(name, "fp32", parent) <= 1
    made = quantized(name, "fp16", parent, source, tmp_path / "fp16")
    assert 0 < share_of(name, "fp16", made) <= 1 and worst_db(name, made, source) > 50


# sizes


@pytest.mark.parametrize("written", [-1, 0])
def test_a_batch_that_is_written_as_a_number_below_one_is_open(written, tmp_path):
    net = model([node("MatMul", ["x", "w"], ["y"])], {"x": [1, 8]}, {"y": [1, 5]}, {"w": normal(8, 5)})
    for tensor in (*net.graph.input, *net.graph.output):
        tensor.type.tensor_type.shape.dim[0].dim_value = written
    source = imported(net, {"x": normal(24, 8)}, tmp_path / "source")
    manifest = artifact.read(source)
    assert [port.shape for port in (*manifest.inputs, *manifest.outputs)] == [(None, 8), (None, 5)]
    assert len(checks.read_probe(source)[1]["y"]) == 16
    assert worst_db("onnx", converted("onnx", source, tmp_path / "onnx"), source) >= 100


def test_open_height_and_width_are_fixed_to_those_of_the_data_and_said(tmp_path):
    nodes = [node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]), node("Sigmoid", ["c"], ["y"])]
    net = model(nodes, {"x": ["n", 3, "h", "w"]}, {"y": ["n", 1, "h", "w"]}, {"k": normal(1, 3, 3, 3)})
    source = imported(net, {"x": normal(24, 3, 10, 14)}, tmp_path / "source")
    assert onnx_file.inspect(tmp_path / "mine.onnx").notes[-1] == "input x has open sizes: every variant has those of the data"
    manifest = artifact.read(source)
    assert manifest.inputs[0].shape == (None, 3, 10, 14)
    assert "input x had open sizes; they are fixed to those of the data, 3 x 10 x 14" in manifest.details["notes"]
    for name in FORMATS:
        parent = converted(name, source, tmp_path / name)
        assert worst_db(name, parent, source) >= 100
    assert worst_db("onnx", quantized("onnx", "int8-static", tmp_path / "onnx", source, tmp_path / "int8"), source) > 20


def test_a_fixed_batch_is_filled_up_with_samples_to_calibrate(tmp_path):
    """The file takes five samples at a time, and there are sixteen."""
    net = model([node("MatMul", ["x", "w"], ["y"])], {"x": [5, 8]}, {"y": [5, 5]}, {"w": normal(8, 5)})
    source = imported(net, {"x": normal(24, 8)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    assert worst_db("onnx", quantized("onnx", "int8-static", parent, source, tmp_path / "int8"), source) > 25


# axes of scales

SHAPES = {  # nodes, weight, axis of its channels, shape of x, shape of y, axis of the scales in the static variant (None: one scale)
    "convolution": ("Conv", {}, (8, 4, 3, 3), 0, (4, 9, 9), (8, 7, 7), 0),
    "convolution of one axis": ("Conv", {}, (8, 4, 3), 0, (4, 20), (8, 18), 0),
    "grouped convolution": ("Conv", {"group": 4}, (8, 2, 3, 3), 0, (8, 9, 9), (8, 7, 7), 0),
    "depthwise convolution": ("Conv", {"group": 8}, (8, 1, 3, 3), 0, (8, 9, 9), (8, 7, 7), 0),
    "transposed convolution": ("ConvTranspose", {}, (8, 4, 2, 2), 1, (8, 9, 9), (4, 10, 10), 1),
    "depthwise transposed convolution": ("ConvTranspose", {"group": 8}, (8, 1, 2, 2), 0, (8, 9, 9), (8, 10, 10), 0),
    "grouped transposed convolution": ("ConvTranspose", {"group": 4}, (8, 2, 2, 2), 1, (8, 9, 9), (8, 10, 10), None),
    "a matrix": ("MatMul", {}, (16, 8), 1, (6, 16), (6, 8), 1),
    "a stack of matrices": ("MatMul", {}, (4, 16, 8), 2, (4, 6, 16), (4, 6, 8), None),
    "a matrix on the left": ("MatMul", {}, (8, 16), 0, (16, 6), (8, 6), 0),
}


def product_net(kind: str):
    """One product whose output channels differ in size."""
    operator, attributes, shape, axis, taken, given, _ = SHAPES[kind]
    weight = by_channel(*shape, axis=axis)
    bias = {"b": normal(given[0])} if operator != "MatMul" else {}
    names = ["w", "x"] if kind == "a matrix on the left" else ["x", "w", *bias]
    return model([node(operator, names, ["y"], **attributes)], {"x": ["n", *taken]}, {"y": ["n", *given]}, {"w": weight, **bias})


def restored_weight(folder: Path) -> tuple[np.ndarray, int | None]:
    """What the runtime reads as the weight w, and the axis of its scales: computed by onnx's own reference."""
    from onnx.reference import ReferenceEvaluator

    net = onnx.load(folder / "model.onnx")
    reader = next(entry for entry in net.graph.node if entry.op_type == "DequantizeLinear" and entry.input[0] == "w_quantized")
    held = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in net.graph.initializer}
    given = {name: held[name] for name in reader.input}
    (array,) = ReferenceEvaluator(reader).run(None, given)
    axis = next((attribute.i for attribute in reader.attribute if attribute.name == "axis"), None)
    return array, axis if held[reader.input[1]].ndim else None


def channel_error(weight: np.ndarray, other: np.ndarray, axis: int) -> float:
    """The largest error of a channel, relative to its largest weight."""
    rest = tuple(place for place in range(weight.ndim) if place != axis)
    return float((abs(weight - other).max(axis=rest) / abs(weight).max(axis=rest)).max())


@pytest.mark.parametrize("kind", SHAPES)
def test_static_scales_lie_on_the_axis_of_the_output_channels(kind, tmp_path):
    _, _, shape, axis, taken, _, expected = SHAPES[kind]
    source = imported(product_net(kind), {"x": normal(24, *taken)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    errors, ratios = {}, {}
    for per_channel in (True, False):
        made = quantized("onnx", "int8-static", parent, source, tmp_path / str(per_channel), per_channel=per_channel)
        assert share_of("onnx", "int8-static", made) == 1.0
        array, found = restored_weight(made)
        assert found == (expected if per_channel else None)
        errors[per_channel] = channel_error(by_channel(*shape, axis=axis), array, axis)
        ratios[per_channel] = whole_db("onnx", made, source)
    if expected is None:
        assert errors[True] == errors[False]
    else:
        assert errors[True] < 0.006 < 0.1 < errors[False]  # half a step of 127; of a channel 300 times smaller all is lost
        assert ratios[True] > ratios[False] - 1


def smallest_db(name: str, folder: Path, source: Path, axis: int) -> float:
    """SQNR of the output's channel with the smallest weights, which is the first."""
    expected, given = checks.read_probe(source)[1]["y"], outputs(name, folder, source)["y"]
    return sqnr_db(expected.take([0], axis), given.take([0], axis))


def test_a_stack_of_matrices_has_scales_per_column_where_they_are_found_at_run_time(tmp_path):
    source = imported(product_net("a stack of matrices"), {"x": normal(24, 4, 6, 16)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    made, single = (quantized("onnx", "int8-dynamic", parent, source, tmp_path / str(c), per_channel=c) for c in (True, False))
    assert share_of("onnx", "int8-dynamic", made) == share_of("onnx", "int8-dynamic", single) == 1.0
    assert smallest_db("onnx", made, source, -1) > 35 > 20 > smallest_db("onnx", single, source, -1)


@pytest.mark.parametrize("kind", [kind for kind, entry in SHAPES.items() if entry[0] == "Conv"])
def test_convolutions_have_a_scale_per_channel_where_ranges_are_found_at_run_time(kind, tmp_path):
    source = imported(product_net(kind), {"x": normal(24, *SHAPES[kind][4])}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    made, single = (quantized("onnx", "int8-dynamic", parent, source, tmp_path / str(c), per_channel=c) for c in (True, False))
    assert share_of("onnx", "int8-dynamic", made) == share_of("onnx", "int8-dynamic", single) == 1.0
    assert smallest_db("onnx", made, source, 1) > max(20, smallest_db("onnx", single, source, 1) + 10)


@pytest.mark.slow
@pytest.mark.parametrize("kind", SHAPES)
def test_scales_per_channel_keep_small_channels_in_openvino(kind, tmp_path):
    source = imported(product_net(kind), {"x": normal(24, *SHAPES[kind][4])}, tmp_path / "source")
    parent = converted("openvino", source, tmp_path / "openvino")
    made, single = (quantized("openvino", "int8-static", parent, source, tmp_path / str(c), per_channel=c) for c in (True, False))
    axis = -1 if kind in ("a matrix", "a stack of matrices") else 1
    assert smallest_db("openvino", made, source, axis) > max(15, smallest_db("openvino", single, source, axis) + 10)


# inputs of other types


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.int32, np.int64])
def test_integers_for_an_integer_port_go_in_as_they_are(dtype, tmp_path):
    nodes = [node("Cast", ["x"], ["f"], to=1), node("MatMul", ["f", "w"], ["y"])]
    net = model(nodes, {"x": [dtype, ["n", 8]]}, {"y": ["n", 5]}, {"w": normal(8, 5)})
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max if dtype in (np.uint8, np.int8) else 1000, (24, 8)).astype(dtype)
    source = imported(net, {"x": values}, tmp_path / "source")
    expected = values[:16].astype(np.float64) @ normal(8, 5)
    np.testing.assert_allclose(checks.read_probe(source)[1]["y"], expected, rtol=1e-4)
    assert artifact.read(source).inputs[0].dtype == np.dtype(dtype).name
    for name in FORMATS:
        parent = converted(name, source, tmp_path / name)
        np.testing.assert_allclose(outputs(name, parent, source)["y"], expected, rtol=1e-4)
    assert worst_db("onnx", quantized("onnx", "int8-static", tmp_path / "onnx", source, tmp_path / "int8"), source) > 30


# recurrent layers


def recurrent(kind: str, gates: int, stateful: bool = False):
    """10 steps of 6 numbers into 8; with state, one step that takes and gives it."""
    random = np.random.default_rng(0)
    held = {"w": random.normal(0, 0.4, (1, gates * 8, 6)), "r": random.normal(0, 0.3, (1, gates * 8, 8)), "a": np.array([0])}
    weights = {name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in held.items()}
    if stateful:
        nodes = [
            node("Unsqueeze", ["x", "a"], ["u"]),
            node(kind, ["u", "w", "r", "", "", "h", "c"], ["all", "hn", "cn"], hidden_size=8),
            node("Squeeze", ["hn", "a"], ["y"]),
        ]
        states = {"h": [1, "n", 8], "c": [1, "n", 8]}
        return model(nodes, {"x": ["n", 6], **states}, {"y": ["n", 8], "hn": [1, "n", 8], "cn": [1, "n", 8]}, weights)
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node(kind, ["t", "w", "r"], ["all", "last"], hidden_size=8),
        node("Squeeze", ["last", "a"], ["s"]),
        node("MatMul", ["s", "d"], ["y"]),
    ]
    return model(nodes, {"x": ["n", 10, 6]}, {"y": ["n", 5]}, {**weights, "d": normal(8, 5)})


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers_are_layers_in_both_formats(kind, gates, tmp_path):
    source = imported(recurrent(kind, gates), {"x": normal(24, 10, 6)}, tmp_path / "source")
    for name in FORMATS:
        parent = converted(name, source, tmp_path / name)
        assert worst_db(name, parent, source) >= 100
        (layer,) = (nodes for layer, nodes in layers_of(parent).items() if kind in layer)
        made = quantized(name, "fp16", parent, source, tmp_path / f"{name}-fp16", keep=layer)
        assert 0 < share_of(name, "fp16", made, layer) < 0.5 and worst_db(name, made, source) > 50


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "gates", "share"), [("LSTM", 4, 1.0), ("GRU", 3, 40 / 376), ("RNN", 1, 40 / 152)])
def test_openvino_quantizes_the_recurrent_layers_that_its_runtime_takes(kind, gates, share, tmp_path):
    source = imported(recurrent(kind, gates), {"x": normal(24, 10, 6)}, tmp_path / "source")
    parent = converted("openvino", source, tmp_path / "openvino")
    made = quantized("openvino", "int8-static", parent, source, tmp_path / "int8")
    assert share_of("openvino", "int8-static", made) == pytest.approx(share) and worst_db("openvino", made, source) > 25


def test_state_is_calibrated_step_by_step(tmp_path):
    source = imported(recurrent("LSTM", 4, stateful=True), {"x": normal(24, 7, 6)}, tmp_path / "source", state={"h": "hn", "c": "cn"})
    assert [port.sample_axis for port in artifact.read(source).inputs] == [0, 1, 1]
    parent = converted("onnx", source, tmp_path / "onnx")
    assert worst_db("onnx", parent, source) >= 100
    dynamic = quantized("onnx", "int8-dynamic", parent, source, tmp_path / "dynamic")
    assert share_of("onnx", "int8-dynamic", dynamic) == 1.0 and whole_db("onnx", dynamic, source) > 20


# shared weights


def shared_net():
    """One matrix as a table, as a product, and as a product in a branch, in a Constant node."""
    from onnx import numpy_helper

    table = normal(12, 8)
    constant = node("Constant", [], ["w"], value=numpy_helper.from_array(table))
    body = [
        graph([node("MatMul", ["t", "w"], [f"b{n}"]), node("Mul", [f"b{n}", f"s{n}"], [f"y{n}"])], {}, {f"y{n}": ["n", 8]}) for n in (0, 1)
    ]
    nodes = [
        constant,
        node("Gather", ["w", "ids"], ["e"]),
        node("ReduceMean", ["e", "axis"], ["m"], keepdims=0),
        node("Transpose", ["w"], ["wt"], perm=[1, 0]),
        node("MatMul", ["m", "wt"], ["t"]),
        node("ReduceMax", ["t"], ["top"], keepdims=0),
        node("Greater", ["top", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=body[0], else_branch=body[1]),
    ]
    held = {"axis": np.array([1]), "zero": np.float32(0), "s0": np.float32(1), "s1": np.float32(2)}
    return model(nodes, {"ids": [np.int64, ["n", 6]]}, {"y": ["n", 8]}, held)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_tables_products_and_branches_share_count_once(name, tmp_path):
    ids = np.random.default_rng(0).integers(0, 12, (24, 6))
    source = imported(shared_net(), {"ids": ids}, tmp_path / "source")
    parent = converted(name, source, tmp_path / name)
    assert worst_db(name, parent, source) >= 100
    for scheme in ("fp32", "fp16", *(["int8-dynamic"] if name == "onnx" else [])):
        made = quantized(name, scheme, parent, source, tmp_path / scheme)
        assert 0 < share_of(name, scheme, made) <= 1


# an environment without torch


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "int8-dynamic", "int8-static", "int4-weight"])
def test_an_onnx_file_needs_no_torch(scheme, tmp_path, monkeypatch):
    """The extra onnx does not install it: its wheels are four times as large as everything else together."""
    monkeypatch.setitem(sys.modules, "torch", None)
    net = model([node("MatMul", ["x", "w"], ["y"], name="product")], {"x": ["n", 64]}, {"y": ["n", 32]}, {"w": normal(64, 32)})
    source = imported(net, {"x": normal(8, 64)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "float")
    assert worst_db("onnx", quantized("onnx", scheme, parent, source, tmp_path / "variant"), source) > 15
