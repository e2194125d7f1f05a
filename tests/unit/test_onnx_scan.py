"""The scan of ONNX sources: against that of the same net as a torch program, with state, and by the part of the outputs that loses most."""

import json
import shutil

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.compress.sensitivity import find_parts
from edgewise.errors import VariantFailed
from edgewise.formats.onnx import scan
from edgewise.formats.torch import scan as torch_scan
from edgewise.sources import onnx_graph
from tests.conftest import ROOT
from tests.support.onnx_sources import by_channel, imported, model, node, normal
from tests.support.source_kinds import FEEDS

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.framework

SAMPLES = 24
PLAIN = {"inputs": {}, "outputs": {}}


def feeds_of(arrays) -> list[dict[str, np.ndarray]]:
    return [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(SAMPLES)]


def scanned(source, feeds, per_channel=True):
    manifest = artifact.read(source)
    ports = artifact.plan_ports(manifest.inputs, manifest.outputs)
    return scan.scan(source, feeds, per_channel, find_parts(source), ports)


@pytest.mark.parametrize("per_channel", [False, True])
def test_layers_suffer_as_in_the_torch_program_of_the_same_net(per_channel, source, floats, tmp_path):
    """The graph stands for a file of its own: its layers are its nodes."""
    nodes = json.loads((floats["onnx"] / "layers.json").read_text())
    listed = onnx_graph.list_layers(onnx.load(floats["onnx"] / "model.onnx"))
    (tmp_path / "manifest.json").write_text(json.dumps({"details": {"layers": listed}}))
    shutil.copy(floats["onnx"] / "model.onnx", tmp_path)
    found = scan.scan(tmp_path, FEEDS, per_channel, find_parts(source), PLAIN)
    other = torch_scan.scan(source, FEEDS, per_channel, find_parts(source), PLAIN)
    assert set(found["layers"]) == {node for layer in other["layers"] for node in nodes[layer]}
    for layer, expected in other["layers"].items():
        own = found["layers"][nodes[layer][0]]
        assert own["elements"] == expected["elements"], layer
        assert abs(10 * np.log10(own["noise"] / expected["noise"])) < 6, layer
    assert 0.5 < found["noise"] / sum(layer["noise"] for layer in found["layers"].values()) < 1.5


def carried() -> tuple:
    """A step adds to the state, one lane of which is a hundred times as large, and answers with a product of it."""
    weights = {"w": normal(4, 6, seed=1), "v": by_channel(6, 3, axis=0, seed=2)}
    nodes = [
        node("MatMul", ["x", "w"], ["taken"], name="take"),
        node("Mul", ["h", "half"], ["old"], name="fade"),
        node("Add", ["taken", "old"], ["next"], name="add"),
        node("MatMul", ["next", "v"], ["y"], name="answer"),
    ]
    sides = {"x": [None, 4], "h": [None, 6]}, {"y": [None, 3], "next": [None, 6]}
    arrays = {"x": np.stack([normal(5, 4, seed=i) for i in range(SAMPLES)])}
    return model(nodes, *sides, weights | {"half": np.array(0.5, np.float32)}), arrays


def test_a_model_with_state_is_scanned_over_its_sequences(tmp_path):
    net, arrays = carried()
    source = imported(net, arrays, tmp_path / "source", state={"h": "next"})
    found = scanned(source, feeds_of(arrays))["layers"]
    assert set(found) == {"take", "answer"} and all(1e-7 < layer["noise"] < 1e-2 for layer in found.values())
    first_step = {name: array[:, :1] for name, array in arrays.items()}
    assert scanned(source, feeds_of(first_step))["layers"] != found


def test_the_part_that_loses_most_decides(tmp_path):
    """Boxes of hundreds hide a score; each is behind a layer of its own, which reads the same values."""
    weights = {"boxes": normal(4, 4, seed=1) * 100, "score": normal(4, 1, seed=2)}
    nodes = [node("MatMul", ["x", "boxes"], ["b"], name="boxes"), node("MatMul", ["x", "score"], ["logit"], name="score")]
    nodes += [node("Sigmoid", ["logit"], ["s"], name="squash"), node("Concat", ["b", "s"], ["y"], name="join", axis=-1)]
    net, arrays = model(nodes, {"x": [None, 2, 4]}, {"y": [None, 2, 5]}, weights), {"x": normal(SAMPLES, 2, 4)}
    source = imported(net, arrays, tmp_path / "source")
    (parts,) = find_parts(source).values()
    assert parts == [(slice(None), slice(None), slice(0, 4)), (slice(None), slice(None), slice(4, 5))]
    found = scanned(source, feeds_of(arrays))["layers"]
    assert found["score"]["noise"] > 1e-6 and found["boxes"]["noise"] > 1e-6
    whole = scan.scan(source, feeds_of(arrays), True, {"y": [()]}, PLAIN)["layers"]
    assert whole["score"]["noise"] < 1e-3 * found["score"]["noise"]


def test_what_cannot_be_scanned_says_why(tmp_path):
    net = model([node("ArgMax", ["x"], ["y"], axis=1, keepdims=0)], {"x": [None, 4]}, {"y": [np.int64, [None]]})
    source = imported(net, {"x": normal(SAMPLES, 4)}, tmp_path / "source")
    with pytest.raises(VariantFailed, match=r"the outputs are integers.*use keep_float"):
        find_parts(source)
    quantized = imported(ROOT / "tests/data/quantized_qdq.onnx", {"x": normal(SAMPLES, 3, 40)}, tmp_path / "quantized" / "source")
    with pytest.raises(ValueError, match="quantized already"):
        scanned(quantized, feeds_of({"x": normal(SAMPLES, 3, 40)}))
