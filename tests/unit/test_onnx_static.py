"""Static quantization of ONNX files: depthwise convolutions whose channels are spread, ranges and biases by NNCF, ranges in front of
activations, cut where these have come to an end, and operators of com.microsoft, of which ONNX itself knows no types."""

import numpy as np
import pytest

from edgewise.formats.common.rounding import find_ends, lost_bits
from edgewise.formats.onnx import channels, facts, make, ranges, run
from edgewise.stats.agreement import sqnr_db
from tests.support.onnx_sources import model, node, normal
from tests.support.source_kinds import form

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.framework

SETTINGS = form("onnx")["schemes"]["int8-static"]
FEEDS = [{"x": normal(1, 3, 8, 8, seed=i)} for i in range(16)]
CHANNELS = 8
CONVOLUTIONS = ("widen", "depthwise", "last")


def mobile(spread_by: float):
    """1x1, SiLU, depthwise, 1x1. spread_by: the channels between differ in size by up to this factor, and the depthwise layer evens it."""
    sizes = np.geomspace(1, spread_by, CHANNELS).astype(np.float32)
    weights = {
        "w": (normal(CHANNELS, 3, 1, 1, seed=1) * sizes.reshape(-1, 1, 1, 1)).astype(np.float32),
        "d": (normal(CHANNELS, 1, 3, 3, seed=2) / sizes.reshape(-1, 1, 1, 1)).astype(np.float32),
        "l": normal(4, CHANNELS, 1, 1, seed=3),
        **{name: normal(size, seed=size) for name, size in (("wb", CHANNELS), ("lb", 4))},
    }
    nodes = [
        node("Conv", ["x", "w", "wb"], ["a"], name="widen"),
        node("Sigmoid", ["a"], ["s"], name="squash"),
        node("Mul", ["a", "s"], ["m"], name="silu"),
        node("Conv", ["m", "d"], ["c"], name="depthwise", group=CHANNELS, pads=[1, 1, 1, 1]),
        node("Conv", ["c", "l", "lb"], ["y"], name="last"),
    ]
    return model(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]}, weights)


def quantized(net, folder, **settings):
    """The file, what was left float, and its agreement with the float model, in dB."""
    (folder / "float").mkdir(parents=True)
    (folder / "int8").mkdir()
    onnx.save(net, folder / "float/model.onnx")
    left = make.quantize(folder / "float", folder, folder / "int8", "int8-static", {**SETTINGS, **settings}, FEEDS, [])
    feeds = {"x": np.concatenate([feed["x"] for feed in FEEDS])}
    answers = [run.load(str(folder / name), {"threads": 1}).run(feeds)["y"] for name in ("float", "int8")]
    return folder / "int8", left, sqnr_db(*answers)


def test_channels_that_are_alike_stay_in_8_bits():
    assert channels.find_spread(mobile(1.0), FEEDS) == [] == channels.find_spread(mobile(1000.0), [])


def test_spread_channels_are_found_with_the_layer_that_feeds_them():
    assert channels.find_spread(mobile(1000.0), FEEDS) == ["widen", "depthwise"]


def test_lost_bits_are_those_of_one_scale_for_all_channels():
    found = lost_bits(np.array([-1.0, 0, 0]), np.array([3.0, 1, 0]))
    assert found == pytest.approx(1)  # of 0 and 2 bits; a dead channel not counted


def test_layers_that_one_scale_spoils_stay_float_unless_asked(tmp_path):
    folder, left, better = quantized(mobile(1000.0), tmp_path / "float")
    dtypes = {entry["name"]: entry["weights_dtype"] for entry in facts.facts(folder)["nodes"]}
    assert left == ["widen", "depthwise"] and dtypes == {"widen": "float32", "depthwise": "float32", "last": "int8"}
    folder, left, worse = quantized(mobile(1000.0), tmp_path / "int8", spread="int8")
    assert not left and all(entry["weights_dtype"] == "int8" for entry in facts.facts(folder)["nodes"])
    assert better > worse + 10


def test_nncf_finds_ranges_and_corrects_biases_where_onnx_runtime_has_kernels(tmp_path):
    pytest.importorskip("nncf")
    calibration = {"samples": 16, "method": "mean", "resamples": 0}
    _, _, plain = quantized(mobile(1.0), tmp_path / "plain", calibration=calibration)
    folder, left, agreement = quantized(mobile(1.0), tmp_path, tool="nncf", calibration=calibration)
    assert not left and agreement > plain - 3
    made = onnx.load(folder / "model.onnx")
    assert all(entry["activations_dtype"] == "uint8" for entry in facts.facts(folder)["nodes"])
    readers = {name: each for each in made.graph.node for name in each.input}
    convolutions = [each for each in made.graph.node if each.op_type == "Conv"]
    assert {readers[each.output[0]].op_type for each in convolutions} == {"QuantizeLinear"}
    settings = {**SETTINGS, "tool": "nncf", "calibration": {"method": "entropy"}}
    with pytest.raises(ValueError, match=r"calibration\.method: 'entropy' with tool: nncf; allowed: minmax, mean, percentile"):
        make.quantize(tmp_path / "float", tmp_path, tmp_path / "int8", "int8-static", settings, FEEDS, [])


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("slack", [0.001, 0.02])
def test_outside_of_the_ends_the_function_hardly_moves(slack):
    low, high = find_ends(silu, -30.0, 12.0, slack)
    outside = np.linspace(-30, low, 999)
    assert high == pytest.approx(12, abs=2 * slack + 0.02) and -15 < low < -2
    assert np.abs(silu(outside) - silu(np.array(low))).max() <= slack * 1.01
    assert np.abs(silu(np.linspace(-30, low + 1, 999)) - silu(np.array(low + 1))).max() > slack, "no wider than it must be"


def test_a_function_that_moves_everywhere_keeps_its_range():
    assert find_ends(lambda x: x, -3.0, 4.0, 0.01) == pytest.approx((-3.0, 4.0), abs=0.03)
    assert find_ends(np.zeros_like, -3.0, 4.0, 0.01) == (-3.0, 4.0), "a constant leaves no range"


def activations(net) -> list[tuple[str, str]]:
    return [(given, made) for given, made, _ in ranges._find_activations(net)]


def test_activations_are_found_whose_input_nothing_else_reads():
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="conv"),
        node("Sigmoid", ["a"], ["s"], name="squash"),
        node("Mul", ["s", "a"], ["m"], name="silu"),
        node("HardSigmoid", ["m"], ["h"], name="hard", alpha=0.5),
        node("Tanh", ["h"], ["t"], name="tanh"),
        node("Add", ["h", "t"], ["y"], name="sum"),
    ]
    net = model(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]}, {"w": normal(4, 3, 1, 1, seed=1)})
    assert activations(net) == [("a", "m"), ("m", "h")], "what the sum reads, too, keeps its range"
    (_, hard) = [function for *_, function in ranges._find_activations(net)]
    assert hard(np.array([-9.0, 0.0, 0.2, 9.0])) == pytest.approx([0, 0.5, 0.6, 1])


def test_the_file_is_finer_where_it_matters(tmp_path, monkeypatch):
    """One channel lies far below zero, where SiLU is 0, and stretches the range of all."""
    weights = {"w": normal(6, 3, 1, 1, seed=1), "b": np.array([-200, 0, 0, 0, 0, 0], np.float32), "l": normal(4, 6, 1, 1, seed=2)}
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], name="first"),
        node("Sigmoid", ["a"], ["s"], name="squash"),
        node("Mul", ["a", "s"], ["m"], name="silu"),
        node("Conv", ["m", "l"], ["y"], name="last"),
    ]
    net = model(nodes, {"x": ["batch", 3, 8, 8]}, {"y": ["batch", 4, 8, 8]}, weights)
    _, _, finer = quantized(net, tmp_path / "finer")
    monkeypatch.setattr(ranges, "narrow", lambda model, ranges: None)
    _, _, plain = quantized(net, tmp_path / "plain")
    assert finer > plain + 10


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
