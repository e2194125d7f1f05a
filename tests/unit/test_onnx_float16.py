"""float16 ONNX files: kept at their own precision, and compared at it."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.proof import checks, making
from tests.support.onnx_sources import (
    by_channel,
    converted,
    facts_of,
    imported,
    kinds,
    model,
    node,
    normal,
    quantized,
    share_of,
    stored,
    whole_db,
)

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")


def float16_net():
    """A convolution and a product in float16, inputs and outputs too."""
    nodes = [
        node("Conv", ["x", "k", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["r"]),
        node("GlobalAveragePool", ["r"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("MatMul", ["f", "w"], ["y"]),
    ]
    held = {"k": normal(8, 3, 3, 3), "b": normal(8), "w": normal(8, 5)}
    half = {name: array.astype(np.float16) for name, array in held.items()}
    return model(nodes, {"x": [np.float16, ["n", 3, 12, 12]]}, {"y": [np.float16, ["n", 5]]}, half)


@pytest.fixture(scope="module")
def half(tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("float16")
    source = imported(float16_net(), {"x": normal(24, 3, 12, 12)}, folder / "source")
    return source, converted("onnx", source, folder / "onnx")


def test_a_float16_file_is_its_own_fp16_variant(half, tmp_path):
    source, parent = half
    made = quantized("onnx", "fp16", parent, source, tmp_path / "fp16")
    users = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in float16_net().graph.initializer}
    for name, array in users.items():
        np.testing.assert_array_equal(stored(made)[name], array)
    assert kinds(made) == ["Cast", "Conv", "Relu", "GlobalAveragePool", "Flatten", "MatMul", "Cast"]
    ports = onnx.load(made / "model.onnx").graph
    assert [p.type.tensor_type.elem_type for p in (*ports.input, *ports.output)] == [onnx.TensorProto.FLOAT] * 2
    assert share_of("onnx", "fp16", made) == 1.0 and whole_db("onnx", made, source) > 50
    assert facts_of("onnx", parent)["weights_bytes_by_dtype"] == {"float32": 4 * (8 * 27 + 40)}


def test_layers_that_are_to_stay_float_do_so_in_a_float16_file_too(half, tmp_path):
    source, parent = half
    made = quantized("onnx", "fp16", parent, source, tmp_path / "fp16", keep=["MatMul_4"])
    assert {entry["name"]: entry["weights_dtype"] for entry in facts_of("onnx", made)["nodes"]} == {
        "Conv_0": "float16",
        "MatMul_4": "float32",
    }


def test_variants_of_a_float16_file_are_compared_at_its_precision(half, tmp_path, monkeypatch):
    """The float32 model differs from the file by the rounding of its operators, which no conversion can avoid."""
    source, parent = half
    assert artifact.read(source).details["precision"] == "float16"
    found = making.compare_with_source("edgewise.formats.onnx", parent, {}, 200.0, source)
    assert 45 < making.lowest_db(found) < 200
    assert checks.least_sqnr_db(60.0, "float16") == 40.0 and checks.least_sqnr_db(6.0, "float16") == 6.0
    assert checks.least_sqnr_db(60.0, None) == 60.0


def test_no_less_than_its_precision_is_asked_of_a_float16_file(half, monkeypatch):
    source, parent = half
    monkeypatch.setitem(checks.PRECISION_SQNR_DB, "float16", 199.0)
    with pytest.raises(checks.VariantFailed, match="this scheme needs at least 199 dB"):
        making.compare_with_source("edgewise.formats.onnx", parent, {}, 200.0, source)


def test_a_file_with_float32_products_beside_float16_ones_is_widened_only(tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Cast", ["p"], ["c"], to=1), node("MatMul", ["c", "v"], ["y"])]
    net = model(nodes, {"x": [np.float16, ["n", 8]]}, {"y": ["n", 5]}, {"w": normal(8, 6).astype(np.float16), "v": normal(6, 5)})
    source = imported(net, {"x": normal(24, 8)}, tmp_path / "source")
    assert "precision" not in artifact.read(source).details and not (source / "model.float16.onnx").exists()
    assert {tensor.dtype for tensor in stored(source).values()} == {np.dtype("float32")}


def test_float16_keeps_weights_beyond_10000(tmp_path):
    """The converter of ONNX Runtime cuts them to 10000 unless it is told not to."""
    held = {"w": by_channel(8, 5, axis=1) * np.float32(1e4)}
    source = imported(
        model([node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 8]}, {"y": ["n", 5]}, held), {"x": normal(24, 8)}, tmp_path / "s"
    )
    made = quantized("onnx", "fp16", converted("onnx", source, tmp_path / "onnx"), source, tmp_path / "fp16")
    assert abs(held["w"]).max() > 2e4
    np.testing.assert_array_equal(stored(made)["w"], held["w"].astype(np.float16))
