"""Parameters and multiply-adds of ONNX graphs: counted, or None where a size is open; never wrong."""

import numpy as np
import pytest

from tests.support.onnx_sources import graph, model, node

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
from edgewise.sources import onnx_counting  # noqa: E402


def ones(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


def recurrent(kind: str, gates: int, directions: int = 1, **attributes):
    """5 steps of 6 numbers into 8; the batch is open."""
    held = {"w": ones(directions, gates * 8, 6), "r": ones(directions, gates * 8, 8), "b": ones(directions, 2 * gates * 8)}
    given = [5, "n", 6] if not attributes.get("layout") else ["n", 5, 6]
    attributes |= {"direction": "bidirectional"} if directions == 2 else {}
    return model([node(kind, ["x", "w", "r", "b"], ["y"], hidden_size=8, **attributes)], {"x": given}, {"y": [None] * 4}, held)


def convolution(shape, weight, kind="Conv", **attributes):
    return model([node(kind, ["x", "w"], ["y"], **attributes)], {"x": shape}, {"y": [None] * len(shape)}, {"w": ones(*weight)})


def product(shape, weight, out):
    return model([node("MatMul", ["x", "w"], ["y"])], {"x": shape}, {"y": out}, {"w": ones(*weight)})


def branch(first: int, second: int):
    """Two branches with a product each, of so many columns."""
    bodies = [graph([node("MatMul", ["x", f"w{n}"], [f"y{n}"])], {}, {f"y{n}": [None, None]}) for n in (first, second)]
    chosen = node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    held = {f"w{n}": ones(4, n) for n in (first, second)}
    return model([chosen], {"x": ["n", 4], "c": [np.bool_, []]}, {"y": [None, None]}, held)


def loop():
    from onnx import TensorProto, helper

    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("MatMul", ["a", "w"], ["b"])],
        *("body", [helper.make_tensor_value_info(n, k, s) for n, k, s in (("i", 7, []), ("go", 9, []), ("a", 1, ["n", 4]))]),
        [helper.make_tensor_value_info("on", TensorProto.BOOL, []), helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 4])],
    )
    return model(
        [node("Loop", ["times", "", "x"], ["y"], body=body)], {"x": ["n", 4], "times": [np.int64, []]}, {"y": ["n", 4]}, {"w": ones(4, 4)}
    )


def integer_products():
    held = {"w": ones(4, 6, dtype=np.int8), "s": np.float32(0.1), "z": np.int8(0), "u": ones(6, 3, dtype=np.uint8), "us": np.float32(0.2)}
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("QLinearMatMul", ["q", "s", "z", "w", "s", "z", "s", "z"], ["p"]),
        node("DequantizeLinear", ["p", "s", "z"], ["d"]),
        node("DynamicQuantizeLinear", ["d"], ["e", "es", "ez"]),
        node("MatMulInteger", ["e", "u", "ez"], ["i"]),
        node("Cast", ["i"], ["f"], to=1),
        node("Mul", ["es", "us"], ["scale"]),
        node("Mul", ["f", "scale"], ["y"]),
    ]
    return model(nodes, {"x": ["n", 4]}, {"y": ["n", 3]}, held)


def blocks():
    held = {"w": np.zeros((5, 1, 16), np.uint8), "s": ones(5)}
    made = node("MatMulNBits", ["x", "w", "s"], ["y"], K=32, N=5, bits=4, block_size=32, domain="com.microsoft")
    return model([made], {"x": ["n", 7, 32]}, {"y": ["n", 7, 5]}, held)


COUNTED = {  # parameters, multiply-adds of one sample
    "LSTM": (recurrent("LSTM", 4), 32 * 14 + 64, 5 * 32 * 14),
    "GRU": (recurrent("GRU", 3), 24 * 14 + 48, 5 * 24 * 14),
    "RNN": (recurrent("RNN", 1), 8 * 14 + 16, 5 * 8 * 14),
    "LSTM in both directions": (recurrent("LSTM", 4, 2), 2 * (32 * 14 + 64), 2 * 5 * 32 * 14),
    "LSTM with the batch first": (recurrent("LSTM", 4, layout=1), 32 * 14 + 64, 5 * 32 * 14),
    "grouped convolution": (convolution(["n", 8, 9, 9], (8, 2, 3, 3), group=4), 144, 7 * 7 * 144),
    "transposed convolution": (convolution(["n", 8, 5, 5], (8, 4, 2, 2), "ConvTranspose", strides=[2, 2]), 128, 25 * 128),
    "grouped transposed convolution": (convolution(["n", 8, 5, 5], (8, 2, 2, 2), "ConvTranspose", group=4), 64, 25 * 64),
    "a stack of matrices": (product(["n", 4, 6, 16], (4, 16, 8), ["n", 4, 6, 8]), 512, 4 * 6 * 16 * 8),
    "a batch that the file fixes": (product([5, 16], (16, 3), [5, 3]), 48, 48),
    "one sample without a batch": (product([16, 4], (4, 3), [16, 3]), 12, 12),
    "operators on integers": (integer_products(), 24 + 18, 24 + 18),
    "blocks of few bits": (blocks(), 160, 7 * 160),
    "branches alike": (branch(3, 3), 12, 12),
}


@pytest.mark.parametrize("kind", COUNTED)
def test_what_can_be_counted_is(kind):
    net, parameters, multiply_adds = COUNTED[kind]
    assert (onnx_counting.count_parameters(net), onnx_counting.count_multiply_adds(net)) == (parameters, multiply_adds)


NOT_COUNTED = {
    "an open number of steps": model(
        [node("LSTM", ["x", "w", "r"], ["y"], hidden_size=8)],
        *({"x": ["steps", "n", 6]}, {"y": [None] * 4}, {"w": ones(1, 32, 6), "r": ones(1, 32, 8)}),
    ),
    "open height and width": convolution(["n", 3, "h", "w"], (8, 3, 3, 3)),
    "branches that differ": branch(3, 5),
    "a loop": loop(),
    "an operator whose products are not known here": model(
        [node("Einsum", ["x", "w"], ["y"], equation="ij,jk->ik")], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": ones(4, 3)}
    ),
    "an operator of ONNX Runtime's own": model(
        [node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")], {"x": ["n", 4]}, {"y": ["n", 3]}, {"w": ones(4, 3)}
    ),
}


@pytest.mark.parametrize("kind", NOT_COUNTED)
def test_what_cannot_be_counted_is_said_to_be_unknown(kind):
    assert onnx_counting.count_multiply_adds(NOT_COUNTED[kind]) is None
    assert onnx_counting.count_parameters(NOT_COUNTED[kind]) > 0


def test_a_transposed_left_side_is_multiplied_along_its_first_axis():
    net = model([node("Gemm", ["x", "w"], ["y"], transA=1)], {"x": [6, 4]}, {"y": [4, 3]}, {"w": ones(6, 3)})
    assert onnx_counting.count_multiply_adds(net) == 4 * 6 * 3


def test_a_name_of_an_open_axis_is_the_batch_wherever_it_stands():
    """State [layers, batch, hidden], as exporters name it."""
    held = {"w": ones(1, 24, 6), "r": ones(1, 24, 8)}
    nodes = [node("Unsqueeze", ["x", "a"], ["u"]), node("GRU", ["u", "w", "r", "", "", "h"], ["y", "next"], hidden_size=8)]
    net = model(nodes, {"x": ["batch", 6], "h": [1, "batch", 8]}, {"next": [1, "batch", 8]}, {**held, "a": np.array([0])})
    assert onnx_counting.count_multiply_adds(net) == 24 * 14
