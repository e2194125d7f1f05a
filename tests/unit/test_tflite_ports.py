"""Inputs and outputs of TFLite files: any number, rank and type, open sides, explicit state; none is dropped, and names are kept."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.config.schema import Train, part
from edgewise.errors import ModelError, VariantFailed
from edgewise.formats.tflite import facts, make, naming
from edgewise.proof import checks, isolation, making
from edgewise.sources import tflite_file
from tests.support import old_tflite, own_files

pytestmark = pytest.mark.framework

pytest.importorskip("ai_edge_litert")
MODULE = "edgewise.formats.tflite"
STATIC = {"calibration": {"method": "minmax"}, "per_channel": True}
rng = np.random.default_rng(0)
WEIGHTS = rng.normal(0, 1, (3, 4)).astype(np.float32)
X = rng.normal(0, 1, (16, 4)).astype(np.float32)


def imported(model: Any, arrays: dict[str, np.ndarray], folder: Path, **settings: Any) -> Path:
    """models/source of the file, as train-export writes it."""
    path, source = old_tflite.write(model, folder / "mine.tflite"), folder / "source"
    source.mkdir()
    chosen = tflite_file.Settings(path=str(path), **settings)
    fields = dict(tflite_file.obtain(chosen, own_files.plain_data(folder / "data", arrays), Train("none"), 0, source))
    del fields["weights"], fields["training"]
    fields |= {side: making.make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    artifact.write(source, Manifest(kind="source", **fields))
    return source


def converted(source: Path) -> Path:
    """The float model, as convert writes it."""
    folder = source.parent / "float"
    folder.mkdir()
    made = make.convert(source, folder, {})
    sides = {side: making.make_tensors(made[side], getattr(artifact.read(source), side)) for side in ("inputs", "outputs")}
    making.write_ports(folder, sides["inputs"], sides["outputs"])
    return folder


def outputs(folder: Path, source: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What the source gave, and what the variant gives for the same samples."""
    feeds, expected = checks.read_probe(source)
    return expected, isolation.compute_outputs(MODULE, folder, {"threads": 1}, feeds)


def several() -> Any:
    """Two inputs, four outputs of different rank and type, in an order that is not that of their names."""
    tensors = {
        "x": ([1, 4], "float32"),
        "k": ([1, 4], "int32"),
        "w": WEIGHTS,
        "zeta": ([1, 3], "float32"),
        "shape": np.array([1, 3, 1, 1], np.int32),
        "alpha": ([1, 3, 1, 1], "float32"),
        "axis": np.array(1, np.int32),
        "mid": ([1], "int64"),
        "twice": ([1, 4], "int32"),
    }
    operators: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("FULLY_CONNECTED", ["x", "w", ""], ["zeta"], {}),
        ("RESHAPE", ["zeta", "shape"], ["alpha"], {}),
        ("ARG_MAX", ["zeta", "axis"], ["mid"], {"outputType": 4}),
        ("ADD", ["k", "k"], ["twice"], {}),
    ]
    names = ["k", "x"], ["zeta", "alpha", "mid", "twice"]
    return old_tflite.build(tensors, operators, *names, signature=(["second", "first"], ["z", "a", "m", "t"]))


K = rng.integers(0, 9, (16, 4)).astype(np.int32)


def test_all_outputs_are_kept_in_the_files_order_with_their_names_and_types(tmp_path):
    source = imported(several(), {"first": X, "second": K}, tmp_path)
    manifest = artifact.read(source)
    assert [port.name for port in manifest.inputs] == ["second", "first"]
    assert [(port.name, port.dtype) for port in manifest.outputs] == [("z", "float32"), ("a", "float32"), ("m", "int64"), ("t", "int32")]
    expected, given = outputs(converted(source), source)
    assert list(given) == list(expected)
    np.testing.assert_allclose(given["z"], X @ WEIGHTS.T, atol=1e-5)
    np.testing.assert_array_equal(given["m"], (X @ WEIGHTS.T).argmax(1))
    np.testing.assert_array_equal(given["t"], 2 * K)
    assert given["a"].shape == (16, 3, 1, 1)


def test_an_output_that_is_an_input_or_there_twice_has_a_name_of_its_own(tmp_path):
    model = old_tflite.read(own_files.tflite(tmp_path / "plain.tflite"))
    graph = model.subgraphs[0]
    graph.outputs = [graph.outputs[0], graph.inputs[0], graph.outputs[0]]
    naming.name_signature(model, ["x"], ["y", "same", "again"])
    source = imported(model, {"x": X}, tmp_path)
    manifest = artifact.read(source)
    assert [[port.name for port in side] for side in (manifest.inputs, manifest.outputs)] == [["x"], ["y", "same", "again"]]
    expected, given = outputs(converted(source), source)
    np.testing.assert_array_equal(expected["same"], X)
    np.testing.assert_array_equal(expected["again"], expected["y"])
    assert checks.check_outputs(expected, given, 100) > 100


def test_openvino_gives_an_input_back_under_the_name_of_the_output(tmp_path):
    pytest.importorskip("openvino")
    model = old_tflite.read(own_files.tflite(tmp_path / "plain.tflite"))
    graph = model.subgraphs[0]
    graph.outputs = [graph.outputs[0], graph.inputs[0]]
    naming.name_signature(model, ["x"], ["y", "same"])
    source, folder = imported(model, {"x": X}, tmp_path), tmp_path / "openvino"
    folder.mkdir()
    part("edgewise.formats.openvino", "make").convert(source, folder, {})
    feeds, expected = checks.read_probe(source)
    assert checks.check_outputs(expected, isolation.compute_outputs("edgewise.formats.openvino", folder, {}, feeds), 100) > 100


def test_a_static_variant_has_all_of_them_too(tmp_path):
    source = imported(several(), {"first": X, "second": K}, tmp_path)
    parent, folder = converted(source), tmp_path / "v"
    folder.mkdir()
    feeds = [{"first": X[i : i + 1], "second": K[i : i + 1]} for i in range(16)]
    make.quantize(parent, source, folder, "int8-static", STATIC, feeds, [])
    expected, given = outputs(folder, source)
    assert checks.check_outputs({n: expected[n] for n in "za"}, {n: given[n] for n in "za"}, 25) > 25
    np.testing.assert_array_equal(given["t"], 2 * K)


def test_the_user_may_keep_fewer_outputs(tmp_path):
    source = imported(several(), {"first": X, "second": K}, tmp_path, outputs=["m"])
    assert [port.name for port in artifact.read(source).outputs] == ["m"]
    folder = converted(source)
    expected, given = outputs(folder, source)
    np.testing.assert_array_equal(given["m"], expected["m"])
    assert {node.operator for node in make.facts.read_nodes(make.facts.read(folder / "model.tflite"))} == {"FULLY_CONNECTED", "ARG_MAX"}


def test_sides_that_are_open_take_the_sizes_of_the_data(tmp_path):
    tensors = {
        "x": ([-1, -1, -1, 2], "float32"),
        "w": rng.normal(0, 1, (3, 3, 3, 2)).astype(np.float32),
        "b": np.zeros(3, np.float32),
        "y": ([-1, -1, -1, 3], "float32"),
    }
    options = {"strideW": 1, "strideH": 1, "dilationWFactor": 1, "dilationHFactor": 1}
    model = old_tflite.build(tensors, [("CONV_2D", ["x", "w", "b"], ["y"], options)], ["x"], ["y"])
    pictures = rng.normal(0, 1, (16, 6, 9, 2)).astype(np.float32)
    source = imported(model, {"x": pictures}, tmp_path)
    manifest = artifact.read(source)
    assert manifest.details["notes"] == ["input x is fixed to the sizes of the data"]
    folder = converted(source)
    assert [*make.facts.read(folder / "model.tflite").subgraphs[0].tensors[-1].shape] == [1, 6, 9, 3]
    expected, given = outputs(folder, source)
    assert given["y"].shape == (16, 6, 9, 3)
    np.testing.assert_array_equal(given["y"], expected["y"])


def test_a_file_with_a_fixed_batch_of_two(tmp_path):
    tensors = {"x": ([2, 4], "float32"), "w": WEIGHTS, "y": ([2, 3], "float32")}
    source = imported(old_tflite.build(tensors, [("FULLY_CONNECTED", ["x", "w", ""], ["y"], {})], ["x"], ["y"]), {"x": X}, tmp_path)
    _, given = outputs(converted(source), source)
    np.testing.assert_allclose(given["y"], X @ WEIGHTS.T, atol=1e-5)


def test_outputs_without_a_sample_axis(tmp_path):
    """As detectors give them that were written for one picture: [3] from [1, 4]."""
    tensors = {
        "x": ([1, 4], "float32"),
        "w": WEIGHTS,
        "h": ([1, 3], "float32"),
        "shape": np.array([3], np.int32),
        "y": ([3], "float32"),
    }
    operators: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("FULLY_CONNECTED", ["x", "w", ""], ["h"], {}),
        ("RESHAPE", ["h", "shape"], ["y"], {}),
    ]
    source = imported(old_tflite.build(tensors, operators, ["x"], ["y"]), {"x": X}, tmp_path)
    assert artifact.read(source).outputs[0].sample_axis is None
    _, given = outputs(converted(source), source)
    np.testing.assert_allclose(given["y"], X @ WEIGHTS.T, atol=1e-5)


def test_explicit_state_is_carried_from_step_to_step(tmp_path):
    """next = tanh(x + state); the oracle by numpy."""
    tensors = {name: ([1, 4], "float32") for name in ("x", "state", "sum", "next", "y")}
    operators: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("ADD", ["x", "state"], ["sum"], {}),
        ("TANH", ["sum"], ["next"], {}),
        ("ADD", ["next", "x"], ["y"], {}),
    ]
    model = old_tflite.build(tensors, operators, ["x", "state"], ["y", "next"])
    steps = rng.normal(0, 1, (16, 5, 4)).astype(np.float32)
    source = imported(model, {"x": steps}, tmp_path, state={"state": "next"})
    state, wanted = np.zeros((16, 4), np.float32), []
    for step in steps.transpose(1, 0, 2):
        state = np.tanh(step + state)
        wanted.append(state + step)
    _, given = outputs(converted(source), source)
    np.testing.assert_allclose(given["y"], np.stack(wanted, 1), atol=1e-5)


def test_what_the_data_lacks_is_named_with_the_setting_that_helps(tmp_path):
    with pytest.raises(
        ModelError, match=r"expects 2 inputs, second int32 \[1, 4\], first float32 \[1, 4\]; the data has first .*model\.inputs"
    ):
        imported(several(), {"first": X}, tmp_path)


def test_a_constant_input_comes_from_the_settings(tmp_path):
    source = imported(several(), {"first": X}, tmp_path, inputs={"second": [[1, 2, 3, 4]]})
    _, given = outputs(converted(source), source)
    np.testing.assert_array_equal(given["t"], np.tile([[2, 4, 6, 8]], (16, 1)))


def test_no_inputs_at_all(tmp_path):
    model = several()
    model.subgraphs[0].inputs, model.signatureDefs = [], None
    with pytest.raises(ModelError, match="has no inputs; convert it again with its inputs"):
        imported(model, {"first": X}, tmp_path)


def quantized() -> Any:
    """x [1, 4] uint8, real value 0.5 * (stored - 128), dequantized."""
    from ai_edge_litert import schema_py_generated as schema

    model = old_tflite.build({"x": ([1, 4], "uint8"), "y": ([1, 4], "float32")}, [("DEQUANTIZE", ["x"], ["y"], {})], ["x"], ["y"])
    table = schema.QuantizationParametersT()
    table.scale, table.zeroPoint = [0.5], [128]
    model.subgraphs[0].tensors[0].quantization = table
    return model


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_a_quantized_input_takes_real_values_and_integers_are_warned_of(dtype, tmp_path):
    values = rng.integers(0, 60, (16, 4)).astype(dtype)
    path = old_tflite.write(quantized(), tmp_path / "mine.tflite")
    (tmp_path / "source").mkdir()
    data = own_files.plain_data(tmp_path / "data", {"x": values})
    fields = tflite_file.obtain(tflite_file.Settings(path=str(path)), data, Train("none"), 0, tmp_path / "source")
    with np.load(tmp_path / "source/probe.npz") as probe:
        np.testing.assert_array_equal(probe["out:y"], values)
    expected = [
        "input x of the file is quantized, and the data gives uint8: these are taken as real values, not as what the file stores;"
        " real value = 0.5 * (stored uint8 - 128)"
    ]
    assert fields["training"].get("warnings", []) == (expected if dtype == "uint8" else [])


def test_a_plain_integer_input_is_fed_as_it_is(tmp_path):
    """uint8 pictures into a file without a scale, and a word on the setting where the data has floats."""
    model = old_tflite.build({"x": ([1, 4], "uint8"), "y": ([1, 4], "float32")}, [("CAST", ["x"], ["y"], {})], ["x"], ["y"])
    values = rng.integers(0, 256, (16, 4)).astype(np.uint8)
    source = imported(model, {"x": values}, tmp_path)
    _, given = outputs(converted(source), source)
    np.testing.assert_array_equal(given["y"], values)
    (tmp_path / "other").mkdir()
    with pytest.raises(ModelError, match=r"x takes uint8, the data's x is float32; set data\.dtype=uint8"):
        imported(model, {"x": X}, tmp_path / "other")


def test_a_layer_and_a_port_of_one_name_stay_apart():
    """Keras names an output after its last layer, whose result an activation may still change."""
    tensors = {"x": ([1, 4], "float32"), "w": WEIGHTS, "h": ([1, 3], "float32"), "y": ([1, 3], "float32")}
    operators: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("FULLY_CONNECTED", ["x", "w", ""], ["h"], {}),
        ("RELU", ["h"], ["y"], {}),
    ]
    model = old_tflite.build(tensors, operators, ["x"], ["y"], signature=(["x"], ["line"]))
    assert naming.name_nodes(model, {"line": [0]}) == {"line": ["line#node"]}
    names = [tensor.name for tensor in model.subgraphs[0].tensors]
    assert len(set(names)) == len(names) and names[3] == b"line"


def test_openvino_reads_all_of_them_from_the_file(tmp_path):
    maker = pytest.importorskip("edgewise.formats.openvino.make")
    pytest.importorskip("openvino")
    source = imported(several(), {"first": X, "second": K}, tmp_path)
    folder = tmp_path / "openvino"
    folder.mkdir()
    maker.convert(source, folder, {})
    feeds, expected = checks.read_probe(source)
    given = isolation.compute_outputs("edgewise.formats.openvino", folder, {"threads": 1}, feeds)
    assert list(given) == list(expected)
    for name, array in expected.items():
        np.testing.assert_allclose(given[name], array, atol=1e-5)


def test_a_layer_in_float16_is_named_with_what_to_do():
    layers = {"line": {"type": "Linear", "weight": "w", "shape": [3, 4]}}
    with pytest.raises(ValueError, match=r"layer 'line' \(Linear 3x4\) computes in float16, .*model\.float\(\)"):
        naming.match_nodes(layers, {"w": WEIGHTS.astype(np.float16)}, [])


def detector() -> Any:
    """Boxes of hundreds of pixels and scores around 0.3, joined to one output of six values."""
    box, score = rng.normal(0, 100, (4, 4)).astype(np.float32), rng.normal(0, 0.2, (2, 4)).astype(np.float32)
    tensors = {
        **{"x": ([1, 4], "float32"), "box": box, "score": score, "low": np.full(2, -1, np.float32)},
        **{"b": ([1, 4], "float32"), "s": ([1, 2], "float32"), "p": ([1, 2], "float32"), "y": ([1, 6], "float32")},
    }
    operators: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("FULLY_CONNECTED", ["x", "box", ""], ["b"], {}),
        ("FULLY_CONNECTED", ["x", "score", "low"], ["s"], {}),
        ("LOGISTIC", ["s"], ["p"], {}),
        ("CONCATENATION", ["b", "p"], ["y"], {"axis": 1}),
    ]
    return old_tflite.build(tensors, operators, ["x"], ["y"], signature=(["x"], ["y"]))


@pytest.mark.parametrize("scheme", ["int8-static", "int16x8-static"])
def test_the_tail_of_a_detector_stays_float(scheme, tmp_path):
    source = imported(detector(), {"x": X}, tmp_path)
    parent = converted(source)
    assert facts.find_tail(parent).operators == ("p", "y")
    assert [facts.find_layers_behind(parent, "y", 6, *span) for span in ((0, 4), (4, 6))] == [["b"], ["s"]]
    found = {}
    for name in ("float", "int8"):
        folder = tmp_path / f"tail-{name}"
        folder.mkdir()
        make.quantize(parent, source, folder, scheme, {**STATIC, "tail": name}, [{"x": row[None]} for row in X], [])
        found[name] = outputs(folder, source)
    assert {one.group for one in checks.compare_outputs(*found["float"], 30)} == {"[0:4]", "[4:6]"}
    if scheme == "int8-static":
        with pytest.raises(VariantFailed, match=r"y\[4:6\]"):
            checks.compare_outputs(*found["int8"], 6)
