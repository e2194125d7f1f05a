"""ncnn: reductions over one axis, which pnnx writes in a way that ncnn reads as none."""

import numpy as np
import pytest

from edgewise.agent import sessions
from edgewise.formats.ncnn import run
from edgewise.proof import checks
from tests.support.onnx_sources import converted, imported, model, node, normal
from tests.support.port_kinds import token_ids

pytestmark = [pytest.mark.framework, pytest.mark.formats]

pytest.importorskip("ncnn")
pytest.importorskip("pnnx")
pytest.importorskip("onnx")


def reduced(kind: str, axis: int, keep: int):
    nodes = [node(kind, ["x", "axes"], ["m"], name="reduce", keepdims=keep), node("Tanh", ["m"], ["y"], name="tanh")]
    sizes = ["batch", *(1 if place == axis else size for place, size in ((1, 4), (2, 6)) if place != axis or keep)]
    return model(nodes, {"x": ["batch", 4, 6]}, {"y": sizes}, {"axes": np.array([axis])})


@pytest.mark.parametrize("kind", ["ReduceMean", "ReduceSum"])
@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("keep", [0, 1])
def test_one_axis_is_reduced(kind, axis, keep, tmp_path):
    agrees(reduced(kind, axis, keep), {"x": normal(16, 4, 6)}, tmp_path)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers_that_choose_rows_of_a_table(dtype, tmp_path):
    net, arrays = token_ids(dtype, 40)
    agrees(net, arrays, tmp_path)


def agrees(net, arrays, tmp_path) -> None:
    source = imported(net, arrays, tmp_path / "source")
    folder = converted("ncnn", source, tmp_path / "ncnn")
    inputs, expected = checks.read_probe(source)
    assert checks.check_outputs(expected, sessions.run_batched(sessions.load(run, str(folder), {"threads": 1}), inputs), 100.0) >= 100
