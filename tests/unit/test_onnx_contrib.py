"""Static quantization of ONNX files with operators of com.microsoft, of which ONNX itself knows no types."""

import numpy as np
import pytest

from edgewise.formats.onnx import facts
from tests.support.onnx_sources import model, node, normal
from tests.unit.test_onnx_spread import quantized

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.framework


def test_layers_behind_an_operator_of_microsoft_are_quantized(tmp_path):
    weights = {"w": normal(6, 3, 1, 1, seed=1), "v": normal(8, 6, 1, 1, seed=2), "l": normal(4, 8, 1, 1, seed=3)}
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="first"),
        node("QuickGelu", ["a"], ["g"], name="gelu", domain="com.microsoft", alpha=1.702),
        node("Conv", ["g", "v"], ["b"], name="second"),
        node("Relu", ["b"], ["r"], name="relu"),
        node("Conv", ["r", "l"], ["y"], name="last"),
    ]
    folder, left, found = quantized(model(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]}, weights), tmp_path)
    types = {entry["name"]: (entry["weights_dtype"], entry["activations_dtype"]) for entry in facts.facts(folder)["nodes"]}
    assert types == dict.fromkeys(("first", "second", "last"), ("int8", "uint8")) and not left
    assert found > 25 and np.isfinite(found)
