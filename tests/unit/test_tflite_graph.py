"""TFLite files of older and other converters: the same results, in a form that the quantizers of today read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.errors import ModelError
from edgewise.formats.tflite import facts, make, run
from edgewise.proof import checks
from edgewise.sources import tflite_file, tflite_graph
from edgewise.stats.agreement import sqnr_db
from tests.conftest import ROOT
from tests.support import old_tflite, own_files, source_kinds

pytestmark = pytest.mark.framework

pytest.importorskip("ai_edge_litert")
SMALL = ROOT / "tests/data/no_quantization_table.tflite"  # [1, 16, 16, 3] to [1, 4]: CONV_2D, MEAN, FULLY_CONNECTED
PICTURES = np.random.default_rng(1).normal(0, 1, (8, 16, 16, 3)).astype(np.float32)
STATIC = {"calibration": {"method": "minmax"}, "per_channel": True}
VAR_HANDLE = 142  # the operator's number
Change = Callable[[Any], Any]


def weighted(model: Any) -> Any:
    """The file with weights that are not all zero."""
    rng = np.random.default_rng(0)
    for tensor in model.subgraphs[0].tensors:
        data = model.buffers[tensor.buffer].data
        if tensor.type == 0 and data is not None:
            values = rng.normal(0, 0.5, len(data) // 4).astype(np.float16).astype(np.float32)  # that float16 holds exactly
            model.buffers[tensor.buffer].data = np.frombuffer(values.tobytes(), np.uint8)
    return model


def no_change(model: Any) -> Any:
    return model


def root_first(path: Path) -> None:
    path.write_bytes(old_tflite.put_root_first(path.read_bytes()))


def written(path: Path, *changes: Change) -> Path:
    model = weighted(old_tflite.read(SMALL))
    for change in changes:
        model = change(model)
    return old_tflite.write(model, path)


def answers(path: Path) -> np.ndarray:
    session = tflite_file.FileSession(path)
    (name,) = (entry["name"] for entry in session.inputs)
    return np.concatenate([next(iter(session.run({name: picture[None]}).values())) for picture in PICTURES])


OLD: dict[str, tuple[Change, ...]] = {
    "operators in the deprecated field": (old_tflite.age,),
    "weights as float16": (old_tflite.halve,),
    "both": (old_tflite.halve, old_tflite.age),
    "as it is, without quantization tables": (no_change,),
}


@pytest.mark.parametrize("case", OLD)
def test_a_rewritten_file_gives_the_same_results_bit_by_bit(case, tmp_path):
    path = written(tmp_path / "old.tflite", *OLD[case])
    model = tflite_graph.read(path)
    tflite_graph.normalize(model)
    tflite_graph.write(model, tmp_path / "new.tflite")
    expected = answers(path)
    assert np.ptp(expected) > 0.1
    np.testing.assert_array_equal(answers(tmp_path / "new.tflite"), expected)
    assert tflite_graph.normalize(tflite_graph.read(tmp_path / "new.tflite")) == [], "there is nothing left to do"


@pytest.mark.parametrize("first", [False, True], ids=["", "root at byte 8"])
@pytest.mark.parametrize("case", OLD)
def test_every_scheme_can_be_made_of_an_old_file(case, first, tmp_path):
    path = written(tmp_path / "old.tflite", *OLD[case])
    if first:
        root_first(path)
        assert path.read_bytes()[:1] == b"\x08", "as an ONNX file begins"
    expected = answers(path)
    data = own_files.arrays(tmp_path / "data", 4, (16, 16, 3))
    source = source_kinds.imported(tflite_file, path, data, tmp_path / "source")
    parent = source_kinds.convert("tflite", source, tmp_path / "float")
    found = {}
    for scheme in ("fp32", "fp16", "int8-static"):
        folder = tmp_path / scheme
        folder.mkdir()
        settings = STATIC if scheme == "int8-static" else {"per_channel": None}
        make.quantize(parent, source, folder, scheme, settings, [{"x": picture[None]} for picture in PICTURES], [])
        assert checks.check_scheme(facts.facts(folder), make.SCHEMES[scheme], [], scheme) == 1
        session = run.load(str(folder), {})
        found[scheme] = sqnr_db(expected, np.concatenate([session.run({"x": picture[None]})["logits"] for picture in PICTURES]))
    assert found["fp32"] == found["fp16"] == 200, "the weights are numbers that float16 has"
    assert found["int8-static"] > 20


def test_newer_tools_see_one_operator_everywhere_in_an_old_file(tmp_path):
    """Why the codes are rewritten at all."""
    from ai_edge_quantizer import qtyping
    from ai_edge_quantizer.utils import tfl_flatbuffer_utils as reader

    def seen(model: Any) -> set[Any]:
        return {reader.TFL_OP_CODE_TO_NAME[model.operatorCodes[each.opcodeIndex].builtinCode] for each in model.subgraphs[0].operators}

    model = tflite_graph.read(written(tmp_path / "old.tflite", old_tflite.age))
    assert seen(model) == {qtyping.TFLOperationName.ADD}
    tflite_graph.normalize(model)
    assert seen(model) >= {qtyping.TFLOperationName.CONV_2D, qtyping.TFLOperationName.FULLY_CONNECTED}


@pytest.mark.parametrize(("padding", "kernel", "stride", "side"), [(1, 2, 2, 12), (1, 3, 2, 12), (2, 3, 2, 13), (2, 2, 1, 7)])
def test_mediapipes_transposed_convolution_as_the_runtime_computes_it(padding, kernel, stride, side, tmp_path):
    """XNNPACK has this operator; padding 1 is SAME, 2 VALID."""
    path = old_tflite.write(old_tflite.transposed(padding, kernel, stride, side), tmp_path / "mine.tflite")
    picture = np.random.default_rng(3).normal(0, 1, (1, 6, 6, 3)).astype(np.float32)
    (expected,) = tflite_file.FileSession(path).run({"x": picture}).values()
    model = tflite_graph.read(path)
    assert tflite_graph.normalize(model) == ["MediaPipe's Convolution2DTransposeBias is taken as TRANSPOSE_CONV (1)"]
    assert tflite_graph.operator_names(model, model.subgraphs[0]) == ["TRANSPOSE_CONV"]
    tflite_graph.write(model, tmp_path / "new.tflite")
    (given,) = tflite_file.FileSession(tmp_path / "new.tflite").run({"x": picture}).values()
    assert expected.shape == (1, side, side, 2)
    np.testing.assert_allclose(given, expected, atol=1e-5)


def test_state_in_variable_tensors_starts_anew_with_each_sample(tmp_path):
    path = old_tflite.write(old_tflite.keeping(), tmp_path / "mine.tflite")
    samples = np.random.default_rng(0).normal(0, 1, (3, 1, 3)).astype(np.float32)
    session = tflite_file.FileSession(path)
    first = [session.run({"x": sample})["y"] for sample in samples]
    np.testing.assert_array_equal([tflite_file.FileSession(path).run({"x": sample})["y"] for sample in samples], first)
    assert tflite_file.inspect(path).notes == ("it keeps state from run to run (variable tensors: 1), which is reset for each sample",)


def test_the_session_of_a_device_starts_with_the_same_state(tmp_path):
    source = source_kinds.imported(
        tflite_file,
        old_tflite.write(old_tflite.keeping(), tmp_path / "mine.tflite"),
        own_files.arrays(tmp_path / "data", 4, (3,)),
        tmp_path / "s",
    )
    parent = source_kinds.convert("tflite", source, tmp_path / "float")
    inputs, expected = checks.read_probe(source)
    session = run.load(str(parent), {})
    given = [session.run({"x": sample[None]})["logits"][0] for sample in inputs["x"]]
    np.testing.assert_allclose(given, expected["logits"], atol=1e-6)


def test_state_that_cannot_be_reset_is_refused_with_what_to_do(tmp_path):
    model = weighted(old_tflite.read(SMALL))
    model.operatorCodes[0].builtinCode = VAR_HANDLE
    path = old_tflite.write(model, tmp_path / "mine.tflite")
    with pytest.raises(ModelError, match=r"keeps resource variables .* with its state as inputs and outputs, .*model\.state=\{IN: OUT\}"):
        tflite_file.load(path)
    seen = tflite_file.inspect(path)
    assert seen.model is None and "it cannot be a source" in seen.notes[0]


def test_a_graph_that_contradicts_itself_is_a_damaged_file(tmp_path):
    path = own_files.tflite(tmp_path / "mine.tflite", stray=77)
    with pytest.raises(ModelError, match=r"is truncated or damaged \(KeyError\); copy or convert it again"):
        tflite_file.inspect(path)
