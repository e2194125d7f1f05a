"""Small ONNX files whose ports are not one float32 [samples, ...] on each side, imported as train-export does.

BUILDERS["state"](kinds)      models/source of that kind, as a folder
"""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import ROOT
from tests.support.onnx_sources import imported, model, node, normal
from tests.support.source_kinds import Kinds

COUNT = 16
TOLD = {
    "several": "two inputs, three outputs",
    "state": "state and a scalar constant",
    "int32": "int32 input (token ids)",
    "uint8": "uint8 input (pixels)",
    "integer_output": "an output of integers beside scores",
    "float16": "float16 weights and ports",
    "qdq": "int8 already (Q and DQ)",
    "open_sides": "open height and width",
    "no_batch": "no axis for samples",
}


def several() -> tuple[Any, dict[str, np.ndarray]]:
    weights = {"v": normal(4, 8, seed=1), "w": normal(6, 8, seed=2), "u": normal(8, 3, seed=3), "t": normal(8, 2, seed=4)}
    nodes = [node("MatMul", ["a", "v"], ["p"], name="left"), node("MatMul", ["b", "w"], ["q"], name="right")]
    nodes += [node("Add", ["p", "q"], ["s"], name="add"), node("Relu", ["s"], ["sum"], name="relu")]
    nodes += [node("MatMul", ["sum", "u"], ["y"], name="scores"), node("MatMul", ["sum", "t"], ["z"], name="boxes")]
    sides = {"a": ["batch", 4], "b": ["batch", 6]}, {"y": ["batch", 3], "z": ["batch", 2], "sum": ["batch", 8]}
    return model(nodes, *sides, weights), {"a": normal(COUNT, 4), "b": normal(COUNT, 6, seed=9)}


def state() -> tuple[Any, dict[str, np.ndarray]]:
    weights = {
        "w": normal(4, 6, seed=1),
        "v": normal(6, 3, seed=2),
        "half": np.array(0.5, np.float32),
        "rate": np.array(16000.0, np.float32),
    }
    nodes = [node("MatMul", ["x", "w"], ["taken"], name="take"), node("Mul", ["h", "half"], ["old"], name="fade")]
    nodes += [node("Cast", ["sr"], ["given"], name="cast", to=1), node("Div", ["given", "rate"], ["factor"], name="scale")]
    nodes += [node("Mul", ["taken", "factor"], ["scaled"], name="times"), node("Add", ["scaled", "old"], ["sum"], name="add")]
    nodes += [node("Tanh", ["sum"], ["next"], name="tanh"), node("MatMul", ["next", "v"], ["y"], name="answer")]
    sides = {"x": ["batch", 4], "h": ["batch", 6], "sr": [np.int64, []]}, {"y": ["batch", 3], "next": ["batch", 6]}
    return model(nodes, *sides, weights), {"x": np.stack([normal(5, 4, seed=i) for i in range(COUNT)])}


def token_ids(kind: type, rows: int) -> tuple[Any, dict[str, np.ndarray]]:
    weights = {"table": normal(rows, 8, seed=1), "w": normal(8, 3, seed=2)}
    nodes = [node("Gather", ["table", "ids"], ["e"], name="table"), node("ReduceMean", ["e", "axes"], ["m"], name="mean", keepdims=0)]
    nodes += [node("MatMul", ["m", "w"], ["y"], name="scores")]
    net = model(nodes, {"ids": [kind, ["batch", 5]]}, {"y": ["batch", 3]}, weights | {"axes": np.array([1])})
    return net, {"ids": np.random.default_rng(0).integers(0, rows, (COUNT, 5)).astype(kind)}


def convolution(sides: Any, weights: Mapping[str, np.ndarray]) -> Any:
    """3 channels, 8, and a mean over the picture to 4 scores; nodes and weights. sides: the name of the input."""
    nodes = [node("Conv", [sides, "c"], ["a"], name="stem", pads=[1, 1, 1, 1]), node("Relu", ["a"], ["r"], name="relu")]
    nodes += [node("Conv", ["r", "d"], ["b"], name="block"), node("GlobalAveragePool", ["b"], ["g"], name="pool")]
    nodes += [node("Flatten", ["g"], ["f"], name="flatten"), node("MatMul", ["f", "w"], ["y"], name="scores")]
    return nodes, {"c": normal(8, 3, 3, 3, seed=1), "d": normal(8, 8, 3, 3, seed=2), "w": normal(8, 4, seed=3), **weights}


def pixels() -> tuple[Any, dict[str, np.ndarray]]:
    nodes, weights = convolution("scaled", {"white": np.array(255, np.float32)})
    first = [node("Cast", ["image"], ["float"], name="cast", to=1), node("Div", ["float", "white"], ["scaled"], name="scale")]
    net = model([*first, *nodes], {"image": [np.uint8, ["batch", 3, 16, 16]]}, {"y": ["batch", 4]}, weights)
    random = np.random.default_rng(0)
    return net, {"image": (random.integers(0, 256, (COUNT, 3, 16, 16)) * random.uniform(0.2, 1, (COUNT, 3, 1, 1))).astype(np.uint8)}


def integer_output() -> tuple[Any, dict[str, np.ndarray]]:
    nodes, weights = convolution("image", {})
    nodes += [node("ArgMax", ["y"], ["best"], name="best", axis=1, keepdims=0)]
    net = model(nodes, {"image": ["batch", 3, 16, 16]}, {"y": ["batch", 4], "best": [np.int64, ["batch"]]}, weights)
    return net, {"image": normal(COUNT, 3, 16, 16)}


def float16() -> tuple[Any, dict[str, np.ndarray]]:
    nodes, weights = convolution("image", {})
    halves = {name: (array * 0.3).astype(np.float16) for name, array in weights.items()}
    sides = {"image": [np.float16, ["batch", 3, 16, 16]]}, {"y": [np.float16, ["batch", 4]]}
    return model(nodes, *sides, halves), {"image": normal(COUNT, 3, 16, 16)}


def open_sides() -> tuple[Any, dict[str, np.ndarray]]:
    nodes, weights = convolution("image", {})
    net = model(nodes, {"image": ["batch", 3, "height", "width"]}, {"y": ["batch", 4]}, weights)
    return net, {"image": normal(COUNT, 3, 24, 16)}


def no_batch() -> tuple[Any, dict[str, np.ndarray]]:
    weights = {"v": normal(6, 8, seed=1), "w": normal(8, 3, seed=2)}
    nodes = [node("MatMul", ["x", "v"], ["p"], name="first"), node("Relu", ["p"], ["r"], name="relu")]
    nodes += [node("MatMul", ["r", "w"], ["y"], name="scores")]
    return model(nodes, {"x": [5, 6]}, {"y": [5, 3]}, weights), {"x": normal(COUNT, 5, 6)}


def quantized() -> tuple[Any, dict[str, np.ndarray]]:
    return ROOT / "tests/data/quantized_qdq.onnx", {"x": normal(24, 3, 40)}


NETS: Mapping[str, Callable[[], tuple[Any, dict[str, np.ndarray]]]] = {
    **{"several": several, "state": state, "int32": lambda: token_ids(np.int32, 40), "uint8": pixels},
    **{"integer_output": integer_output, "float16": float16, "qdq": quantized, "open_sides": open_sides, "no_batch": no_batch},
}
SETTINGS: Mapping[str, Mapping[str, Any]] = {"state": {"state": {"h": "next"}, "inputs": {"sr": 16000}}}


def build(kind: str, kinds: Kinds) -> Path:
    net, arrays = NETS[kind]()
    return imported(net, arrays, kinds.folder / f"ports-{kind}" / "source", **SETTINGS.get(kind, {}))


BUILDERS: Mapping[str, Callable[[Kinds], Path]] = {kind: functools.partial(build, kind) for kind in NETS}
