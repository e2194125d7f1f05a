"""The forms in which a model's file may be kept (formats/F/store.py): the same answers, other memory; who cannot says why."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgewise.artifacts.artifact import Manifest
from edgewise.bundle import contents
from edgewise.compress import partition
from edgewise.config import schema
from edgewise.proof import checks, isolation
from tests.contract import test_formats_contract as contract
from tests.support.formats import FORMATS, OPTIONS, variant

pytestmark = pytest.mark.framework

FORMS = [{"offline_optimized": True}, {"format": "ort"}, {"external_data": True}, {"offline_optimized": True, "external_data": True}]
LISTED = {"model.optimized.onnx", "model.ort", "model.onnx", "weights.bin"}


def stored(chosen: schema.Variant, floats, source, folder: Path) -> Path:
    contract.quantize(chosen, floats, source, folder)
    partition.store(chosen, folder)
    return folder


@pytest.mark.parametrize("name", FORMATS)
def test_the_yaml_lists_what_the_format_declares(name):
    form = OPTIONS.load("format", name, "test")
    assert set(form.get("file") or {}) == set(schema.part(form["module"], "store").FILE)


@pytest.mark.parametrize("scheme", ["fp32", "int8-static", "int8-dynamic"])
@pytest.mark.parametrize("file", FORMS, ids=lambda file: "-".join(file))
def test_every_form_gives_the_answers_of_the_plain_file(file, scheme, source, floats, tmp_path):
    chosen = variant("onnx", scheme, file=file)
    plain = contract.quantize(chosen, floats, source, tmp_path / "plain")
    folder = stored(chosen, floats, source, tmp_path / "stored")
    inputs, _ = checks.read_probe(source)
    one, other = (isolation.compute_outputs(chosen.module, place, {"threads": 1, **chosen.engine}, inputs) for place in (plain, folder))
    assert checks.check_outputs(one, other, 40.0) >= 40.0
    present = {path.name for path in folder.iterdir()}
    assert present <= LISTED and ("model.onnx" in present) == (file == {"external_data": True})
    assert ("weights.bin" in present) == ("external_data" in file)


def test_a_form_is_the_same_bytes_each_time(source, floats, tmp_path):
    chosen = variant("onnx", "int8-static", load={"mode": "mapped"})
    assert contract.contents(stored(chosen, floats, source, tmp_path / "a")) == contract.contents(
        stored(chosen, floats, source, tmp_path / "b")
    )


@pytest.mark.parametrize(
    ("name", "scheme", "settings", "message"),
    [
        ("onnx", "fp32", {"load": {"mode": "mapped"}, "file": {"format": "ort"}}, "load.mode mapped: an ORT file contains its weights"),
        ("onnx", "fp32", {"file": {"format": "ort", "external_data": True}}, "file.external_data: an ORT file"),
        ("onnx", "fp32", {"file": {"format": "ort"}, "engine": {"graph_optimization": "disable"}}, "allowed here: basic, extended, all"),
        ("onnx", "fp32", {"file": {"format": "ort"}, "engine": {"providers": ["AzureExecutionProvider"]}}, "for CPUExecutionProvider only"),
        ("tflite", "fp32", {"load": {"mode": "mapped"}}, "XNNPACK keeps its own copy of the weights"),
        ("openvino", "fp32", {"load": {"mode": "mapped"}}, "OpenVINO maps model.bin in every mode"),
        ("torch", "fp32", {"load": {"mode": "mapped"}}, "torch.jit.load copies all weights"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(name, scheme, settings, message, source, floats, tmp_path):
    with pytest.raises(ValueError, match=message) as caught:
        stored(variant(name, scheme, **settings), floats, source, tmp_path / "v")
    assert "\n" not in str(caught.value)


def test_a_tflite_file_is_mapped_without_xnnpack(source, floats, tmp_path):
    chosen = variant("tflite", "fp32", load={"mode": "mapped"}, engine={"xnnpack": False})
    assert partition.store(chosen, contract.quantize(chosen, floats, source, tmp_path / "v")) == {}


@pytest.mark.parametrize(
    ("name", "file", "message"),
    [
        ("onnx", {"format": "orf"}, "did you mean 'ort'"),
        ("onnx", {"externl_data": True}, "did you mean 'external_data'"),
        ("tflite", {"format": "ort"}, "unknown setting of the file of tflite; allowed: nothing"),
        ("onnx", "ort", "must be a mapping of settings"),
    ],
)
def test_settings_of_a_file_are_checked_before_anything_runs(name, file, message):
    with pytest.raises(schema.ConfigError, match=message):
        variant(name, "fp32", file=file)


MAPS = """
import json, sys
import numpy as np
from edgewise.formats.onnx import run
from edgewise.agent import memory
run.versions()
before = memory.read_usage()
session = run.load(sys.argv[1], {})
session.run({"image": np.ones((1, 512, 4, 4), np.float32)})
after = memory.read_usage()
print(json.dumps({name: after[name] - before[name] for name in ("anonymous", "file")}))
"""


def grown(folder: Path) -> dict[str, int]:
    done = subprocess.run([sys.executable, "-c", MAPS, str(folder)], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def write_large(folder: Path, dtype: type = np.float32) -> Path:
    """4 Mi elements of convolution weights, which the optimizer copies into another layout."""
    from onnx import helper, numpy_helper, save

    folder.mkdir()
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weights = np.random.default_rng(0).normal(size=(1024, 512, 2, 4)).astype(dtype)
    stored = [numpy_helper.from_array(weights, "w")]
    nodes = [helper.make_node("Conv", ["image", "w"], ["y"], "conv")]
    given = helper.make_tensor_value_info("image", kind, [1, 512, 4, 4])
    answer = helper.make_tensor_value_info("y", kind, None)
    graph = helper.make_graph(nodes, "large", [given], [answer], stored)
    save(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]), folder / "model.onnx")
    return folder


def test_mapped_weights_stay_on_the_disk(tmp_path):
    size = 4 * 1024 * 512 * 2 * 4
    chosen = variant("onnx", "fp32", load={"mode": "mapped"})
    whole, mapped = write_large(tmp_path / "whole"), write_large(tmp_path / "mapped")
    partition.store(chosen, mapped)
    assert grown(whole)["anonymous"] > size
    assert grown(mapped)["anonymous"] < size / 4 and grown(mapped)["file"] > size


def test_half_precision_that_the_cpu_would_widen_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"widens these weights when it optimizes, 8.4 MB became 16.8; remove it"):
        partition.store(variant("onnx", "fp16", file={"offline_optimized": True}), write_large(tmp_path / "half", np.float16))


def test_a_bundle_asks_for_the_release_that_wrote_an_optimized_file():
    tied = Manifest("variant", details={"file": {"form": "optimized", "release": "1.31.1"}})
    assert contents.runtime_range(tied, "1.19", "1.31.1") == ("1.31.1", "1.32")
    assert contents.runtime_range(Manifest("variant"), "1.19", "1.31.1") == ("1.19", "2")
