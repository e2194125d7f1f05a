"""ONNX: what the contract of all formats does not ask."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml

from edgewise.formats.onnx import facts, make, recipes, run, split
from edgewise.proof import checks
from tests.conftest import ROOT
from tests.support import attention_source, onnx_sources, sources

pytestmark = [pytest.mark.framework, pytest.mark.formats]

onnx = pytest.importorskip("onnx")
CONF = yaml.safe_load((ROOT / "conf/format/onnx.yaml").read_text())
KEPT = ["places", "query", "head"]


@pytest.fixture(scope="module")
def attention(tmp_path_factory) -> tuple[Path, Path, dict]:
    """Source, its float ONNX model, and the layers of it."""
    source = attention_source.write(tmp_path_factory.mktemp("attention") / "source")
    return source, *converted(source)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[Path, Path, dict]:
    source = sources.write(tmp_path_factory.mktemp("pictures") / "source")
    return source, *converted(source)


def converted(source: Path) -> tuple[Path, dict]:
    folder = source.parent / "onnx"
    folder.mkdir()
    return folder, make.convert(source, folder, CONF["convert"])["layers"]


def quantized(made: tuple[Path, Path, dict], scheme: str, folder: Path, keep=(), **settings) -> Path:
    source, parent, layers = made
    folder.mkdir()
    inputs, _ = checks.read_probe(source)
    feeds = [{name: array[i : i + 1] for name, array in inputs.items()} for i in range(16)]
    make.quantize(parent, source, folder, scheme, {**CONF["schemes"][scheme], **settings}, feeds, checks.list_nodes(keep, layers))
    return folder


def sqnr_db(source: Path, folder: Path, **engine) -> float:
    inputs, expected = checks.read_probe(source)
    return checks.check_outputs(expected, run.load(str(folder), {"threads": 1, **engine}).run(inputs), -100.0)


def test_every_layer_is_found_whatever_became_of_its_weight(attention):
    source, folder, layers = attention
    assert set(layers) == attention_source.LAYERS
    found = {node["name"]: node for node in facts.facts(folder)["nodes"]}
    sizes = json.loads((source / "manifest.json").read_text())["details"]["layers"]
    for layer in attention_source.LAYERS:
        assert [found[name]["elements"] for name in layers[layer]] == [int(np.prod(sizes[layer]["shape"]))], layer


def test_a_layer_without_a_node_is_an_error_that_names_it(pictures):
    model = onnx.load(pictures[1] / "model.onnx")
    with pytest.raises(ValueError, match=r"layer stem\.conv"):
        make.find_layer_nodes(model, {"head": ["model.head.weight"], "stem.conv": ["model.gone.weight"]})


@pytest.mark.parametrize("scheme", [scheme for scheme in make.SCHEMES if scheme != "fp32"])
def test_kept_layers_stay_float_in_a_transformer(scheme, attention, tmp_path):
    source, _, layers = attention
    kept = checks.list_nodes(KEPT, layers)
    folder = quantized(attention, scheme, tmp_path / "v", KEPT)
    share = checks.check_scheme(facts.facts(folder), make.SCHEMES[scheme], kept, scheme)
    assert 0.3 < share < 1
    assert sqnr_db(source, folder) > (5 if scheme == "int4-weight" else 20)


def test_a_kept_layer_between_quantized_ones_computes_in_float(tmp_path):
    """ONNX Runtime rounds the float weights of a convolution between DequantizeLinear and QuantizeLinear as it loads the file, with one
    scale for all of them: a single large one, here of a channel that is always zero, leaves nothing of the others."""
    first, depthwise = onnx_sources.normal(8, 3, 1, 1), onnx_sources.normal(8, 1, 3, 3)
    first[0], depthwise[0] = 0, 1000
    weights = {"a": first, "b": depthwise, "c": onnx_sources.normal(4, 8, 1, 1)}
    nodes = [
        onnx_sources.node("Conv", ["x", "a"], ["p"], name="first"),
        onnx_sources.node("Conv", ["p", "b"], ["q"], name="depthwise", group=8, pads=[1, 1, 1, 1]),
        onnx_sources.node("Conv", ["q", "c"], ["y"], name="last"),
    ]
    net = onnx_sources.model(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 4, 8, 8]}, weights)
    source = onnx_sources.imported(net, {"x": onnx_sources.normal(24, 3, 8, 8)}, tmp_path / "source")
    parent = onnx_sources.converted("onnx", source, tmp_path / "float")
    folder = onnx_sources.quantized("onnx", "int8-static", parent, source, tmp_path / "kept", keep=["depthwise"])
    assert onnx_sources.worst_db("onnx", folder, source) > 30


def test_static_transformer_normalizes_in_float(attention, tmp_path):
    folder = quantized(attention, "int8-static", tmp_path / "v")
    nodes = onnx.load(folder / "model.onnx").graph.node
    producers = {name: node.op_type for node in nodes for name in node.output}
    normalized = [producers[node.input[0]] for node in nodes if node.op_type in ("LayerNormalization", "Softmax")]
    assert len(normalized) == 3 and "DequantizeLinear" not in normalized
    assert sqnr_db(attention[0], folder, **run.AS_WRITTEN) > 20


def test_seven_bits_lose_nothing_more_in_the_kernels_of_any_processor(pictures, tmp_path):
    """On x86 without VNNI 8 bits saturate (15 of 48 dB here); what the file holds is the same on all."""
    folder = quantized(pictures, "int8-static", tmp_path / "v", reduce_range=True)
    written = sqnr_db(pictures[0], folder, **run.AS_WRITTEN)
    assert written > 30 and sqnr_db(pictures[0], folder) > written - 3


def test_seven_bits_of_a_dynamic_transformer(attention, tmp_path):
    folder = quantized(attention, "int8-dynamic", tmp_path / "v", reduce_range=True)
    products = [t for t in map(onnx.numpy_helper.to_array, onnx.load(folder / "model.onnx").graph.initializer) if t.dtype == np.int8]
    assert products and all(abs(weights.astype(int)).max() <= 64 for weights in products if weights.ndim == 2)
    assert sqnr_db(attention[0], folder) > 20


@pytest.mark.parametrize("method", ["entropy", "mean", "percentile"])
def test_each_calibration_method_does_something_of_its_own(method, pictures, tmp_path):
    plain = quantized(pictures, "int8-static", tmp_path / "minmax")
    other = quantized(pictures, "int8-static", tmp_path / method, calibration={"method": method})
    assert (plain / "model.onnx").read_bytes() != (other / "model.onnx").read_bytes()
    assert sqnr_db(pictures[0], other) > 10


def test_the_mean_of_extremes_is_that_of_single_samples(pictures, tmp_path):
    """The range of the input: of the mean over the samples of the least and of the greatest value."""
    folder = quantized(pictures, "int8-static", tmp_path / "mean", calibration={"method": "mean"})
    image = checks.read_probe(pictures[0])[0]["image"][:16]
    tensors = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(folder / "model.onnx").graph.initializer}
    width = image.max((1, 2, 3)).mean() - image.min((1, 2, 3)).mean()
    assert tensors["image_scale"] == pytest.approx(width / 255, rel=1e-5)
    assert width < image.max() - image.min()


def test_symmetric_activations_have_their_zero_in_the_middle(pictures, tmp_path):
    def zeros(**settings) -> set[int]:
        model = onnx.load(quantized(pictures, "int8-static", tmp_path / str(settings), **settings) / "model.onnx")
        constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
        return {int(constants[node.input[2]]) for node in model.graph.node if node.op_type == "QuantizeLinear"}

    assert zeros(symmetric=True) <= {127, 128}
    assert not zeros(symmetric=False) <= {127, 128}


def test_facts_agree_with_what_the_runtime_makes_of_the_file(pictures, tmp_path):
    import onnxruntime

    folder = quantized(pictures, "int8-static", tmp_path / "v", ["head"])
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node)
    said = facts.facts(folder)["operators"]
    assert kinds["QLinearConv"] == said["Conv[int8]"] == 3
    assert kinds["Gemm"] + kinds["FusedGemm"] == said["Gemm[float32]"] == 1
    assert facts.facts(folder)["weights_bytes_by_dtype"]["int8"] == 3 * 16 * 9 + 16 * 9 + 16 * 32 * 9


def test_the_file_is_old_enough_for_old_runtimes_and_tells_nothing_of_this_machine(pictures):
    content = (pictures[1] / "model.onnx").read_bytes()
    model = onnx.load_from_string(content)
    assert model.ir_version == 10 and [entry.version for entry in model.opset_import] == [20]
    assert not any(word in content for word in (b"stack_trace", str(ROOT).encode(), b"site-packages", b"fx_node"))
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.pipeline
def test_another_process_writes_the_same_bytes(attention, tmp_path):
    source, folder, _ = attention
    code = (
        "import sys, yaml; from pathlib import Path; from edgewise.formats.onnx import make\n"
        "make.convert(Path(sys.argv[1]), Path(sys.argv[2]), {'opset': 20, 'ir_version': 10})"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, source, tmp_path], cwd=ROOT, env=environment, check=True, capture_output=True)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()


def test_gemm_as_product_and_sum_computes_the_same(pictures, tmp_path):
    model = onnx.load(pictures[1] / "model.onnx")
    recipes._replace_gemm(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    assert "Gemm" not in {node.op_type for node in model.graph.node}
    assert sqnr_db(pictures[0], tmp_path) > 100


def test_unknown_engine_settings_name_the_allowed_ones(pictures):
    for settings, message in [
        ({"threadz": 2}, "allowed: threads"),
        ({"graph_optimization": "most"}, "allowed: disable, basic"),
        ({"providers": ["MagicProvider"]}, "it has: .*CPUExecutionProvider"),
    ]:
        with pytest.raises(ValueError, match=message):
            run.load(str(pictures[1]), settings)


def test_making_is_quiet(attention, tmp_path, capfd):
    quantized(attention, "int8-static", tmp_path / "s", calibration={"method": "percentile"})
    quantized(attention, "int8-dynamic", tmp_path / "d")
    assert capfd.readouterr() == ("", "")


def test_layers_that_leave_out_their_first_output_are_steps_of_their_own(tmp_path):
    """An LSTM of which the last state alone is read has an empty name for the states of all steps."""
    import onnxruntime

    random = np.random.default_rng(0)
    weights = {f"{name}{i}": random.normal(size=(1, 12, 3)).astype(np.float32) for name in "wr" for i in (1, 2)}
    layers = [
        onnx_sources.node("LSTM", [given, f"w{i}", f"r{i}"], ["", f"h{i}"], hidden_size=3, name=f"lstm{i}")
        for i, given in ((1, "x"), (2, "h1"))
    ]
    onnx.save(onnx_sources.model(layers, {"x": [1, 4, 3]}, {"h2": [1, 4, 3]}, weights), tmp_path / "model.onnx")
    graph = split.cuttable(tmp_path, tmp_path, "fp32", {}, ())
    assert [(step["node"], step["weights_bytes"], step["crossing"]) for step in graph.steps] == [("lstm1", 288, 1), ("lstm2", 288, 1)]
    found = x = random.normal(size=(1, 4, 3)).astype(np.float32)
    for start in range(2):
        (tmp_path / f"{start}").mkdir()
        graph.write(start, start + 1, tmp_path / f"{start}")
        found = onnxruntime.InferenceSession(tmp_path / f"{start}/model.onnx").run(None, {"x" if start == 0 else "h1": found})[0]
    (whole,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"x": x})
    np.testing.assert_allclose(found, whole, rtol=1e-6)
