"""The contract of the formats (see test_formats_contract) over the files that users bring, and docs/sources.md held to what is so.

The kinds that need no TensorFlow are in every run of the suite; the others carry the marker of `make test-system`.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sources as bench
from stages.core import isolation, proof
from stages.core.config import part
from tests.source_kinds import BUILDERS, FEEDS, TOLD, Kinds, form, make_of
from tests.test_formats_contract import contents

LIGHT = ("onnx_file", "tflite_file", "tflite_int8")
PAGE = bench.TARGET.read_text(encoding="utf-8") if bench.TARGET.exists() else ""
REACHED = [("onnx_file", "onnx"), ("onnx_file", "openvino"), ("tflite_file", "tflite")]
SCHEMES = [(kind, name, scheme) for kind, name in REACHED for scheme in bench.schemes(name)]


@pytest.fixture(scope="session")
def kinds(tmp_path_factory) -> Kinds:
    return Kinds(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in LIGHT else pytest.mark.system) for k in BUILDERS])
def test_the_page_says_what_is_possible(kind, tmp_path):
    line, reasons = bench.row(kind, Kinds(tmp_path))
    assert line in PAGE.splitlines(), "run: python -m benchmarks.sources"
    assert set(reasons) <= set(PAGE.splitlines())


def test_the_page_has_every_kind_and_format():
    assert all(f"| {told} |" in PAGE for told in TOLD.values())
    assert all(f" {name} |" in PAGE for name in bench.FORMATS)


@pytest.mark.parametrize(("kind", "name"), REACHED)
def test_the_float_model_gives_the_outputs_of_the_users_file(kind, name, kinds):
    inputs, expected = proof.probe(kinds.get(kind))
    folder = bench.float_model(kind, name, kinds)
    given = isolation.outputs(form(name)["module"], folder, {"threads": 1}, inputs)
    assert proof.check_outputs(expected, given, 60.0) >= 60.0
    single = isolation.outputs(form(name)["module"], folder, {"threads": 1}, {"image": inputs["image"][:1]})
    np.testing.assert_allclose(single["logits"], given["logits"][:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), REACHED)
def test_every_layer_of_the_users_file_has_its_nodes(kind, name, kinds):
    folder = bench.float_model(kind, name, kinds)
    layers = json.loads((folder / "layers.json").read_text())
    present = {node["name"] for node in part(form(name)["module"], "facts").facts(folder)["nodes"]}
    assert set(layers) == {"stem", "depthwise", "block.0", "head"}
    assert all(nodes and set(nodes) <= present for nodes in layers.values())


def quantize(kind: str, name: str, scheme: str, kinds: Kinds, folder: Path, keep: list[str]) -> Path:
    folder.mkdir()
    settings = {"per_channel": None, "calibration": None, **(form(name)["schemes"][scheme] or {})}
    feeds = FEEDS if settings["calibration"] else []
    make_of(name).quantize(bench.float_model(kind, name, kinds), kinds.get(kind), folder, scheme, settings, feeds, keep)
    return folder


@pytest.mark.parametrize(("kind", "name", "scheme"), SCHEMES)
def test_the_same_bytes_again_and_kept_layers_stay_float(kind, name, scheme, kinds, tmp_path):
    try:
        first = quantize(kind, name, scheme, kinds, tmp_path / "first", [])
    except ValueError:
        return  # not offered for this net; the page holds the reason
    assert contents(first) == contents(quantize(kind, name, scheme, kinds, tmp_path / "second", []))
    if scheme != "fp32":
        nodes = proof.nodes_of(["head"], json.loads((bench.float_model(kind, name, kinds) / "layers.json").read_text()))
        kept = quantize(kind, name, scheme, kinds, tmp_path / "kept", nodes)
        found = {node["name"]: node for node in part(form(name)["module"], "facts").facts(kept)["nodes"]}
        assert all(found[node]["weights_dtype"] == "float32" for node in nodes)


def test_a_file_that_is_quantized_already_stays_byte_for_byte(kinds, tmp_path):
    parent = bench.float_model("tflite_int8", "tflite", kinds)
    folder = quantize("tflite_int8", "tflite", "int8-static", kinds, tmp_path / "v", [])
    assert contents(folder)["model.tflite"] == (parent / "model.tflite").read_bytes()
