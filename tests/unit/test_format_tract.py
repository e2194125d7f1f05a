"""tract: what the contract of all formats does not ask."""

import json
from pathlib import Path

import numpy as np
import pytest

from edgewise.formats.tract import make, profile, run
from tests.support.onnx_sources import model, node, normal

pytestmark = [pytest.mark.framework, pytest.mark.formats]


def test_a_product_that_is_fused_into_its_activation_counts_as_the_product():
    operators = {
        "conv.1": {"type": "Conv", "product": "conv.1"},
        "relu": {"type": "Relu", "product": "conv.1"},
        "pool": {"type": "MaxPool", "product": "conv.1"},
    }
    nodes = [
        {"node_name": "pool", "op_name": "MaxPool", "secs_per_iter": 4.0},
        {"node_name": "conv.1.im2col", "op_name": "Im2col", "secs_per_iter": 1.0},
        {"node_name": "relu.low", "op_name": "OptMatMul", "secs_per_iter": 2.0},
        {"node_name": "conv.1.bias", "op_name": "Const"},
        {"node_name": "image", "op_name": "Source", "secs_per_iter": 0.5},
    ]
    assert profile.add_up(nodes, operators) == {"image": 0.5, "conv.1": 3.0, "pool": 4.0}
    assert [*profile.add_up(nodes, operators)] == ["image", "conv.1", "pool"], "in the order of the file"


def test_a_weight_too_large_for_float16_is_named():
    with pytest.raises(ValueError, match=r"weight stem: 1e\+05 is too large for float16 \(65504\): keep its layer float with keep_float"):
        make.narrow(np.array([1.0, -1e5], np.float32), "stem")


@pytest.mark.parametrize(
    ("settings", "message"), [({"threads": 2}, "engine.threads: 2; allowed: 1"), ({"precision": "f8"}, "allowed: f32, f16")]
)
def test_an_engine_value_that_is_not_there_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run.choose(settings)


def test_a_weight_that_a_kept_node_reads_too_stays_float():
    pytest.importorskip("onnx")
    products = [node("MatMul", ["x", "w"], ["a"], name="first"), node("MatMul", ["a", "w"], ["y"], name="second")]
    shared = model(products, {"x": [1, 4]}, {"y": [1, 4]}, {"w": normal(4, 4)})
    assert make.find_narrowed(shared, []) == ["w"] and make.find_narrowed(shared, ["first"]) == []


def test_a_file_that_is_cut_short_is_refused_in_one_line(tmp_path):
    pytest.importorskip("tract")
    (tmp_path / run.MODEL).write_bytes(b"no model")
    (tmp_path / run.PORTS).write_text(json.dumps({"inputs": [], "outputs": [], "operators": {}}))
    with pytest.raises(RuntimeError, match=r"^[^\n]*[Pp]rotobuf[^\n]*$"):
        run.load(str(tmp_path), {})


def test_an_operator_that_tract_lacks_is_named(tmp_path: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("tract")
    for name in ("onnx", "tract"):
        (tmp_path / name).mkdir()
    net = model([node("Foo", ["x"], ["y"], name="foo", domain="com.microsoft")], {"x": [1, 3]}, {"y": [1, 3]})
    onnx.save(net, tmp_path / "onnx" / run.MODEL)
    (tmp_path / "onnx/layers.json").write_text("{}")
    with pytest.raises(ValueError, match=r"^tract cannot load this model: [^\n]*Foo[^\n]*; use onnx for it$"):
        make.convert(tmp_path / "onnx", tmp_path / "tract", {})
