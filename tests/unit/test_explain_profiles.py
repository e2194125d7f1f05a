"""What profiles add to the explanation of a variant that is no faster than its float parent."""

import json
from pathlib import Path

import pytest

from edgewise.artifacts.records import SCHEMA
from edgewise.report import explain
from edgewise.report.explain import Profiles, describe_profiles
from edgewise.report.rows import read_rows
from tests.support.fabricate import THIRTEEN, fabricate


def entry(kind: str, ms: float | None, calls: float = 20, dtype: str = "float32", converts: bool = False, fallback: bool = False) -> dict:
    known = {"type": kind, "dtype": dtype, "converts": converts, "fallback": fallback, "calls": calls, "kernel": "plain loops"}
    return {**known, "ms": ms, "ms_quartiles": ms and [ms, ms]}


def profile(*entries: dict, status: str = "measured") -> dict:
    whole = sum(e["ms"] or 0 for e in entries)
    types = [{**e, "share": e["ms"] and e["ms"] / whole} for e in entries]
    return {"schema": SCHEMA, "status": status, "reason": None, "types": types, "operators": types}


PARENT = profile(entry("Conv", 4.0))


def test_the_time_of_dynamic_quantization_is_told():
    own = profile(
        entry("ConvInteger", 4.4, dtype="uint8"), entry("Cast", 0.5, converts=True), entry("DynamicQuantizeLinear", 0.1, 18, converts=True)
    )
    said = describe_profiles(Profiles(own, PARENT, "onnx-fp32", {"DynamicQuantizeLinear": 18}, (1.2, 1.01)))
    assert said == [
        "20 ConvInteger take at least 1.05 of the reference's latency, the 20 Conv of onnx-fp32 at most 1.01: "
        "this runtime has no faster kernel for them on this CPU",
        "20 Cast, 18 DynamicQuantizeLinear only convert between numeric types: 12 % of the time (0.6 ms an inference)",
        "its time goes to ConvInteger 88 %, Cast 10 %, DynamicQuantizeLinear 2 %",
    ]


@pytest.mark.parametrize(
    ("own", "parent", "ratios"),
    [
        (profile(entry("QLinearConv", 1.0, dtype="uint8")), PARENT, (0.9, 1.0)),  # may be a tenth faster
        (profile(entry("QLinearConv", 1.0, dtype="uint8"), entry("Resize", 1.0)), PARENT, (1.6, 1.0)),  # it is something else
        (profile(entry("Conv", 4.4)), PARENT, (1.2, 1.0)),  # the same operator on the same type: the file says why
        (profile(entry("ConvInteger", 4.4)), None, (1.2, 1.0)),
        (profile(entry("CONV_2D", None), status="unsupported"), profile(entry("CONV_2D", None), status="unsupported"), (1.2, 1.0)),
    ],
)
def test_no_kernel_is_blamed_without_evidence(own, parent, ratios):
    assert not any("faster kernel" in text for text in describe_profiles(Profiles(own, parent, "parent", {}, ratios)))


def test_conversions_that_take_no_time_are_not_worth_a_word():
    assert describe_profiles(Profiles(profile(entry("Conv", 10.0), entry("Cast", 0.04, converts=True)))) == ["its time goes to Conv 100 %"]


def test_what_the_delegate_did_not_take_is_told_where_the_parents_was_taken():
    pads = entry("PADV2", None, 1, fallback=True)
    own = profile(pads, entry("CONV_2D", None, 3, fallback=True), entry("CONV_2D", None, 17), status="unsupported")
    parent = profile(pads, entry("CONV_2D", None), status="unsupported")
    assert describe_profiles(Profiles(own, parent, "tflite-fp32")) == [
        "3 CONV_2D are not computed by the fast kernels of this runtime, but by plain loops"
    ]
    assert describe_profiles(Profiles(parent, parent, "tflite-fp32")) == []
    (timed, _) = describe_profiles(Profiles(profile(entry("Interpolate", 1.0, 1, fallback=True), entry("Conv", 3.0))))
    assert (
        timed
        == "1 Interpolate are not computed by the fast kernels of this runtime, but by plain loops: 25 % of the time (1 ms an inference)"
    )


def test_without_a_profile_the_file_tells_of_conversions():
    counts = {"QuantizeLinear": 32, "DequantizeLinear": 31}
    (said,) = describe_profiles(Profiles(conversions=counts))
    assert said.startswith("its file holds 31 DequantizeLinear, 32 QuantizeLinear, which only convert") and said.endswith(
        "bench.profile=true shows how many of them run"
    )
    assert describe_profiles(Profiles()) == []
    assert describe_profiles(Profiles(profile(entry("QLinearConv", 1.0)), conversions=counts)) == ["its time goes to QLinearConv 100 %"], (
        "all were fused away"
    )


def test_the_report_reads_the_profiles_of_both(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = fabricate(tmp_path, THIRTEEN)
    for name, content in (("onnx-fp32", PARENT), ("onnx-int8-dynamic", profile(entry("ConvInteger", 4.4, dtype="uint8")))):
        Path(f"models/bench/{name}/profile.json").write_text(json.dumps(content))
    rows = explain.explain_rows(read_rows(settings), {"isa": ["avx512_vnni"]})
    *_, blamed, goes = rows["onnx-int8-dynamic"].explanation
    assert blamed.startswith("20 ConvInteger take at least 1.53 of the reference's latency, the 20 Conv of onnx-fp32 at most 1.02")
    assert goes == "its time goes to ConvInteger 100 %"
    assert not any("its time goes" in text for text in rows["torch-int8-dynamic"].explanation)


def test_a_profile_without_an_operator_or_a_time_explains_nothing():
    """A runtime that runs the whole file as one, or times only some of it."""
    empty, partly = profile(), profile(entry("Conv", None), entry("Relu", None))
    for own, parent in ((empty, PARENT), (PARENT, empty), (empty, empty), (partly, PARENT), (PARENT, partly)):
        said = describe_profiles(Profiles(own, parent, "onnx-fp32", {}, (1.2, 1.01)))
        assert not any("take at least" in line for line in said)
    assert explain.top_operators(partly["types"]) == ""
