"""The tail behind a model's last layers: found by structure, kept float by static schemes, and told layer by layer."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import METRICS_SCHEMA
from edgewise.compress.build import Build
from edgewise.compress.variants import name_layers
from edgewise.config.schema import Variant
from edgewise.errors import VariantFailed
from edgewise.formats.common import tails
from edgewise.formats.common.tails import Graph, Operator, Span, Tail
from edgewise.proof import checks
from edgewise.report import explain
from tests.support import onnx_sources
from tests.support.onnx_sources import model, node

SAMPLES = onnx_sources.normal(32, 3, 8, 8)


def chain(*kinds: str, given: str = "x") -> list[Operator]:
    """One operator behind the other; products and biases also read a constant."""
    found = []
    for place, kind in enumerate(kinds):
        inputs = (given, "constant") if kind in (tails.PRODUCT, tails.BIAS) else (given,)
        given = f"{kind}_{place}"
        found.append(Operator(given, kind, inputs, (given,)))
    return found


def operator(name: str, kind: str, *inputs: str, sizes: tuple[int, ...] = (), constant_bytes: int = 0) -> Operator:
    return Operator(name, kind, inputs, (name,), sizes, constant_bytes)


def graph(*operators: Operator) -> Graph:
    return Graph(("x",), operators)


def two_heads(*behind: Operator) -> Graph:
    """A layer, and two layers on its result, boxes and scores."""
    layers = [operator(name, tails.PRODUCT, given, "w") for name, given in (("trunk", "x"), ("box", "trunk"), ("score", "trunk"))]
    return graph(*layers, *behind)


@pytest.mark.parametrize(
    "kinds",
    [
        (tails.PRODUCT, tails.OTHER, tails.PRODUCT),
        (tails.PRODUCT, tails.BIAS, tails.OTHER, tails.SOFTMAX),
        (tails.PRODUCT, tails.OTHER, tails.PART, tails.LAYOUT),  # the first of several tokens
        (tails.PRODUCT, tails.OTHER, tails.LAYOUT, tails.PRODUCT, tails.LAYOUT),
    ],
)
def test_what_does_one_thing_behind_its_last_layer_has_no_tail(kinds):
    assert tails.find_tail(graph(*chain(*kinds))) == Tail()


def test_a_join_of_boxes_and_scores_is_a_tail_with_all_around_it():
    found = tails.find_tail(
        two_heads(
            operator("sigmoid", tails.OTHER, "score"),
            operator("grid", tails.OTHER, "box", "places", constant_bytes=48),
            operator("join", tails.JOIN, "grid", "sigmoid"),
            operator("turn", tails.LAYOUT, "join"),
        )
    )
    assert found == Tail(("sigmoid", "grid", "join", "turn"), 48)


def test_a_value_that_is_taken_apart_or_suppressed_is_a_tail():
    parts = [operator("xy", tails.PART, "box"), operator("size", tails.PART, "box"), operator("exp", tails.OTHER, "size")]
    assert tails.find_tail(two_heads(*parts)).operators == ("xy", "size", "exp")
    split = Operator("split", tails.PART, ("box",), ("a", "b"))
    assert tails.find_tail(two_heads(split)).operators == ("split",)
    assert tails.find_tail(two_heads(operator("nms", tails.SELECT, "box", "score"))).operators == ("nms",)


def test_a_join_in_front_of_a_layer_or_of_sizes_is_none():
    inner = two_heads(operator("join", tails.JOIN, "box", "score"), operator("last", tails.PRODUCT, "join", "w"))
    assert tails.find_tail(inner) == Tail()
    sizes = [operator("shape", tails.SHAPE, "box"), operator("rows", tails.PART, "shape"), operator("wanted", tails.JOIN, "rows", "rest")]
    assert tails.find_tail(two_heads(*sizes, operator("flat", tails.LAYOUT, "box", "wanted"))) == Tail()
    padded = operator("padded", tails.JOIN, "box", "zeros")
    assert tails.find_tail(two_heads(padded)) == Tail()


def test_the_expectation_behind_a_softmax_is_no_layer():
    found = tails.find_tail(
        two_heads(
            operator("both", tails.JOIN, "box", "score"),
            Operator("split", tails.PART, ("both",), ("bins", "logits")),
            operator("softmax", tails.SOFTMAX, "bins"),
            operator("turned", tails.LAYOUT, "softmax"),
            operator("mean", tails.PRODUCT, "turned", "numbers"),
            operator("sigmoid", tails.OTHER, "logits"),
            operator("join", tails.JOIN, "mean", "sigmoid"),
        )
    )
    assert found.operators == ("both", "split", "softmax", "turned", "mean", "sigmoid", "join")


def test_layers_behind_a_group_are_those_of_its_branch():
    built = two_heads(
        operator("sigmoid", tails.OTHER, "score"),
        operator("join", tails.JOIN, "box", "sigmoid", sizes=(4, 81)),
        operator("rows", tails.JOIN, "join", "join", sizes=(100, 100)),
    )
    assert tails.find_layers_behind(built, "rows") == ["box", "score"]
    assert tails.find_layers_behind(built, "rows", Span(85, 0, 4)) == ["box"]
    assert tails.find_layers_behind(built, "rows", Span(85, 4, 85)) == ["score"]
    assert tails.find_layers_behind(built, "rows", Span(85, 3, 5)) == ["box", "score"]


def detector(decode: bool = False):
    """An ONNX file with boxes of hundreds of pixels and scores around 0.3 in one output [n, 64, 6]. decode: grids and strides in it."""
    random = np.random.default_rng(1)
    weights = {
        "trunk": random.normal(0, 0.3, (8, 3, 3, 3)).astype(np.float32),
        "box": random.normal(0, 60, (4, 8, 1, 1)).astype(np.float32),
        "score": random.normal(0, 0.3, (2, 8, 1, 1)).astype(np.float32),
        "low": np.full(2, -1, np.float32),
        "flat": np.array([0, 6, 64]),
        "grid": np.arange(4 * 64, dtype=np.float32).reshape(1, 4, 8, 8),
        "stride": np.array(8, np.float32),
    }
    decoding = [
        node("Abs", ["b"], ["q"], name="size"),
        node("Mul", ["q", "stride"], ["m"], name="scale"),
        node("Add", ["m", "grid"], ["d"], name="shift"),
    ]
    nodes = [
        node("Conv", ["x", "trunk"], ["t"], name="trunk", pads=[1, 1, 1, 1]),
        node("Relu", ["t"], ["r"], name="relu"),
        node("Conv", ["r", "box"], ["b"], name="box"),
        node("Conv", ["r", "score", "low"], ["s"], name="score"),
        node("Sigmoid", ["s"], ["p"], name="sigmoid"),
        *(decoding if decode else ()),
        node("Concat", ["d" if decode else "b", "p"], ["c"], name="join", axis=1),
        node("Reshape", ["c", "flat"], ["f"], name="flat"),
        node("Transpose", ["f"], ["y"], name="turn", perm=[0, 2, 1]),
    ]
    held = {name: array for name, array in weights.items() if decode or name not in ("grid", "stride")}
    return model(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 64, 6]}, held)


@pytest.fixture(scope="module", params=["onnx", "openvino"])
def made(request, tmp_path_factory) -> tuple[str, Path, Path]:
    """Format, source and float model of a detector that decodes."""
    pytest.importorskip(request.param)
    folder = tmp_path_factory.mktemp(request.param)
    source = onnx_sources.imported(detector(decode=True), {"x": SAMPLES}, folder / "source")
    if request.param == "onnx":
        return "onnx", source, onnx_sources.converted("onnx", source, folder / "float")
    through = onnx_sources.converted("onnx", source, folder / "onnx")
    return "openvino", source, onnx_sources.converted("openvino", through, folder / "float")


@pytest.mark.framework
def test_the_tail_of_a_detector_in_each_format(made):
    name, _, parent = made
    found = onnx_sources.tail_of(name, parent)
    assert len(found.operators) == 7, found
    assert found.bytes == 4 * (4 * 64 + 1)


@pytest.mark.framework
def test_the_layers_behind_boxes_and_behind_scores(made):
    name, _, parent = made
    behind = [onnx_sources.layers_behind(name, parent, "y", *span) for span in ((6, 0, 4), (6, 4, 6))]
    assert [[node.split("/")[0].split("_")[0] for node in nodes] for nodes in behind] == [["box"], ["score"]], "OpenVINO adds to names"


@pytest.mark.framework
def test_every_group_survives_a_static_scheme(made, tmp_path):
    name, source, parent = made
    folder = onnx_sources.quantized(name, "int8-static", parent, source, tmp_path / "variant")
    assert onnx_sources.worst_db(name, folder, source) > 20
    assert sum(node["weights_dtype"] == "int8" for node in onnx_sources.facts_of(name, folder)["nodes"]) == 3, "the layers are quantized"
    assert onnx_sources.facts_of(name, folder)["conversions"] == (
        {"QuantizeLinear": 4, "DequantizeLinear": 4} if name == "onnx" else {"FakeQuantize": 2}
    )


@pytest.mark.framework
def test_scores_that_share_a_scale_with_boxes_are_dead_and_with_a_float_tail_alive(tmp_path):
    pytest.importorskip("onnx")
    source = onnx_sources.imported(detector(), {"x": SAMPLES}, tmp_path / "source")
    parent = onnx_sources.converted("onnx", source, tmp_path / "float")
    expected = checks.read_probe(source)[1]
    naive, ours = (
        onnx_sources.outputs(
            "onnx", onnx_sources.quantized("onnx", "int8-static", parent, source, tmp_path / f"tail-{tail}", tail=tail), source
        )
        for tail in ("int8", "float")
    )
    assert {one.group for one in checks.compare_outputs(expected, ours, 20)} == {"[0:4]", "[4:6]"}
    build = Build(variant(tail="int8"), parent, source, None)
    with pytest.raises(VariantFailed, match=r"y\[4:6\] is dead.*; keep .* float: `keep_float: \[score\]` under"), name_layers(build):
        checks.compare_outputs(expected, naive, 6)
    assert build.tail() is None
    assert Build(variant(tail="float"), parent, source, None).tail() == {"operators": ["sigmoid", "join", "flat", "turn"], "bytes": 0}


def variant(**settings: str) -> Variant:
    return Variant("onnx-int8-static", "onnx", "int8-static", "edgewise.formats.onnx", **settings)


def test_the_report_says_what_stays_float_and_what_it_costs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tail = {"operators": ["sigmoid", "join"], "bytes": 1500}
    assert explain.describe_tail("v", tail).startswith("2 operators behind the last layers (1.5 kB of constants): ")
    timed = [{"name": name, "ms": ms} for name, ms in (("conv", 2.0), ("join", 0.25), ("sigmoid", 0.5), ("join", None))]
    artifact.write_json(Path("models/bench/v/profile.json"), {"schema": METRICS_SCHEMA, "operators": timed})
    assert "(1.5 kB of constants, 0.75 ms an inference)" in explain.describe_tail("v", tail)
    assert "layers (0.75 ms an inference): " in explain.describe_tail("v", {**tail, "bytes": 0})


@pytest.mark.framework
@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_a_classifier_is_the_same_byte_for_byte(name, tmp_path):
    pytest.importorskip(name)
    random = np.random.default_rng(2)
    weights = {"w": random.normal(0, 1, (8, 3, 3, 3)).astype(np.float32), "v": random.normal(0, 1, (8, 4)).astype(np.float32)}
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("GlobalAveragePool", ["r"], ["g"], name="pool"),
        node("Flatten", ["g"], ["f"], name="flat"),
        node("Gemm", ["f", "v"], ["l"], name="head"),
        node("Softmax", ["l"], ["y"], name="softmax"),
    ]
    source = onnx_sources.imported(model(nodes, {"x": ["n", 3, 8, 8]}, {"y": ["n", 4]}, weights), {"x": SAMPLES}, tmp_path / "source")
    through = onnx_sources.converted("onnx", source, tmp_path / "onnx")
    parent = through if name == "onnx" else onnx_sources.converted(name, through, tmp_path / "float")
    files = [
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (
            onnx_sources.quantized(name, "int8-static", parent, source, tmp_path / f"tail-{tail}", tail=tail) for tail in ("float", "int8")
        )
    ]
    assert files[0] == files[1]
    assert onnx_sources.tail_of(name, parent) == Tail()
