"""ONNX files that are quantized already: recognized, described, and taken as the one variant that they are."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.compress.build import Build
from edgewise.compress.variants import check_file
from edgewise.errors import VariantFailed
from edgewise.inspect import model_file
from edgewise.proof import checks
from tests.conftest import ROOT
from tests.support import formats, onnx_sources
from tests.support.onnx_sources import converted, imported, model, node, normal, outputs, quantized
from tests.support.source_kinds import make_of

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
from edgewise.sources import onnx_numbers  # noqa: E402

DATA = ROOT / "tests/data"
OWN = {"quantized_qdq.onnx": "int8-static", "quantized_dynamic.onnx": "int8-dynamic"}
SIGNALS = {"x": normal(24, 3, 40)}
SCALE, ZERO = np.float32(0.02), np.int8(3)


def pairs(weight: np.ndarray, activations: type = np.int8, quantize: bool = False):
    """x -> Q -> DQ -> MatMul with a weight that is stored as integers, or rounded as the file is loaded."""
    held = {"w": weight, "s": SCALE, "z": activations(0), "ws": SCALE, "wz": np.int8(0)}
    first = [node("QuantizeLinear", ["w", "ws", "wz"], ["wq"])] if quantize else []
    nodes = [
        *first,
        node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        node("DequantizeLinear", ["wq" if quantize else "w", "ws", "wz"], ["wd"]),
        node("MatMul", ["xd", "wd"], ["y"]),
    ]
    return model(nodes, {"x": ["n", 4]}, {"y": ["n", 5]}, held)


def integers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(-100, 100, shape).astype(np.int8)


def on_integers():
    held = {"w": integers(4, 5), "s": SCALE, "z": ZERO}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["p"]),
        node("DequantizeLinear", ["p", "s", "z"], ["y"]),
    ]
    return model(nodes, {"x": ["n", 4]}, {"y": ["n", 5]}, held)


def in_blocks():
    held = {"w": np.zeros((5, 1, 16), np.uint8), "s": np.ones(5, np.float32)}
    product = node("MatMulNBits", ["x", "w", "s"], ["y"], K=32, N=5, bits=4, block_size=32, domain="com.microsoft")
    return model([product], {"x": ["n", 32]}, {"y": ["n", 5]}, held)


def stored_only():
    """Weights as integers beside float activations."""
    held = {"w": integers(4, 5), "s": SCALE}
    nodes = [node("DequantizeLinear", ["w", "s"], ["d"]), node("MatMul", ["x", "d"], ["y"])]
    return model(nodes, {"x": ["n", 4]}, {"y": ["n", 5]}, held)


KINDS = {
    "QDQ": (lambda: pairs(integers(4, 5)), "int8-static", "int8 already: QDQ"),
    "rounded at load": (lambda: pairs(normal(4, 5), quantize=True), "int8-static", "int8 already: QDQ"),
    "16-bit activations": (
        lambda: pairs(integers(4, 5), np.int16),
        None,
        "int8 already: QDQ, int8 weights with int16 activations",
    ),
    "QOperator": (on_integers, "int8-static", "int8 already: QOperator"),
    "blocks": (in_blocks, "int4-weight", "int4 already: MatMulNBits"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_graph_is_recognized_by_its_largest_weight(kind):
    build, scheme, described = KINDS[kind]
    found = onnx_numbers.recognize_quantized(build())
    assert found is not None and (found.scheme, found.described) == (scheme, described)


@pytest.mark.parametrize("name", ["shared_weights.onnx", "int32_input.onnx", "branches.onnx"])
def test_a_float_graph_is_not(name):
    assert onnx_numbers.recognize_quantized(onnx.load(DATA / name)) is None


def test_weights_that_are_only_stored_as_integers_make_a_float_graph(tmp_path):
    assert onnx_numbers.recognize_quantized(stored_only()) is None
    source = imported(stored_only(), {"x": normal(24, 4)}, tmp_path / "source")
    graph = onnx.load(source / "model.onnx").graph
    assert [entry.op_type for entry in graph.node] == ["MatMul"]
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(graph.initializer[0]), integers(4, 5) * SCALE)


@pytest.mark.parametrize("name", OWN)
def test_inspect_describes_it_and_offers_the_one_variant_that_it_is(name):
    """The float model has a convolution [7, 3, 3] with bias, a batch norm and a layer [5, 7] with bias, on signals of 40 steps."""
    _, seen = model_file.inspect_file(DATA / name, ROOT / "conf")
    assert seen.parameters == 7 * 3 * 3 + 7 + 4 * 7 + 5 * 7 + 5
    assert seen.multiply_adds == 7 * 40 * 9 + 35
    assert "int8 already: " in seen.kind and seen.notes == ("it is measured as it is",)
    assert seen.schemes == (OWN[name],)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, tuple[Path, Path]]:
    """Source and float model (which is the file itself) of each file."""
    made = {}
    for name in OWN:
        folder = tmp_path_factory.mktemp(name)
        source = imported(DATA / name, SIGNALS, folder / "source")
        made[name] = source, converted("onnx", source, folder / "onnx")
    return made


@pytest.mark.parametrize("name", OWN)
def test_it_stays_as_it_is(name, sources, tmp_path):
    source, parent = sources[name]
    expected = checks.read_probe(source)[1]
    folder = quantized("onnx", OWN[name], parent, source, tmp_path / "made")
    assert (folder / "model.onnx").read_bytes() == (parent / "model.onnx").read_bytes()
    np.testing.assert_array_equal(outputs("onnx", folder, source)["out"], expected["out"])
    assert onnx_sources.share_of("onnx", OWN[name], folder) == 1.0
    before, after = ([entry.op_type for entry in onnx.load(p).graph.node] for p in (DATA / name, folder / "model.onnx"))
    assert before == after


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "int8-static", "int8-dynamic", "int4-weight"])
@pytest.mark.parametrize("name", OWN)
def test_it_becomes_no_other_variant_and_the_reason_is_one_line(name, scheme, sources, tmp_path):
    if scheme == OWN[name]:
        return
    with pytest.raises(ValueError, match=rf"quantized already and stays as it is: it can be measured as {OWN[name]}.*, not as {scheme}$"):
        quantized("onnx", scheme, sources[name][1], sources[name][0], tmp_path / "made")


@pytest.mark.parametrize("name", OWN)
def test_openvino_leaves_it_to_onnx(name, sources, tmp_path):
    pytest.importorskip("openvino")
    with pytest.raises(ValueError, match=r"quantized already .*: OpenVINO would round it in another way; measure it as it is, with onnx"):
        converted("openvino", sources[name][0], tmp_path / "openvino")


def test_a_file_that_is_like_no_scheme_says_what_it_is(tmp_path):
    source = imported(pairs(integers(4, 5), np.int16), {"x": normal(24, 4)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    with pytest.raises(ValueError, match="it has int8 weights with int16 activations, not int8-static"):
        quantized("onnx", "int8-static", parent, source, tmp_path / "made")


def without_zero_points(kind: int | None):
    """The same with zero points left out by an empty name; kind: the type of the activations, as QuantizeLinear's attribute."""
    named = {} if kind is None else {"output_dtype": kind}
    nodes = [
        node("QuantizeLinear", ["x", "s", ""], ["xq"], **named),
        node("DequantizeLinear", ["xq", "s", ""], ["xd"]),
        node("DequantizeLinear", ["w", "s", ""], ["wd"]),
        node("MatMul", ["xd", "wd"], ["y"]),
    ]
    return model(nodes, {"x": ["n", 4]}, {"y": ["n", 5]}, {"w": integers(4, 5), "s": SCALE})


@pytest.mark.parametrize(("kind", "activations"), [(None, "int8"), (onnx.TensorProto.INT8, "int8"), (onnx.TensorProto.INT16, "int16")])
def test_zero_points_may_be_left_out(kind, activations, tmp_path):
    net = without_zero_points(kind)
    assert onnx_numbers.recognize_quantized(net).activations == activations
    source = imported(net, {"x": normal(24, 4)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    if activations == "int8":
        assert onnx_sources.share_of("onnx", "int8-static", quantized("onnx", "int8-static", parent, source, tmp_path / "made")) == 1.0
    else:
        with pytest.raises(ValueError, match="it has int8 weights with int16 activations, not int8-static"):
            quantized("onnx", "int8-static", parent, source, tmp_path / "made")


def test_float_weights_that_are_rounded_at_load_are_stored_as_integers(tmp_path):
    source = imported(pairs(normal(4, 5), quantize=True), {"x": normal(24, 4)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    assert onnx_sources.facts_of("onnx", parent)["weights_bytes_by_dtype"] == {"int8": 20}
    np.testing.assert_array_equal(outputs("onnx", parent, source)["y"], checks.read_probe(source)[1]["y"])


def half_float():
    """A quantized product, and a smaller float one behind it."""
    made = pairs(integers(4, 5))
    made.graph.node[-1].output[0] = "inner"
    made.graph.node.append(node("MatMul", ["inner", "v"], ["y"]))
    made.graph.initializer.append(onnx.numpy_helper.from_array(normal(5, 3), "v"))
    made.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 3
    return made


def test_layers_that_are_float_in_the_users_file_may_stay_so(tmp_path):
    source = imported(half_float(), {"x": normal(24, 4)}, tmp_path / "source")
    parent = converted("onnx", source, tmp_path / "onnx")
    folder = quantized("onnx", "int8-static", parent, source, tmp_path / "made")
    build = Build(formats.variant("onnx", "int8-static"), parent, source, None)  # type: ignore[arg-type]
    _, share = check_file(build, [], make_of("onnx").SCHEMES["int8-static"], folder)
    assert share == 20 / 35
    manifest = artifact.read(source)
    artifact.write(source, type(manifest)(**{**vars(manifest), "details": {**manifest.details, "quantized": None}}))
    with pytest.raises(VariantFailed, match="did less than its name says"):
        check_file(build, [], make_of("onnx").SCHEMES["int8-static"], folder)
