"""ONNX files whose weights are shared by several nodes, or held by Constant nodes: from the file to float and int8 models.

Each small file in tests/data/ stands for one kind.
"""

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.config.compose import Options
from edgewise.config.schema import part
from edgewise.formats.openvino import readers
from edgewise.inspect import model_file
from edgewise.proof import checks, isolation
from edgewise.sources import onnx_file
from tests.conftest import ROOT
from tests.support import source_kinds, sources
from tests.support.source_kinds import form, make_of
from tests.unit.test_onnx_file import data

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
openvino = pytest.importorskip("openvino")
DATA = ROOT / "tests/data"
LABELS = ("a", "b", "c", "d", "e")
LEAST_DB = {scheme: Options(ROOT / "conf").load("scheme", scheme, "scheme")["min_sqnr_db"] for scheme in ("int8-static", "int8-dynamic")}


@pytest.fixture(scope="module")
def samples(tmp_path_factory) -> Path:
    random = np.random.default_rng(0)
    pictures = (random.normal(0, 1, (24, 3, 16, 16)) + random.normal(0, 3, (24, 3, 1, 1))).astype(np.float32)
    return data(tmp_path_factory.mktemp("samples") / "data", {"x": pictures}, LABELS)


@pytest.fixture
def source(request, samples, tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(sources, "LABELS", LABELS)
    return source_kinds.imported(onnx_file, DATA / request.param, samples, tmp_path / "source")


def outputs_of(name: str, folder: Path, source: Path) -> float:
    """SQNR of all outputs against those of the user's own file, in dB."""
    inputs, expected = checks.read_probe(source)
    return checks.check_outputs(expected, isolation.compute_outputs(form(name)["module"], folder, {"threads": 1}, inputs), -100.0)


def quantized(name: str, scheme: str, parent: Path, source: Path, folder: Path, keep: list[str]) -> Path:
    folder.mkdir()
    settings = {"per_channel": None, "calibration": None, **(form(name)["schemes"][scheme] or {})}
    inputs, _ = checks.read_probe(source)
    feeds = [{key: array[i : i + 1] for key, array in inputs.items()} for i in range(len(inputs["x"]))] if settings["calibration"] else []
    make_of(name).quantize(parent, source, folder, scheme, settings, feeds, keep)
    return folder


def facts_of(name: str, folder: Path) -> dict:
    return dict(part(form(name)["module"], "facts").facts(folder))


@pytest.mark.parametrize("source", ["shared_weights.onnx", "constant_weights.onnx"], indirect=True)
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_every_variant_computes_what_the_users_file_does(name, source, tmp_path):
    parent = source_kinds.convert(name, source, tmp_path / name)
    assert outputs_of(name, parent, source) >= 100
    layers = json.loads((parent / "layers.json").read_text())
    assert all(layers.values())
    for scheme in ("int8-static", *(["int8-dynamic"] if name == "onnx" else [])):
        made = quantized(name, scheme, parent, source, tmp_path / scheme, [])
        assert outputs_of(name, made, source) >= LEAST_DB[scheme]
        assert 0.9 < checks.check_scheme(facts_of(name, made), make_of(name).SCHEMES[scheme], [], scheme) <= 1


@pytest.mark.parametrize("source", ["shared_weights.onnx"], indirect=True)
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_weights_that_two_nodes_share_count_once_and_each_node_has_its_name(name, source, tmp_path):
    layers = artifact.read(source).details["layers"]
    assert [layer["shape"] for layer in layers.values()] == [[8, 3, 3, 3], [8, 8, 3, 3], [8, 8, 3, 3], [5, 8]]
    parent = source_kinds.convert(name, source, tmp_path / name)
    found = facts_of(name, parent)
    assert sum(node["elements"] for node in found["nodes"]) == found["weights_elements"] == 8 * 3 * 9 + 8 * 8 * 9 + 5 * 8
    assert checks.check_scheme(found, make_of(name).SCHEMES["fp32"], [], "fp32") == 1.0


@pytest.mark.parametrize("source", ["shared_weights.onnx"], indirect=True)
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_one_of_the_nodes_that_share_weights_can_stay_float(name, source, tmp_path):
    parent = source_kinds.convert(name, source, tmp_path / name)
    layers = json.loads((parent / "layers.json").read_text())
    second = [layer for layer in layers if "Conv" in layer][2]
    made = quantized(name, "int8-static", parent, source, tmp_path / "made", layers[second])
    assert 0 < checks.check_scheme(facts_of(name, made), make_of(name).SCHEMES["int8-static"], layers[second], "v") <= 1
    assert outputs_of(name, made, source) >= LEAST_DB["int8-static"]


@pytest.mark.parametrize("source", ["constant_weights.onnx"], indirect=True)
def test_weights_in_constant_nodes_are_weights(source):
    """The batch norm is fused as that of a file with initializers is, and the nodes keep the names that Netron shows."""
    graph = onnx.load(source / "model.onnx").graph
    assert [node.op_type for node in graph.node] == ["Conv", "Relu", "GlobalAveragePool", "Reshape", "Gemm"]
    assert list(artifact.read(source).details["layers"]) == ["Conv_8", "Gemm_13"]


def batch_norms_behind_shared_weights() -> Any:
    """Each node with the shared weights has its own batch norm, so no fusion into the weights is possible."""
    model = onnx.load(DATA / "shared_weights.onnx")
    graph, random = model.graph, np.random.default_rng(0)
    nodes = []
    for place, node in enumerate([*graph.node]):
        nodes.append(node)
        if node.op_type == "Conv":
            names = [f"{kind}{place}" for kind in ("scale", "shift", "mean", "variance")]
            values = [random.uniform(0.5, 2, 8).astype(np.float32) for _ in names]
            graph.initializer.extend(map(onnx.numpy_helper.from_array, values, names))
            nodes.append(onnx.helper.make_node("BatchNormalization", [f"raw{place}", *names], [node.output[0]]))
            node.output[0] = f"raw{place}"
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)
    return model


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_shared_weights_with_a_batch_norm_of_each_node(name, samples, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LABELS", LABELS)
    onnx.save(batch_norms_behind_shared_weights(), tmp_path / "mine.onnx")
    source = source_kinds.imported(onnx_file, tmp_path / "mine.onnx", samples, tmp_path / "source")
    parent = source_kinds.convert(name, source, tmp_path / name)
    assert outputs_of(name, parent, source) >= 100
    made = quantized(name, "int8-static", parent, source, tmp_path / "made", [])
    assert outputs_of(name, made, source) >= LEAST_DB["int8-static"]
    assert 0 < checks.check_scheme(facts_of(name, made), make_of(name).SCHEMES["int8-static"], [], "v") <= 1


PLAIN = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,4] x) => (float[N,6] y) {
      y = MatMul (x, w)
    }"""
SCALED = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[N,4] x) => (float[N,6] logits) {
      [first] a = MatMul (x, w)
      b = Mul (a, scale)
      [folded] c = MatMul (left, right)
      logits = Add (b, c)
    }"""


def test_a_layer_that_is_not_in_the_openvino_graph_fails_only_where_it_is_to_stay_float(tmp_path):
    """`folded` is a product of constants, which OpenVINO computes once; `first` is found behind the scale that goes into its weights."""
    model, random = onnx.parser.parse_model(SCALED), np.random.default_rng(0)
    for name, shape in {"w": (4, 6), "scale": (6,), "left": (1, 3), "right": (3, 6)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(random.uniform(1, 2, shape).astype(np.float32), name))
    through, parent = tmp_path / "onnx", tmp_path / "openvino"
    through.mkdir(), parent.mkdir()
    onnx.save(model, through / "model.onnx")
    (through / "layers.json").write_text(json.dumps({"first": ["first"], "folded": ["folded"]}))
    make = make_of("openvino")
    layers = make.convert(through, parent, {})["layers"]
    assert layers["first"] == [node["name"] for node in facts_of("openvino", parent)["nodes"]]
    settings = {"per_channel": True, "symmetric": False, "calibration": {"method": "minmax"}}
    feeds = [{"x": row[None]} for row in random.normal(size=(8, 4)).astype(np.float32)]
    for kept, message in ((layers["first"], None), (layers["folded"], r"has the weights of folded, so it cannot stay float")):
        (tmp_path / kept[0].replace("/", "-")).mkdir()
        with pytest.raises(ValueError, match=message) if message else contextlib.nullcontext():
            make.quantize(parent, through, tmp_path / kept[0].replace("/", "-"), "int8-static", settings, feeds, kept)


def test_a_layer_that_is_in_no_node_of_another_source_fails_only_where_it_is_to_stay_float(tmp_path, monkeypatch):
    """A Keras file is read by OpenVINO itself, and its layers are found by their weights."""
    model, random = onnx.parser.parse_model(PLAIN), np.random.default_rng(0)
    kernels = {name: random.normal(size=(6, 4)).astype(np.float32) for name in ("here", "gone")}
    model.graph.initializer.append(onnx.numpy_helper.from_array(kernels["here"].T.copy(), "w"))
    onnx.save(model, tmp_path / "mine.onnx")
    monkeypatch.setitem(readers.READERS, "keras", lambda path, manifest: openvino.convert_model(path))
    monkeypatch.setattr(readers, "_load_weights", lambda source: kernels)
    layers = {name: {"type": "Dense", "weight": name, "shape": [6, 4]} for name in kernels}
    manifest = {
        "format": "keras",
        "details": {"file": "mine.onnx", "layers": layers},
        "inputs": [{"name": "x"}],
        "outputs": [{"name": "y"}],
    }
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    parent = tmp_path / "openvino"
    parent.mkdir()
    assert make_of("openvino").convert(tmp_path, parent, {})["layers"] == {"here": ["here"], "gone": ["gone"]}
    with pytest.raises(ValueError, match=r"has the weights of gone, so it cannot stay float"):
        make_of("openvino").quantize(parent, tmp_path, tmp_path, "fp16", {}, [], ["gone"])


def test_inspect_counts_weights_in_constant_nodes():
    seen = model_file.inspect_file(DATA / "constant_weights.onnx", ROOT / "conf")[1]
    assert seen.parameters == 8 * 3 * 9 + 5 * 8 + 5 * 8 + 5  # two products, the bias and four vectors of the batch norm, the last bias
    assert seen.operators["Constant"] == 8
    assert seen.multiply_adds is not None and seen.multiply_adds > 8 * 27 * 14 * 14
