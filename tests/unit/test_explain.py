"""Why a variant is no faster than its float parent, told from the file and the CPU."""

import json

import pytest

from edgewise.agent import machine, sessions
from edgewise.compress import partition
from edgewise.report import explain
from edgewise.report.rows import read_rows
from tests.support.fabricate import THIRTEEN, fabricate
from tests.support.records import varied

VNNI = {"isa": ["avx2", "avx512_vnni", "avx512_fp16"]}


def node(operator, weights, activations, elements=1000):
    return {"name": operator, "operator": operator, "weights_dtype": weights, "activations_dtype": activations, "elements": elements}


def told(*nodes, kept=(), isa=tuple(VNNI["isa"]), reopened=0):
    return explain.find_reasons(explain.Case(nodes, kept, isa, reopened=reopened))


@pytest.mark.parametrize(
    ("nodes", "options", "said"),
    [
        ([node("Conv", "float32", "float32")], {}, "1 Conv (100 % of the weights) compute in float32"),
        ([node("Conv", "float32", "float32")], {"kept": ("stem",)}, "kept so by keep_float, a search or the format's own rule: stem"),
        ([node("Conv", "float32", "float32")], {"kept": tuple("abcdefg")}, "the format's own rule: a, b, c and 4 more"),
        ([node("Conv", "int8", "dynamic")], {}, "at every inference and quantize them then"),
        ([node("Conv", "int4", "float32")], {}, "store int4 and compute in float32"),
        ([node("Conv", "float16", "float16")], {"isa": ("avx2",)}, "are float16, for which this CPU has no arithmetic"),
        ([node("Conv", "int8", "int16")], {}, "16-bit activations"),
        ([node("Conv", "int4", "dynamic")], {}, "unpacked to 8 bits"),
        ([node("Conv", "int8", "int8")], {"isa": ("avx2",)}, "lacks the instructions (avx512_vnni"),
        ([node("Conv", "int8", "uint8")], {"reopened": 3}, "1 Conv (100 % of the weights) lie in 3 parts that each inference loads"),
        ([node("Conv", "int8", "uint8")], {}, "nothing in the file explains it"),
        ([node("Conv", "int8", "int8")], {"isa": ()}, "nothing in the file explains it"),
        ([node("Conv", "float16", "float16")], {}, "nothing in the file explains it"),
    ],
)
def test_each_cause_is_told_with_its_evidence(nodes, options, said):
    assert any(said in text for text in told(*nodes, **options))


def test_the_cause_with_most_weights_behind_it_comes_first():
    first, second = told(node("Gemm", "float32", "float32", 50), node("Conv", "int8", "dynamic", 950))
    assert first.startswith("1 Conv (95 % of the weights)") and second.startswith("1 Gemm (5 % of the weights)")


@pytest.mark.parametrize(("keep", "count"), [(False, 2), (True, 0)])
def test_only_parts_that_are_released_are_loaded_anew(tmp_path, keep, count):
    assert partition.count_reloaded_parts(tmp_path) == 0
    (tmp_path / sessions.PARTS_FILE).write_text(json.dumps({"parts": ["part-0", "part-1"], "keep": keep, "inputs": [], "outputs": []}))
    assert partition.count_reloaded_parts(tmp_path) == count


def test_the_instruction_sets_are_spelt_as_the_device_reports_them():
    assert set(explain.INT8_ISA) | set(explain.FP16_ISA) <= set(machine.INSTRUCTION_SETS)


def test_only_a_variant_that_is_no_faster_than_its_own_float_form_is_explained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = fabricate(tmp_path, THIRTEEN)
    rows = explain.explain_rows(read_rows(settings), VNNI)
    slow = {name for name, row in rows.items() if row.explanation}
    assert slow == {"torch-int8-dynamic", "onnx-fp16", "onnx-int8-dynamic", "tflite-fp16", "tflite-int4-weight"}
    head, *why = rows["torch-int8-dynamic"].explanation
    assert head == "no faster than torch-fp32 (1.69 [1.67, 1.71] against 1.72 [1.70, 1.74] of the reference's latency)"
    assert why[0] == "20 Conv (100 % of the weights) compute in float32"


def test_without_intervals_or_without_latency_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = read_rows(fabricate(tmp_path, THIRTEEN))
    bare = {name: varied(row, latency_ratio_ci95=None) for name, row in rows.items()}
    assert not any(row.explanation for row in explain.explain_rows(bare, VNNI).values())
    unmeasured = {name: varied(row, latency_ratio_to_reference=None) for name, row in rows.items()}
    assert not any(row.explanation for row in explain.explain_rows(unmeasured, VNNI).values())
