"""Ranges in front of activations: cut where these have come to an end, and what the file gains by it."""

import numpy as np
import pytest

from edgewise.formats.common.rounding import find_ends
from edgewise.formats.onnx import ranges
from tests.support.onnx_sources import model, node, normal
from tests.unit.test_onnx_spread import quantized

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.framework


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
