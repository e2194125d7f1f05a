"""What is particular to the tflite format: layers found by their weights, integer inputs and outputs, facts, calibration."""

import hashlib
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from edgewise.formats.common import quiet
from edgewise.formats.tflite import edge_quantizer, facts, make, naming, run
from edgewise.proof import checks
from edgewise.stats.agreement import sqnr_db
from tests.conftest import ROOT
from tests.support import odd_source, sources

pytestmark = [pytest.mark.framework, pytest.mark.formats]

STATIC = {"calibration": {"method": "minmax"}, "per_channel": True}
SAMPLES = sources.pictures(24, seed=3)[0]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return sources.write(tmp_path_factory.mktemp("tflite") / "source")


@pytest.fixture(scope="module")
def float_model(source):
    folder = source.parent / "float"
    folder.mkdir()
    return folder, make.convert(source, folder, {})


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The source on token ids and its conversion: (source, folder, what convert returned)."""
    source = odd_source.write(tmp_path_factory.mktemp("odd") / "source")
    folder = source.parent / "float"
    folder.mkdir()
    return source, folder, make.convert(source, folder, {})


def quantize(float_model, folder, scheme, settings=STATIC, keep=()):
    folder.mkdir()
    feeds = [{"image": picture[None]} for picture in SAMPLES]
    make.quantize(
        float_model[0], float_model[0].parent / "source", folder, scheme, settings, feeds if settings.get("calibration") else [], keep
    )
    return folder


def weight(values, operator="CONV_2D"):
    values = np.asarray(values, np.float32)
    constant = facts.Weight(0, 0, "float32", values.shape, np.frombuffer(values.tobytes(), np.uint8), direct=True)
    return facts.Node("t", operator, 0, "float32", (constant,))


def layer(kind, values):
    return {"type": kind, "weight": "w", "shape": list(values.shape)}, {"w": values}


random = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("kind", "source_weight", "node"),
    [
        ("Conv2d", (w := random.normal(size=(8, 3, 5, 5))), weight(w.transpose(0, 2, 3, 1) * random.normal(size=(8, 1, 1, 1)))),
        ("Conv2d", (w := random.normal(size=(6, 1, 3, 3))), weight(w.transpose(1, 2, 3, 0) * random.normal(size=6), "DEPTHWISE_CONV_2D")),
        ("Conv2d", (w := random.normal(size=(6, 4, 1, 1))), weight(w[:, :, 0, 0], "FULLY_CONNECTED")),
        ("ConvTranspose2d", (w := random.normal(size=(4, 6, 3, 3))), weight(w.transpose(1, 2, 3, 0)[:, ::-1, ::-1], "TRANSPOSE_CONV")),
        ("Linear", (w := random.normal(size=(6, 4))), weight(w.T, "BATCH_MATMUL")),
        ("Embedding", (w := random.normal(size=(9, 4)).astype(np.float32)), weight(w[None, :5], "ADD")),
    ],
)
def test_a_layer_is_found_in_the_layout_of_its_node(kind, source_weight, node):
    described, weights = layer(kind, source_weight)
    strangers = [replace(weight(random.normal(size=node.weights[0].shape), node.operator)) for _ in range(3)]
    assert naming.match_nodes({"a": described}, weights, [*strangers[:2], node, strangers[2]]) == {"a": [2]}
    with pytest.raises(ValueError, match=r"layer 'a' \(\w+ \d+x"):
        naming.match_nodes({"a": described}, weights, strangers)


def test_layers_of_equal_weights_take_their_nodes_in_order():
    same = np.ones((4, 3), np.float32)
    described = {name: {"type": "Linear", "weight": "w", "shape": [4, 3]} for name in ("a", "b")}
    nodes = [weight(same, "FULLY_CONNECTED") for _ in range(3)]
    assert naming.match_nodes(described, {"w": same}, nodes) == {"a": [0], "b": [1, 2]}
    assert naming.match_nodes(described, {"w": same}, nodes[:1]) == {"a": [0], "b": [0]}


def test_tied_unused_and_repeated_layers(odd):
    source, folder, made = odd
    assert "never" not in made["layers"]
    assert made["layers"]["twice"] == ["twice", "twice#2"]
    tied = set(made["layers"]["words"]) | set(made["layers"].get("head", []))
    found = {node["name"]: node["operator"] for node in facts.facts(folder)["nodes"]}
    assert {found[name] for name in tied} == {"EMBEDDING_LOOKUP", "FULLY_CONNECTED"}
    inputs, expected = checks.read_probe(source)
    session = run.load(str(folder), {"threads": 1})
    given = np.concatenate([session.run({"ids": row[None]})["logits"] for row in inputs["ids"]])
    np.testing.assert_allclose(given, expected["logits"], atol=1e-5)


def test_look_up_tables_are_quantized_by_static_schemes_too(odd, tmp_path):
    source, folder, _ = odd
    feeds = [{"ids": row[None]} for row in odd_source.ids()]
    make.quantize(folder, source, tmp_path, "int8-static", STATIC, feeds, [])
    found = facts.facts(tmp_path)
    assert checks.check_scheme(found, make.SCHEMES["int8-static"], [], "v") == 1
    assert {node["weights_dtype"] for node in found["nodes"]} == {"int8"}


@pytest.mark.parametrize("scheme", make.SCHEMES)
def test_facts_agree_with_the_runtime(scheme, float_model, tmp_path):
    """The interpreter reads the file by other code: dtype and size of the constants that it finds."""
    from ai_edge_litert.interpreter import Interpreter

    folder = quantize(float_model, tmp_path / "v", scheme)
    model = facts.read(folder / facts.FILE)
    tensors = {t["index"]: t for t in Interpreter(str(folder / facts.FILE), experimental_preserve_all_tensors=True).get_tensor_details()}
    for node in facts.read_nodes(model):
        for held in node.weights:
            seen = tensors[held.tensor]
            assert tuple(seen["shape"]) == held.shape
            assert np.dtype(seen["dtype"]).name == held.dtype if held.dtype != "int4" else len(held.data) == -(-held.elements // 2)
            if "int" in held.dtype:
                assert len(seen["quantization_parameters"]["scales"]) == (held.shape[-1] if "DEPTHWISE" in node.operator else held.shape[0])
    assert facts.facts(folder)["weights_elements"] == facts.facts(float_model[0])["weights_elements"]


@pytest.mark.parametrize(("scheme", "steps"), [("int8-static", 255), ("int16x8-static", 65534)])
def test_inputs_are_scaled_by_the_extremes_of_the_calibration_samples(scheme, steps, float_model, tmp_path):
    folder = quantize(float_model, tmp_path / "v", scheme)
    (detail,) = run.load(str(folder), {"threads": 1})._inputs.values()
    low, high = min(SAMPLES.min(), 0), max(SAMPLES.max(), 0)
    span = high - low if scheme == "int8-static" else 2 * max(-low, high)  # int16 activations are symmetric
    assert detail["quantization"][0] == pytest.approx(span / steps, rel=1e-3)


def test_moving_average_calibrates_to_narrower_ranges(float_model, tmp_path):
    scales = {}
    for method in ("minmax", "moving_average"):
        folder = quantize(float_model, tmp_path / method, "int8-static", {**STATIC, "calibration": {"method": method}})
        (detail,) = run.load(str(folder), {"threads": 1})._inputs.values()
        scales[method] = detail["quantization"][0]
    assert scales["moving_average"] < scales["minmax"]


def test_integer_inputs_and_outputs_carry_real_values(float_model, tmp_path):
    session = run.load(str(quantize(float_model, tmp_path / "v", "int8-static")), {"threads": 1})
    assert [tensor["dtype"] for tensor in (*session.inputs, *session.outputs)] == ["int8", "int8"]
    (detail,) = session._inputs.values()
    scale, zero_point = detail["quantization"]
    values = random.normal(0, 3, (4, 5)).astype(np.float32)
    stored = run.quantize(values, detail)
    assert stored.dtype == np.int8
    np.testing.assert_array_equal(stored, np.clip(np.round(values / scale) + zero_point, -128, 127))
    inside = np.abs(values) < 100 * scale
    assert np.abs(run.dequantize(stored, detail) - values)[inside].max() <= 0.51 * scale
    assert run.quantize(np.array([[1e9, -1e9]], np.float32), detail).tolist() == [[127, -128]]


def test_a_full_integer_file_may_take_and_give_floats_and_answers_the_same(float_model, tmp_path):
    """The same rounding, inside the file or outside."""
    folders = {io: quantize(float_model, tmp_path / io, "int8-static", {**STATIC, "io": io}) for io in ("integer", "float")}
    sessions = {io: run.load(str(folder), {"threads": 1}) for io, folder in folders.items()}
    assert {io: session.inputs[0]["dtype"] for io, session in sessions.items()} == {"integer": "int8", "float": "float32"}
    answers = [[session.run({"image": picture[None]})["logits"][0] for picture in SAMPLES[:8]] for session in sessions.values()]
    np.testing.assert_array_equal(*answers)


def test_kept_nodes_hold_the_weights_of_the_float_file(float_model, tmp_path):
    keep = float_model[1]["layers"]["depthwise"]
    folder = quantize(float_model, tmp_path / "v", "int8-static", keep=keep)
    ours, floats = ({n.name: n for n in facts.read_nodes(facts.read(place / facts.FILE))} for place in (folder, float_model[0]))
    np.testing.assert_array_equal(ours[keep[0]].weights[0].values(), floats[keep[0]].weights[0].values())
    others = [node for name, node in ours.items() if node.weights and name not in keep]
    assert {held.dtype for node in others for held in node.weights} == {"int8"}


def test_the_file_has_one_signature_with_the_sources_names_and_batch_one(float_model):
    folder, made = float_model
    session = run.load(str(folder), {"threads": 1})
    assert [(t["name"], t["shape"]) for t in session.inputs] == [("image", [1, 3, 16, 16])]
    assert [(t["name"], t["shape"]) for t in session.outputs] == [("logits", [1, 4])]
    assert [entry["shape"] for entry in (*made["inputs"], *made["outputs"])] == [[1, 3, 16, 16], [1, 4]]
    assert len(facts.read(folder / facts.FILE).signatureDefs) == 1
    with pytest.raises(ValueError, match="Dimension mismatch"):
        session.run({"image": SAMPLES[:2]})


def test_without_xnnpack_the_answers_are_the_same(float_model):
    with_it, without = (run.load(str(float_model[0]), {"threads": 1, "xnnpack": on}) for on in (True, False))
    feeds = {"image": SAMPLES[:1]}
    np.testing.assert_allclose(with_it.run(feeds)["logits"], without.run(feeds)["logits"], atol=1e-4)


@pytest.mark.pipeline
def test_another_process_converts_to_the_same_bytes_and_says_nothing(source, float_model, tmp_path):
    code = "import sys; from pathlib import Path; from edgewise.formats.tflite import make; make.convert(*map(Path, sys.argv[1:]), {})"
    result = subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True)
    digests = {hashlib.sha256((folder / facts.FILE).read_bytes()).hexdigest() for folder in (float_model[0], tmp_path)}
    assert len(digests) == 1
    assert result.stdout + result.stderr == ""


def test_what_is_no_tflite_file_is_named(tmp_path):
    (tmp_path / facts.FILE).write_bytes(b"PK\x03\x04 some archive")
    with pytest.raises(ValueError, match=r"model\.tflite is not a TFLite file"):
        facts.facts(tmp_path)


def test_chatter_is_shown_only_when_a_tool_fails(capfd):
    import os

    with quiet.capture_output():
        os.write(2, b"library chatter\n")
    assert capfd.readouterr().err == ""
    with pytest.raises(RuntimeError), quiet.capture_output():
        os.write(1, b"what went wrong\n")
        raise RuntimeError
    assert "what went wrong" in capfd.readouterr().err


def test_scopes_match_one_node_only():
    import re

    scope = edge_quantizer.node_pattern("block.1")
    assert re.search(scope, "block.1;")
    assert not any(re.search(scope, other) for other in ("block.10;", "block.1#2;", "xblock.1;", "blockx1;"))


def test_layers_in_8_bits_among_such_of_4(float_model, tmp_path):
    """They are what they are asked to be, the others stay at 4 bits, and the answers come nearer to the source's."""
    inputs, expected = checks.read_probe(float_model[0].parent / "source")
    found, reached_db = {}, {}
    for name, kept in (("none", []), ("two", ["stem", "head"])):
        nodes = [node for layer in kept for node in float_model[1]["layers"][layer]]
        folder = quantize(float_model, tmp_path / name, "int4-weight", {"per_channel": True, "keep_int8": nodes})
        checks.check_scheme(facts.facts(folder), make.SCHEMES["int4-weight"], [], "v", nodes)
        found[name] = {node["name"]: node["weights_dtype"] for node in facts.facts(folder)["nodes"]}
        session = run.load(str(folder), {"threads": 1})
        given = np.concatenate([session.run({"image": picture[None]})["logits"] for picture in inputs["image"]])
        reached_db[name] = sqnr_db(expected["logits"], given)
    eight = {name for name, dtype in found["two"].items() if dtype == "int8"}
    assert eight == {"stem", "head"} and all(found["two"][name] == found["none"][name] for name in found["two"].keys() - eight)
    assert found["none"]["stem"] == found["two"]["block.0"] == "int4" and reached_db["two"] > reached_db["none"] + 1
