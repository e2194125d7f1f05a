"""Model files of kinds that are easily taken for another, or described wrongly; each small file in tests/data/ stands for one kind."""

import json
import struct
from pathlib import Path

import pytest

from edgewise.inspect import model_file
from edgewise.sources import onnx_file, tflite_file
from edgewise.sources.inspection import Inspection
from tests.conftest import ROOT

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
DATA, CONF = ROOT / "tests/data", ROOT / "conf"


def found(path: Path) -> Inspection:
    return model_file.inspect_file(path, CONF)[1]


@pytest.mark.parametrize("name", ["x.tflite", "x.onnx", "x"])
def test_the_identifier_of_a_tflite_file_decides_whatever_its_first_byte_and_name(name, tmp_path):
    (tmp_path / name).write_bytes((DATA / "root_offset_8.tflite").read_bytes())
    assert model_file.find_importer(tmp_path / name, CONF) is tflite_file


@pytest.mark.parametrize("length", [264, 0x1208, 0x120108])
def test_the_length_of_a_safetensors_header_is_not_taken_for_an_onnx_file(length, tmp_path):
    """The file begins with that length; 1 of 32 lengths begins with the byte of an ONNX file."""
    header = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}})
    (tmp_path / "weights").write_bytes(struct.pack("<Q", length) + header.ljust(length).encode() + bytes(4))
    assert not onnx_file.recognizes(tmp_path / "weights")


@pytest.mark.parametrize("name", ["model", "model.onnx", "model.tflite"])
def test_an_onnx_file_of_any_name_is_recognized(name, tmp_path):
    (tmp_path / name).write_bytes((DATA / "shared_weights.onnx").read_bytes())
    assert found(tmp_path / name).kind.startswith("ONNX model")


def test_a_tflite_file_without_quantization_tables_is_described():
    seen = found(DATA / "no_quantization_table.tflite")
    assert seen.kind.startswith("TFLite model, float") and seen.schemes is None
    assert all(port.quantization is None for port in (*seen.inputs, *seen.outputs))
