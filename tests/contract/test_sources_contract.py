"""The contract of the formats (see test_formats_contract) over the files that users bring, and docs/sources.md held to what is so.

The kinds that need no TensorFlow are in every run of the suite; the others are run by `make test-all`.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import sources as bench
from edgewise.config.schema import part
from edgewise.proof import checks, isolation
from tests.contract import test_formats_contract as contract
from tests.support import source_kinds
from tests.support.formats import FORMATS, INAPPLICABLE, UNCUTTABLE, require
from tests.support.source_kinds import Kinds, form, make_of
from tests.support.sources import feeds_for

pytestmark = [pytest.mark.framework, pytest.mark.formats]

LIGHT = ("onnx_file", "tflite_file", "tflite_int8")
PAGE = bench.TARGET.read_text(encoding="utf-8") if bench.TARGET.exists() else ""
FILES = {"onnx_file": "onnx", "tflite_file": "tflite"}  # kind -> the format of its source
REACHED = [(kind, name) for kind, origin in FILES.items() for name in FORMATS if origin in make_of(name).SOURCES]
WAYS = [
    (kind, name, scheme)
    for kind, name in [*REACHED, ("tflite_int8", "tflite"), ("tflite_int8", "openvino")]
    for scheme in bench.schemes(name)
]
KERAS = [(kind, name) for kind in ("keras_file", "saved_model") for name in ("tflite", "openvino")]
EVERY = [*REACHED, *(pytest.param(*pair, marks=pytest.mark.slow) for pair in KERAS)]
NAMELESS = ("tflite_file", "openvino")  # OpenVINO moves transposes, and most tensors lose the file's names
LAYERS = {"keras_file": {"stem", "depthwise", "block", "head"}}


@pytest.fixture(autouse=True)
def packages(request) -> None:
    """A format whose packages are missing skips its own pairs."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name:
        require(name)


@pytest.fixture(scope="session")
def kinds(tmp_path_factory) -> Kinds:
    return Kinds(tmp_path_factory.mktemp("kinds"))


@pytest.mark.parametrize("kind", [pytest.param(k, marks=() if k in LIGHT else pytest.mark.slow) for k in bench.BUILDERS])
def test_the_page_says_what_is_possible(kind, tmp_path):
    for needed in {origin for name in bench.FORMATS for origin in make_of(name).SOURCES} & set(bench.MISSING):
        require(needed)
    line, reasons = bench.row(kind, Kinds(tmp_path, bench.BUILDERS))
    found, told = dict(zip(bench.formats_of(kind), split(line)[1:], strict=True)), read_page(kind)
    assert {name: told.get(name) for name in found} == found, "run: python -m benchmarks.sources"
    assert set(reasons) <= set(PAGE.splitlines())


def split(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def read_page(kind: str) -> dict[str, str]:
    """What the page says of a kind, by the head of the column; it may have formats that are not installed here."""
    lines = PAGE.splitlines()
    place = next(i for i, line in enumerate(lines) if split(line)[0] == bench.TOLD[kind])
    head = next(line for line in reversed(lines[:place]) if split(line)[0] in ("source", "ports"))
    return dict(zip(split(head), split(lines[place]), strict=True))


def test_the_page_has_every_kind_and_format():
    missing = [
        row for row in (*(f"| {told} |" for told in bench.TOLD.values()), *(f" {name} |" for name in bench.FORMATS)) if row not in PAGE
    ]
    assert not missing, "run: python -m benchmarks.sources"


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_the_float_model_gives_the_outputs_of_the_users_file(kind, name, kinds):
    inputs, expected = checks.read_probe(kinds.get(kind))
    folder = bench.float_model(kind, name, kinds)
    given = isolation.compute_outputs(form(name)["module"], folder, {"threads": 1}, inputs)
    assert checks.check_outputs(expected, given, 60.0) >= 60.0
    single = isolation.compute_outputs(form(name)["module"], folder, {"threads": 1}, {"image": inputs["image"][:1]})
    np.testing.assert_allclose(single["logits"], given["logits"][:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_every_layer_of_the_users_file_has_its_nodes(kind, name, kinds):
    folder = bench.float_model(kind, name, kinds)
    layers = json.loads((folder / "layers.json").read_text())
    present = {node["name"] for node in part(form(name)["module"], "facts").facts(folder)["nodes"]}
    assert all(nodes and set(nodes) <= present for nodes in layers.values())
    if kind == "saved_model" or (kind, name) == NAMELESS:  # a graph without layers of its own
        assert [len(nodes) for nodes in layers.values()] == [1, 1, 1, 1]
    else:
        assert set(layers) == LAYERS.get(kind, {"stem", "depthwise", "block.0", "head"})


@pytest.mark.parametrize("held", [contract.test_a_profile_tells_of_each_run_what_was_executed], ids=lambda test: test.__name__)
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_what_holds_for_any_float_model(kind, name, held, kinds):
    held(name, kinds.get(kind), {name: bench.float_model(kind, name, kinds)})


@pytest.mark.parametrize(("kind", "name"), [pair for pair in REACHED if pair != NAMELESS and "int8-mixed" in form(pair[1])["schemes"]])
def test_what_lies_between_kept_layers_stays_float_too(kind, name, kinds, tmp_path):
    floats = {name: bench.float_model(kind, name, kinds)}
    contract.test_what_lies_between_kept_layers_stays_float_too(name, kinds.get(kind), floats, tmp_path)


@pytest.mark.parametrize("scheme", ["fp32", "int8-static"])
@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_parts_compute_what_the_whole_does(kind, name, scheme, kinds, tmp_path):
    floats = {name: bench.float_model(kind, name, kinds)}
    held = contract.test_a_format_that_cannot_be_cut_says_so if name in UNCUTTABLE else contract.test_parts_compute_what_the_whole_does
    held(name, scheme, kinds.get(kind), floats, tmp_path)


@pytest.mark.parametrize(("kind", "name"), [pair for pair in REACHED if pair[1] not in UNCUTTABLE])
def test_a_gate_answers_for_normal_samples_and_lets_the_others_pass(kind, name, kinds, tmp_path):
    floats = {name: bench.float_model(kind, name, kinds)}
    contract.test_a_gate_answers_for_normal_samples_and_lets_the_others_pass(name, kinds.get(kind), floats, tmp_path)


def quantize(kind: str, name: str, scheme: str, kinds: Kinds, folder: Path, keep: list[str]) -> Path:
    folder.mkdir()
    settings = {"per_channel": None, "calibration": None, **(form(name)["schemes"][scheme] or {})}
    feeds = feeds_for(kinds.get(kind)) if settings["calibration"] else []
    make_of(name).quantize(bench.float_model(kind, name, kinds), kinds.get(kind), folder, scheme, settings, feeds, keep)
    return folder


@pytest.mark.parametrize(("kind", "name", "scheme"), INAPPLICABLE)
def test_what_cannot_be_made_says_why(kind, name, scheme, kinds, tmp_path):
    with pytest.raises((checks.VariantFailed, ValueError), match=INAPPLICABLE[kind, name, scheme]):
        folder = quantize(kind, name, scheme, kinds, tmp_path / "v", [])
        checks.check_scheme(part(form(name)["module"], "facts").facts(folder), make_of(name).SCHEMES[scheme], [], "v")


@pytest.mark.parametrize(("kind", "name", "scheme"), [way for way in WAYS if way not in INAPPLICABLE])
def test_the_same_bytes_again_and_kept_layers_stay_float(kind, name, scheme, kinds, tmp_path):
    first = quantize(kind, name, scheme, kinds, tmp_path / "first", [])
    assert contract.contents(first) == contract.contents(quantize(kind, name, scheme, kinds, tmp_path / "second", []))
    if scheme != "fp32" and kind != "tflite_int8":
        nodes = checks.list_nodes(["head"], json.loads((bench.float_model(kind, name, kinds) / "layers.json").read_text()))
        kept = quantize(kind, name, scheme, kinds, tmp_path / "kept", nodes)
        found = {node["name"]: node for node in part(form(name)["module"], "facts").facts(kept)["nodes"]}
        assert all(found[node]["weights_dtype"] == "float32" for node in nodes)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["tflite", "openvino"])
def test_a_keras_model_gives_the_same_bytes_again(name, kinds, tmp_path):
    made = [source_kinds.convert(name, kinds.get("keras_file"), tmp_path / place) for place in ("first", "second")]
    assert contract.contents(made[0]) == contract.contents(made[1])


def test_openvino_leaves_a_file_that_is_quantized_already_to_tflite(kinds):
    with pytest.raises(ValueError, match="is quantized already: OpenVINO would round it in another way"):
        bench.float_model("tflite_int8", "openvino", kinds)


def test_a_file_that_is_quantized_already_stays_byte_for_byte(kinds, tmp_path):
    parent = bench.float_model("tflite_int8", "tflite", kinds)
    folder = quantize("tflite_int8", "tflite", "int8-static", kinds, tmp_path / "v", [])
    assert contract.contents(folder)["model.tflite"] == (parent / "model.tflite").read_bytes()
