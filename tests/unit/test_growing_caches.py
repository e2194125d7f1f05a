"""A cache of keys and values that starts empty and grows with each step: OpenVINO answers as ONNX Runtime does, however long it gets."""

import numpy as np
import pytest

from edgewise.formats.onnx import run as onnx_run
from edgewise.formats.openvino import run
from tests.support.onnx_sources import model, node, normal

pytestmark = [pytest.mark.framework, pytest.mark.formats]

openvino = pytest.importorskip("openvino")
onnx = pytest.importorskip("onnx")
STEPS = 20


def attention(axis: int):
    nodes = [node("MatMul", ["x", "wk"], ["k"]), node("MatMul", ["x", "wq"], ["q"])]
    nodes += [node("Concat", ["past", "k"], ["present"], axis=axis), node("Transpose", ["present"], ["kt"], perm=[0, 2, 1])]
    nodes += [node("MatMul", ["q", "kt"], ["a"]), node("Softmax", ["a"], ["s"], axis=-1)]
    nodes += [node("MatMul", ["s", "present"], ["c"]), node("MatMul", ["c", "wo"], ["y"])]
    weights = {name: normal(16, 16, seed=seed) for seed, name in enumerate(("wk", "wq", "wo"))}
    return model(
        nodes, {"x": ["batch", 1, 16], "past": ["batch", "length", 16]}, {"y": ["batch", 1, 16], "present": ["batch", None, 16]}, weights
    )


@pytest.mark.parametrize("axis", [1, -2])
def test_a_cache_that_starts_empty(axis, tmp_path):
    onnx.save(attention(axis), tmp_path / "model.onnx")
    openvino.save_model(openvino.convert_model(tmp_path / "model.onnx"), tmp_path / "model.xml", compress_to_fp16=False)
    sessions = [loaded.load(str(tmp_path), {"threads": 1}) for loaded in (onnx_run, run)]
    caches = [np.zeros((1, 0, 16), np.float32)] * 2
    for step in range(STEPS):
        given = [session.run({"x": normal(1, 1, 16, seed=step), "past": past}) for session, past in zip(sessions, caches, strict=True)]
        caches = [each["present"] for each in given]
        np.testing.assert_allclose(given[1]["y"], given[0]["y"], atol=1e-4, err_msg=f"step {step}")
