"""MNN: what the contract of all formats does not ask."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgewise.config import schema
from edgewise.formats.mnn import converter, facts, graph, make, profile, run
from edgewise.formats.onnx import make as make_onnx
from edgewise.proof import checks
from edgewise.stats.agreement import sqnr_db
from tests.conftest import ROOT, SHARED_DATA
from tests.support import attention_source
from tests.support.formats import variant
from tests.support.onnx_sources import graph as body
from tests.support.onnx_sources import model, node, normal

pytestmark = [pytest.mark.framework, pytest.mark.formats]

onnx = pytest.importorskip("onnx")
pytest.importorskip("MNN")
CONF = yaml.safe_load((ROOT / "conf/format/mnn.yaml").read_text())


def converted(net: Any, folder: Path) -> Path:
    """The float model of an ONNX model; each of its nodes is a layer."""
    for name in ("onnx", "mnn"):
        (folder / name).mkdir(parents=True)
    onnx.save(net, folder / "onnx/model.onnx")
    named = [entry.name for entry in net.graph.node if entry.name]
    (folder / "onnx/layers.json").write_text(json.dumps({name: [name] for name in named}))
    layers = make.convert(folder / "onnx", folder / "mnn", {})["layers"]
    (folder / "mnn/layers.json").write_text(json.dumps(layers))
    return folder / "mnn"


def quantized(parent: Path, scheme: str, keep=(), feeds=(), **settings) -> Path:
    folder = parent.with_name(f"{scheme}-{len(list(parent.parent.iterdir()))}")
    folder.mkdir()
    make.quantize(parent, parent, folder, scheme, {**CONF["schemes"][scheme], **settings}, list(feeds), list(keep))
    return folder


def answers(folder: Path, feeds: dict[str, np.ndarray], **settings) -> dict[str, np.ndarray]:
    return run.load(str(folder), {"threads": 1, **settings}).run(feeds)


def oracle(folder: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What ONNX Runtime makes of the ONNX file beside a float model."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder.with_name("onnx") / "model.onnx")
    return dict(zip([port.name for port in session.get_outputs()], session.run(None, feeds), strict=True))


def products(width: int = 64) -> Any:
    """A convolution, one of 1x1, and a product, each behind the other."""
    weights = {"w": normal(width, 3, 3, 3), "v": normal(width, width, 1, 1, seed=1) / 8, "m": normal(width, 5, seed=2) / 8}
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="wide", pads=[1, 1, 1, 1]),
        node("Conv", ["a", "v"], ["b"], name="narrow"),
        node("GlobalAveragePool", ["b"], ["p"], name="pool"),
        node("Flatten", ["p"], ["f"], name="flat"),
        node("MatMul", ["f", "m"], ["y"], name="head"),
    ]
    return model(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 5]}, weights)


@pytest.fixture(scope="module")
def net(tmp_path_factory) -> Path:
    return converted(products(), tmp_path_factory.mktemp("net"))


PICTURES = normal(6, 3, 8, 8, seed=5)


# what a file holds


@pytest.mark.parametrize("scheme", ["fp32", "fp16", "int8-weight", "int4-weight", "int8-static"])
def test_facts_are_what_mnns_own_dump_says(scheme, net):
    folder = quantized(net, scheme, feeds=[{"x": PICTURES[:1]}])
    converter.run_converter(["-f", "MNN", "--modelFile", folder / run.MODEL, "--JsonFile", folder / "dump.json"])
    dumped = json.loads((folder / "dump.json").read_text())["oplists"]
    layers = {entry["name"]: entry["main"] for entry in dumped if entry["type"].startswith("Convolution")}
    told = {entry["name"]: entry for entry in facts.facts(folder)["nodes"]}
    assert told.keys() == layers.keys() and len(told) == 3
    for name, main in layers.items():
        packed, size = main.get("quanParameter"), main["common"]
        stored = "float32" if packed is None else "float16" if packed["type"] == 3 else f"int{packed['aMaxOrBits']}"
        assert told[name]["weights_dtype"] == stored
        assert told[name]["elements"] == size["outputCount"] * size["inputCount"] * size.get("kernelX", 1) * size.get("kernelY", 1)
        assert told[name]["activations_dtype"] == ("int8" if "symmetricQuan" in main else "float32")
    assert [entry["type"] for entry in dumped if entry["name"] in told] == [graph.CONVOLUTIONS[12]] * 3


def test_a_file_shrinks_with_its_bits(net):
    sizes = [(quantized(net, scheme) / run.MODEL).stat().st_size for scheme in ("fp32", "fp16", "int8-weight", "int4-weight")]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4


def test_weights_are_rounded_to_the_nearest_half_and_not_cut(net):
    """MNN's own converter drops digits, so that every weight becomes smaller."""
    held = {operator.name: operator.float_values() for operator, _ in graph.read(net).read_weights()}
    for operator, _ in graph.read(quantized(net, "fp16")).read_weights():
        packed = operator.table.table(graph.MAIN).table(graph.PACKED).array(graph.PACKED_BYTES, np.uint8).view(np.float16)
        np.testing.assert_array_equal(packed, held[operator.name].astype(np.float16).ravel())


def test_layers_keep_8_bits_where_others_have_4(net):
    kept = json.loads((net / "layers.json").read_text())["narrow"]
    folder = quantized(net, "int4-weight", keep_int8=kept)
    assert Counter(entry["weights_dtype"] for entry in facts.facts(folder)["nodes"]) == {"int4": 2, "int8": 1}
    checks.check_scheme(facts.facts(folder), make.SCHEMES["int4-weight"], [], "v", kept)


@pytest.mark.parametrize("scheme", ["fp16", "int8-weight", "int8-static"])
def test_a_table_of_an_embedding_stays_float_with_its_node(scheme, tmp_path):
    weights = {"table": normal(20, 16), "m": normal(16, 4)}
    nodes = [node("Gather", ["table", "ids"], ["e"], name="embedding"), node("MatMul", ["e", "m"], ["y"], name="head")]
    parent = converted(model(nodes, {"ids": [np.int64, ["n", 3]]}, {"y": ["n", 3, 4]}, weights), tmp_path)
    layers, ids = json.loads((parent / "layers.json").read_text()), np.array([[1, 2, 19], [0, 7, 7]])
    folder = quantized(parent, scheme, keep=layers["embedding"], feeds=[{"ids": ids[:1]}])
    dtypes = {entry["name"]: entry["weights_dtype"] for entry in facts.facts(folder)["nodes"]}
    assert [dtypes[name] for name in layers["embedding"]] == ["float32"] and dtypes[layers["head"][0]] != "float32"
    assert sqnr_db(oracle(parent, {"ids": ids})["y"], answers(folder, {"ids": ids})["y"]) > 30


@pytest.mark.slow
def test_every_layer_of_a_transformer_is_found(tmp_path):
    source = attention_source.write(tmp_path / "source")
    for name in ("onnx", "mnn"):
        (tmp_path / name).mkdir()
    (tmp_path / "onnx/layers.json").write_text(
        json.dumps(make_onnx.convert(source, tmp_path / "onnx", {"opset": 20, "ir_version": 10})["layers"])
    )
    layers = make.convert(tmp_path / "onnx", tmp_path / "mnn", {})["layers"]
    found = {entry["name"]: entry for entry in facts.facts(tmp_path / "mnn")["nodes"]}
    sizes = json.loads((source / "manifest.json").read_text())["details"]["layers"]
    for layer in attention_source.LAYERS:
        assert [found[name]["elements"] for name in layers[layer]] == [int(np.prod(sizes[layer]["shape"]))], layer
    inputs, expected = checks.read_probe(source)
    assert checks.check_outputs(expected, answers(tmp_path / "mnn", inputs), 60.0) > 100
    assert checks.check_outputs(expected, answers(quantized(tmp_path / "mnn", "int8-weight"), inputs), 30.0) > 30


# what is computed


def test_memory_low_computes_with_activations_in_8_bits_and_normal_does_not(net):
    """The oracle: ONNX Runtime with the weights that MNN stored, as floats."""
    from onnx.reference import ReferenceEvaluator

    folder = quantized(net, "int8-weight")
    written = onnx.load(net.with_name("onnx") / "model.onnx")
    for tensor in written.graph.initializer:
        tensor.CopyFrom(onnx.numpy_helper.from_array(rounded(onnx.numpy_helper.to_array(tensor)), tensor.name))
    expected = ReferenceEvaluator(written).run(None, {"x": PICTURES})[0]
    as_written = sqnr_db(expected, answers(folder, {"x": PICTURES}, **run.AS_WRITTEN)["y"])
    rounding = sqnr_db(expected, answers(folder, {"x": PICTURES}, memory="low")["y"])
    assert as_written > 70 and 25 < rounding < 60


def rounded(weights: np.ndarray) -> np.ndarray:
    """255 equal steps between the extremes of each output channel."""
    rows = weights.T if weights.ndim == 2 else weights.reshape(len(weights), -1)
    low, high = rows.min(axis=1, keepdims=True), rows.max(axis=1, keepdims=True)
    steps = (np.rint((rows - low) / (high - low) * 255) * (high - low) / 255 + low).astype(np.float32)
    return np.ascontiguousarray(steps.T) if weights.ndim == 2 else steps.reshape(weights.shape)


@pytest.mark.parametrize(("method", "least_db"), [("minmax", 25), ("percentile", 25), ("mean", 5)])  # these samples differ much in size
def test_scales_of_static_int8_come_from_the_calibration(method, least_db, net):
    feeds = [{"x": picture[None]} for picture in PICTURES]
    folder = quantized(net, "int8-static", feeds=feeds, calibration={"method": method})
    described = graph.read(folder).net.tables(graph.DESCRIBED)
    assert len(described) == 5 and all(entry.table(graph.QUANTIZED) is not None for entry in described)
    assert sqnr_db(oracle(net, {"x": PICTURES})["y"], answers(folder, {"x": PICTURES})["y"]) > least_db


def test_a_channel_without_weights_is_no_division_by_zero(tmp_path):
    weights = normal(8, 4, 1, 1)
    weights[3] = 0
    parent = converted(
        model([node("Conv", ["x", "w"], ["y"], name="c")], {"x": ["n", 4, 2, 2]}, {"y": ["n", 8, 2, 2]}, {"w": weights}), tmp_path
    )
    feeds = {"x": normal(3, 4, 2, 2, seed=2)}
    for scheme in ("int8-weight", "int8-static"):
        given = answers(quantized(parent, scheme, feeds=[feeds]), feeds)["y"]
        assert np.isfinite(given).all() and (given[:, 3] == 0).all() and sqnr_db(oracle(parent, feeds)["y"], given) > 25


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers(kind, gates, tmp_path):
    """As loops, which is MNN's default, an LSTM makes the converter abort and a GRU is computed wrongly."""
    weights = {"w": normal(1, gates * 6, 4) / 3, "r": normal(1, gates * 6, 6, seed=1) / 3, "one": np.array([1])}
    nodes = [
        node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        node(kind, ["t", "w", "r"], ["all"], name="layer", hidden_size=6),
        node("Squeeze", ["all", "one"], ["s"]),
        node("Transpose", ["s"], ["y"], perm=[1, 0, 2]),
    ]
    parent = converted(model(nodes, {"x": ["n", 5, 4]}, {"y": ["n", 5, 6]}, weights), tmp_path)
    feeds = {"x": normal(3, 5, 4, seed=3)}
    assert sqnr_db(oracle(parent, feeds)["y"], answers(parent, feeds)["y"]) > 100
    (name,) = json.loads((parent / "layers.json").read_text())["layer"]
    assert name in {entry["name"] for entry in facts.facts(parent)["nodes"]}


def branches() -> Any:
    """The sum of x decides by which matrix it is multiplied."""
    bodies = [body([node("MatMul", ["x", f"w{n}"], [f"y{n}"], name=f"branch{n}")], {}, {f"y{n}": ["n", 5]}) for n in (0, 1)]
    nodes = [
        node("ReduceSum", ["x"], ["s"], keepdims=0),
        node("Greater", ["s", "zero"], ["c"]),
        node("If", ["c"], ["y"], then_branch=bodies[1], else_branch=bodies[0]),
    ]
    return model(nodes, {"x": ["n", 8]}, {"y": ["n", 5]}, {"w0": normal(8, 5), "w1": normal(8, 5, seed=1), "zero": np.float32(0)})


def test_a_model_with_branches_runs_and_its_profile_is_one_operator(tmp_path):
    parent = converted(branches(), tmp_path)
    session = profile.load(str(parent), {"threads": 1})
    for sign in (1, -1):
        feeds = {"x": (sign * abs(normal(1, 8))).astype(np.float32)}
        np.testing.assert_allclose(session.run(feeds)["y"], oracle(parent, feeds)["y"], rtol=1e-4, atol=1e-5)
    assert [len(operators) for operators in session.profile()["runs"]] == [1, 1]
    with pytest.raises(ValueError, match=r"an If or a Loop .*: use int8-weight"):
        quantized(parent, "int8-static", feeds=[feeds])


def test_ports_of_many_kinds_come_back_as_the_source_has_them(tmp_path):
    """int64 in and out, a scalar, bool, two outputs in the order of the source, an axis that is open."""
    nodes = [
        node("Cast", ["ids"], ["f"], to=1),
        node("Mul", ["f", "factor"], ["m"]),
        node("Where", ["mask", "m", "f"], ["chosen"]),
        node("ArgMax", ["chosen"], ["best"], axis=1, keepdims=0),
    ]
    inputs = {"ids": [np.int64, ["n", "length"]], "factor": [np.float32, []], "mask": [np.bool_, ["n", "length"]]}
    outputs = {"best": [np.int64, ["n"]], "chosen": ["n", "length"]}
    parent = converted(model(nodes, inputs, outputs), tmp_path)
    session = run.load(str(parent), {})
    assert [(port["dtype"], port["shape"]) for port in session.inputs] == [("int64", [None, None]), ("float32", []), ("bool", [None, None])]
    assert [(port["name"], port["dtype"]) for port in session.outputs] == [("best", "int64"), ("chosen", "float32")]
    for count, length in ((1, 3), (4, 7)):
        random = np.random.default_rng(count)
        ids, mask = random.integers(0, 90, (count, length)), random.integers(0, 2, (count, length)).astype(bool)
        feeds = {"ids": ids, "factor": np.array(-2, np.float32), "mask": mask}
        given, expected = session.run(feeds), oracle(parent, feeds)
        assert list(given) == ["best", "chosen"] and all(given[name].dtype == expected[name].dtype for name in given)
        assert all(np.array_equal(given[name], expected[name]) for name in given)


def test_results_do_not_share_memory_with_later_runs(net):
    session = run.load(str(net), {})
    first = session.run({"x": PICTURES})["y"]
    before = first.copy()
    session.run({"x": PICTURES[::-1]})
    np.testing.assert_array_equal(first, before)


@pytest.mark.skipif(not (SHARED_DATA / "pretrained").is_dir(), reason="the shared data is not on this machine")
def test_a_detector_of_speech_carries_its_state_through_branches(tmp_path):
    parent = converted(onnx.load(SHARED_DATA / "pretrained/silero/silero_vad.onnx"), tmp_path)
    feeds = {"input": normal(1, 576) / 10, "state": np.zeros((2, 1, 128), np.float32), "sr": np.array(16000)}
    for _ in range(3):
        expected, given = oracle(parent, feeds), answers(parent, feeds)
        np.testing.assert_allclose(given["stateN"], expected["stateN"], atol=1e-4)
        np.testing.assert_allclose(given["output"], expected["output"], atol=1e-5)
        feeds["state"] = expected["stateN"]


# bad files and settings


def spoil(folder: Path, data: bytes) -> str:
    (folder / run.MODEL).write_bytes(data)
    return str(folder)


@pytest.mark.parametrize("kind", ["empty", "cut short", "an ONNX file", "text"])
def test_a_file_that_is_none_of_mnn_is_refused(kind, net, tmp_path):
    data = {
        "empty": b"",
        "cut short": (net / run.MODEL).read_bytes()[:2000],
        "an ONNX file": (net.with_name("onnx") / "model.onnx").read_bytes(),
        "text": b"model" * 400,
    }[kind]
    with pytest.raises(RuntimeError, match=r"^MNN cannot read model\.mnn: it is not an MNN file, or it is truncated$"):
        run.load(spoil(tmp_path, data), {})
    with pytest.raises(ValueError, match=r"^model\.mnn is not an MNN file, or it is truncated"):
        facts.facts(tmp_path)


def test_a_file_that_others_made_is_refused(net, tmp_path):
    converter.convert(["-f", "ONNX", "--modelFile", net.with_name("onnx") / "model.onnx"], tmp_path / run.MODEL)
    with pytest.raises(ValueError, match=r"model\.mnn does not describe its inputs and outputs: it was not made by Edgewise"):
        run.load(str(tmp_path), {})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "engine.threads: 0; allowed: 1 to 1024"),
        ({"memory": "lwo"}, "engine.memory: 'lwo'; allowed: normal, low"),
        ({"precision": "fp8"}, "engine.precision: 'fp8'; allowed: high, low, low_bf16"),
        ({"winograd_memory": 7}, "engine.winograd_memory: 7; allowed: 3, 2, 1, 0"),
        ({"gpu": True}, r"unknown engine settings \['gpu'\]; allowed: threads, precision"),
    ],
)
def test_a_bad_engine_setting_is_refused_which_mnn_itself_would_ignore(settings, message, net):
    with pytest.raises(ValueError, match=f"^{message}"):
        run.load(str(net), settings)


@pytest.mark.parametrize(
    ("scheme", "settings", "message"),
    [
        ("int8-weight", {"block_size": 48}, "48"),
        ("int8-static", {"calibration": {"method": "entropy"}}, "mean, minmax, percentile"),
        ("int8-weight", {"engine": {"memory": "lo"}}, "did you mean 'low'"),
        ("int8-weight", {"per_channel": False}, "per_channel"),
    ],
)
def test_a_bad_setting_of_a_variant_is_refused_before_anything_runs(scheme, settings, message):
    with pytest.raises(schema.ConfigError, match=message):
        variant("mnn", scheme, **settings)


def test_an_input_of_another_size_than_the_net_takes_is_named(net):
    with pytest.raises(RuntimeError, match=r"inputs of these shapes: x \[1, 5, 8, 8\]"):
        answers(net, {"x": normal(1, 5, 8, 8)})


def test_an_operator_that_mnn_lacks_is_named(tmp_path):
    net = model([node("Foo", ["x"], ["y"], name="foo", domain="com.microsoft")], {"x": ["n", 3]}, {"y": ["n", 3]})
    with pytest.raises(ValueError, match=r"^MNN cannot convert this model: it has no operator Foo$"):
        converted(net, tmp_path)


def test_what_the_python_interface_cannot_be_given_is_refused(tmp_path):
    net = model([node("Cast", ["x"], ["y"], to=1)], {"x": [np.int8, ["n", 3]]}, {"y": ["n", 3]})
    with pytest.raises(ValueError, match=r"^input x is int8, which MNN's Python interface cannot be given"):
        converted(net, tmp_path)


def test_a_file_that_is_quantized_already_is_left_to_its_own_runtime(tmp_path):
    (tmp_path / "model.onnx").write_bytes((ROOT / "tests/data/quantized_qdq.onnx").read_bytes())
    with pytest.raises(ValueError, match=r"^the file is quantized already \(\w+\): MNN would round it in another way"):
        make.convert(tmp_path, tmp_path, {})


def test_a_broken_onnx_file_ends_in_mnns_own_words(tmp_path):
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x0a broken")
    with pytest.raises(ValueError, match=r"^MNN cannot convert this model: .*(Invalid ONNX Model|error)"):
        converter.convert(["-f", "ONNX", "--modelFile", tmp_path / "cut.onnx"], tmp_path / run.MODEL)


# what MNN does beside its work


def test_nothing_is_printed_on_stdout_and_no_command_of_mnn_is_imported(net):
    """The commands install a package when they are imported, and report to their makers."""
    code = f"from edgewise.formats.mnn import run, profile; import sys; run.load({str(net)!r}, {{}}); run.versions();"
    code += "print(*(name for name in sys.modules if name.startswith(('MNN.tools', 'aliyun'))), file=sys.stderr)"
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}  # else C writes what it prints at once
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=buffered, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr.strip()) == ("", "")
    done = subprocess.run(
        [sys.executable, "-c", "import sys, _tools; print(*sorted(sys.modules))"], capture_output=True, text=True, check=True
    )
    assert not {"MNN", "aliyun", "socket", "urllib.request"}.intersection(done.stdout.split())
