"""MNN's static int8 of nets whose channels are spread, whose activations have come to an end, and that pool negative values."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.stats.agreement import sqnr_db
from tests.support.onnx_sources import model, node, normal

pytestmark = [pytest.mark.framework, pytest.mark.formats]

onnx = pytest.importorskip("onnx")
pytest.importorskip("MNN")

from edgewise.formats.mnn import converter, facts, profile, run, scales  # noqa: E402
from tests.unit.test_format_mnn import answers, converted, oracle, quantized  # noqa: E402

SIZE = 12
FEEDS = [{"x": abs(normal(1, 8, SIZE, SIZE, seed=seed))} for seed in range(4)]
ALL = {"x": np.concatenate([feed["x"] for feed in FEEDS])}
MAX_POOL = {"kernel_shape": [5, 5], "pads": [2, 2, 2, 2], "strides": [1, 1]}
KEPT_FOR_SPREAD = ["widen", "depthwise"]


def silu(given: str, made: str) -> list[Any]:
    return [node("Sigmoid", [given], [f"{made}_s"], name=f"{made}_s"), node("Mul", [given, f"{made}_s"], [made], name=made)]


def mobile(spread_by: float) -> Any:
    """1x1, SiLU, depthwise, 1x1. spread_by: the channels between differ in size by up to this factor, and the depthwise layer evens it."""
    channels = 16
    sizes = np.geomspace(1, spread_by, channels).astype(np.float32).reshape(-1, 1, 1, 1)
    weights = {
        "w": abs(normal(channels, 8, 1, 1)) * sizes,
        "d": normal(channels, 1, 3, 3, seed=1) / sizes,
        "l": normal(4, channels, 1, 1, seed=2),
    }
    nodes = [
        node("Conv", ["x", "w"], ["a"], name="widen"),
        *silu("a", "m"),
        node("Conv", ["m", "d"], ["c"], name="depthwise", group=channels, pads=[1, 1, 1, 1]),
        node("Conv", ["c", "l"], ["y"], name="last"),
    ]
    return model(nodes, {"x": ["n", 8, SIZE, SIZE]}, {"y": ["n", 4, SIZE, SIZE]}, weights)


def between(nodes: list[Any], **constants: np.ndarray) -> Any:
    """Two convolutions, and nodes between that turn a into b."""
    weights = {"w": normal(24, 8, 1, 1), "v": normal(16, 24, 1, 1, seed=1) / 5, **constants}
    ends = [node("Conv", ["x", "w"], ["a"], name="first"), *nodes, node("Conv", ["b", "v"], ["y"], name="last")]
    return model(ends, {"x": ["n", 8, SIZE, SIZE]}, {"y": ["n", 16, None, None]}, weights)


def made_static(net: Any, folder: Path, **settings: Any) -> tuple[Path, dict[str, str], float]:
    """The file, the type of each layer's weights, and the agreement with ONNX Runtime in dB."""
    parent = converted(net, folder)
    named = {operators[0]: layer for layer, operators in json.loads((parent / "layers.json").read_text()).items()}
    made = quantized(parent, "int8-static", feeds=FEEDS, **settings)
    types = {named[entry["name"]]: entry["weights_dtype"] for entry in facts.facts(made)["nodes"]}
    return made, types, sqnr_db(oracle(parent, ALL)["y"], answers(made, ALL)["y"])


def described(made: Path) -> dict[str, tuple[float, int]]:
    """Scale and zero point of each tensor that has them, as MNN's own dump says."""
    converter.run_converter(["-f", "MNN", "--modelFile", made / run.MODEL, "--JsonFile", made / "dump.json"])
    dumped = json.loads((made / "dump.json").read_text())
    held = {dumped["tensorName"][entry["index"]]: entry["quantInfo"] for entry in dumped["extraTensorDescribe"]}
    return {name: (entry["scale"], round(entry["zero"])) for name, entry in held.items()}


def test_spread_channels_stay_float_with_the_layer_that_feeds_them(tmp_path):
    """One scale leaves most channels a few steps, and the depthwise layer makes each of them as large as the others."""
    _, types, found = made_static(mobile(3e4), tmp_path / "float")
    assert [layer for layer, dtype in types.items() if dtype == "float32"] == KEPT_FOR_SPREAD and types["last"] == "int8"
    _, types, rounded = made_static(mobile(3e4), tmp_path / "int8", spread="int8")
    assert set(types.values()) == {"int8"}
    assert found > 25 > 10 > rounded


def test_channels_that_are_alike_stay_in_8_bits(tmp_path):
    _, types, found = made_static(mobile(1.0), tmp_path)
    assert set(types.values()) == {"int8"} and found > 20


POOLS = {
    "by silu": [*silu("a", "c"), node("MaxPool", ["c"], ["b"], name="pool", **MAX_POOL)],
    "joined": [
        *silu("a", "c"),
        *(node("MaxPool", [given], [made], name=made, **MAX_POOL) for given, made in (("c", "p"), ("p", "q"))),
        *(node("Sub", [pooled, "c"], [f"{pooled}d"], name=f"{pooled}d") for pooled in "pq"),
        node("Concat", ["c", "p", "q"], ["j"], name="join", axis=1),
        node("Conv", ["j", "u"], ["b"], name="joining"),
    ],
    "an average": [*silu("a", "c"), node("GlobalAveragePool", ["c"], ["b"], name="pool")],
    "all of a picture": [node("Tanh", ["a"], ["c"], name="tanh"), node("GlobalMaxPool", ["c"], ["b"], name="pool")],
}


@pytest.mark.parametrize("kind", POOLS)
def test_poolings_that_8_bits_spoil_are_float(kind, tmp_path):
    """The reader of the pooling stays float, since MNN would take its scale for the pooling too. YOLOX pools negative values by the
    maximum; nets with squeeze and excitation average values far beyond the averages.
    """
    made, types, found = made_static(between(POOLS[kind], u=normal(24, 72, 1, 1, seed=3) / 9), tmp_path)
    reader = "joining" if kind == "joined" else "last"
    assert [layer for layer, dtype in types.items() if dtype == "float32"] == [reader]
    assert found > 20
    session = profile.load(str(made), {"threads": 1})
    session.run(FEEDS[0])
    assert {entry["dtype"] for entry in session.profile()["runs"][0] if entry["type"] == "Pooling"} == {"float32"}


def test_values_that_are_not_negative_are_pooled_in_8_bits(tmp_path):
    nodes = [node("Relu", ["a"], ["c"], name="relu"), node("MaxPool", ["c"], ["b"], name="pool", **MAX_POOL)]
    _, types, found = made_static(between(nodes), tmp_path)
    assert set(types.values()) == {"int8"} and found > 20


def test_a_scale_ends_where_silu_does_and_has_a_zero_point(tmp_path):
    """One channel lies far below zero, where SiLU is 0; with one symmetric scale for all, the others have a tenth of the steps."""
    bias = np.zeros(24, np.float32)
    bias[0] = -200
    nodes = [node("Add", ["a", "bias"], ["t"], name="bias"), *silu("t", "b")]
    made, types, found = made_static(between(nodes, bias=bias.reshape(1, -1, 1, 1)), tmp_path)
    assert set(types.values()) == {"int8"} and found > 25
    held = described(made)
    step, zero = held["t"] if "t" in held else held["a"]
    assert -60 < step * (-128 - zero) < -2 and zero != 0


def test_a_zero_point_is_where_zero_is():
    low, high = -3.0, 9.0
    step, zero = scales.to_scale(low, high, free=True)
    assert (-128 - zero) * step == pytest.approx(low, abs=step / 2) and (127 - zero) * step == pytest.approx(high, abs=step / 2)
    assert scales.to_scale(low, high, free=False) == (pytest.approx(9 / 127), 0)
    assert scales.to_scale(2.0, 4.0, free=True) == (pytest.approx(4 / 255), -128), "0 is always among the values"
    assert scales.to_scale(0.0, 0.0, free=True) == (1.0, 0)


def test_sums_and_poolings_have_no_zero_points(tmp_path):
    """With them MNN gives wrong answers there."""
    nodes = [
        *silu("a", "c"),
        node("Conv", ["c", "s"], ["d"], name="side"),
        node("Add", ["c", "d"], ["b"], name="sum"),
    ]
    made, types, found = made_static(between(nodes, s=normal(24, 24, 1, 1, seed=4) / 5), tmp_path)
    assert set(types.values()) == {"int8"} and found > 20
    zeros = {name: zero for name, (_, zero) in described(made).items()}
    assert zeros["b"] == zeros["c"] == zeros["d"] == 0 != zeros["a"]
