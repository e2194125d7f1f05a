"""What `edgewise inspect` prints composes and runs, for small models of each kind; guesses about ports; data that does not fit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from edgewise.config import compose
from edgewise.config.compose import Options
from edgewise.data import dataset
from edgewise.errors import DataError
from edgewise.inspect import suggestion
from edgewise.inspect.meanings import guess_ports
from edgewise.inspect.model_file import read_formats
from edgewise.inspect.params_text import Section, write_sections
from edgewise.inspect.sections import suit_detectors
from edgewise.sources import onnx_file
from edgewise.sources.inspection import Inspection, Port
from tests.conftest import ROOT

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
CONF = ROOT / "conf"
FLOAT, INT64, INT32, UINT8, BOOL = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "INT64", "INT32", "UINT8", "BOOL"))
Shape = Sequence[int | str | None]


def value(name: str, shape: Shape, kind: int = FLOAT) -> Any:
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def node(kind: str, given: str, made: str, **attributes: Any) -> Any:
    return onnx.helper.make_node(kind, given.split(), made.split(), **attributes)


def net(inputs: Sequence[Any], outputs: Sequence[Any], *nodes: Any, **weights: Any) -> Any:
    held = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    graph = onnx.helper.make_graph(list(nodes), "net", list(inputs), list(outputs), held)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(40, 5)).astype(np.float32)
KERNEL = RANDOM.normal(size=(4, 3, 3, 3)).astype(np.float32)
TABLE = RANDOM.normal(size=(100, 8)).astype(np.float32)


def pool(image: Shape, kind: int = FLOAT) -> Any:
    """A convolutional net with 4 outputs."""
    cast = node("Cast", "x", "f", to=FLOAT)
    return net(
        *([value("x", image, kind)], [value("y", ["n", 4])], cast, node("Conv", "f k", "c")),
        *(node("GlobalAveragePool", "c", "p"), node("Flatten", "p", "y")),
        k=KERNEL,
    )


def recurrent() -> Any:
    """x [1, 40], a state [2, n, 5] and a sampling rate that nothing depends on."""
    return net(
        *(
            [value("x", ["n", 40]), value("state", [2, "n", 5]), value("sr", [], INT64)],
            [value("y", ["n", 5]), value("stateN", [2, "n", 5])],
        ),
        *(node("MatMul", "x w", "m"), node("Cast", "sr", "rate", to=FLOAT), node("Mul", "rate zero", "z"), node("Add", "m z", "a")),
        *(node("ReduceMean", "state", "s", axes=[0], keepdims=0), node("Add", "a s", "y"), node("Mul", "state half", "h")),
        node("Add", "h y", "stateN"),
        **{"w": W, "zero": np.float32(0), "half": np.float32(0.5)},
    )


def tokens(kind: int) -> Any:
    """Ids, a mask and token types, as BERT has them."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    return net(
        *([value(name, ["n", "length"], kind) for name in names], [value("hidden", ["n", "length", 8])]),
        *(node("Gather", "table input_ids", "e"), node("Gather", "types token_type_ids", "t"), node("Add", "e t", "s")),
        *(node("Cast", "attention_mask", "m", to=FLOAT), node("Unsqueeze", "m axes", "u"), node("Mul", "s u", "hidden")),
        **{"table": TABLE, "types": TABLE[:2], "axes": np.array([2])},
    )


def middle() -> Any:
    """Samples on the second axis."""
    return net([value("x", [7, "n", 40])], [value("y", [7, "n", 5])], node("MatMul", "x w", "y"), w=W)


def scaled() -> Any:
    """A scalar that only the user knows."""
    return net(
        *([value("x", [1, 40]), value("scale", [])], [value("y", [1, 5])]), node("MatMul", "x w", "m"), node("Mul", "m scale", "y"), w=W
    )


def detector() -> Any:
    """A detector that takes the picture's size beside it, as PaddleDetection's do."""
    return net(
        *([value("image", ["n", 3, 32, 32]), value("im_shape", ["n", 2])], [value("boxes", ["n", 4])]),
        *(node("GlobalAveragePool", "image", "p"), node("Flatten", "p", "f"), node("ReduceMean", "f", "m", axes=[1])),
        *(node("Concat", "im_shape im_shape", "c", axis=1), node("Mul", "c m", "boxes")),
    )


MODELS = {
    "a picture": (lambda: pool(["n", 3, 16, 16]), {"x": "image"}, {"x": [3, 16, 16]}),
    "a picture of open size": (lambda: pool(["n", 3, "h", "w"]), {"x": "image"}, {"x": [3, 224, 224]}),
    "a picture of bytes": (lambda: pool([1, 3, 16, 16], UINT8), {"x": "image"}, {"x": [3, 16, 16]}),
    "a vector": (lambda: net([value("x", [1, 40])], [value("y", [1, 5])], node("MatMul", "x w", "y"), w=W), {"x": "features"}, {"x": [40]}),
    "no sample axis": (lambda: net([value("x", [40])], [value("y", [5])], node("MatMul", "x w", "y"), w=W), {"x": "features"}, {"x": [40]}),
    "samples in the middle": (middle, {"x": "features"}, {"x": [7, 40]}),
    "state and a sampling rate": (recurrent, {"x": "audio", "state": "state", "sr": "constant"}, {"x": [16, 40]}),
    "ids": (
        lambda: tokens(INT64),
        {"input_ids": "ids", "attention_mask": "mask", "token_type_ids": "ids"},
        {"input_ids": [64], "attention_mask": [64], "token_type_ids": [64]},
    ),
    "ids of 32 bits": (lambda: tokens(INT32), {"input_ids": "ids"}, {"input_ids": [64], "attention_mask": [64], "token_type_ids": [64]}),
    "ids of a small vocabulary": (
        lambda: net([value("x", ["n", 9], INT32)], [value("y", ["n", 9, 8])], node("Gather", "t x", "y"), t=TABLE[:5]),
        {"x": "ids"},
        {"x": [9]},
    ),
    "a picture of open size that must be of one size": (
        lambda: net(
            [value("x", ["n", 3, "h", "w"])],
            [value("y", ["n", 3, 640, "w"])],
            node("Add", "x k", "y"),
            k=np.zeros((1, 3, 640, 1), np.float32),
        ),
        {"x": "image"},
        {"x": [3, 640, 640]},
    ),
    "a picture and its size": (detector, {"image": "image", "im_shape": "constant"}, {"image": [3, 32, 32]}),
}


def suggest(path: Path, **how: Any) -> tuple[str, list[str]]:
    seen = onnx_file.inspect(path)
    sections, notes = suggestion.suggest(seen, suggestion.Asked(path, onnx_file, CONF, read_formats(CONF), **how))
    return write_sections(sections), notes


def paste(text: str) -> compose.Config:
    return compose.compose_choices({**compose.read_choices(ROOT / "params.yaml"), **yaml.safe_load(text)}, Options(CONF))


@pytest.fixture
def here(monkeypatch):
    """The file is run in this process, which saves a second for each."""
    monkeypatch.setattr(suggestion.trial_run.isolation, "call_isolated", lambda function, *arguments, aborted: function(*arguments))


@pytest.mark.parametrize("kind", MODELS)
def test_what_is_printed_composes_and_runs(kind, tmp_path, monkeypatch, here):
    """It is composed, its data is prepared, and the source imports the file with it: nothing is edited."""
    make, meanings, shapes = MODELS[kind]
    onnx.save(make(), tmp_path / "m.onnx")
    found = {guess.port.name: guess.meaning for guess in guess_ports(onnx_file.inspect(tmp_path / "m.onnx")).inputs}
    assert meanings.items() <= found.items()
    text, notes = suggest(tmp_path / "m.onnx")
    assert not any(note.startswith("warning") for note in notes), notes
    config = paste(text)
    assert {name: entry["shape"] for name, entry in config.data.settings["inputs"].items()} == shapes
    monkeypatch.chdir(tmp_path)
    dataset.prepare(config.data, 0)
    (tmp_path / "source").mkdir()
    settings = onnx_file.Settings(**config.model.settings)
    made = onnx_file.obtain(settings, tmp_path / "models/data", config.train, 0, tmp_path / "source")
    assert {port["name"] for port in made["inputs"]} >= set(shapes)


def test_state_and_constants_are_filled_in_and_marked_as_guesses(tmp_path, here):
    onnx.save(recurrent(), tmp_path / "m.onnx")
    text, _ = suggest(tmp_path / "m.onnx")
    assert "inputs: {sr: 16000} # sr: a guess" in text and "state: {state: stateN} # a guess" in text
    assert yaml.safe_load(text)["model"]["step_ms"] == 40 / 16


def test_a_constant_that_only_the_user_knows_is_named(tmp_path):
    onnx.save(scaled(), tmp_path / "m.onnx")
    text, notes = suggest(tmp_path / "m.onnx")
    assert "inputs: {scale: VALUE} # VALUE must be given: scale (float32)" in text
    assert "missing        model.inputs.scale: only you know it; give it in the place of VALUE" in notes


def test_ids_fit_the_table_although_a_constant_is_not_known(tmp_path, here):
    """The file is tried with 1 in the place of the constant."""
    table, looked_up = RANDOM.normal(size=(9, 4)).astype(np.float32), [node("Gather", "table ids", "e"), node("Mul", "e gain", "y")]
    made = net([value("ids", [1, 3], onnx.TensorProto.INT64), value("gain", [])], [value("y", [1, 3, 4])], *looked_up, table=table)
    onnx.save(made, tmp_path / "m.onnx")
    text, notes = suggest(tmp_path / "m.onnx")
    assert yaml.safe_load(text)["data"]["inputs"]["ids"]["range"] == [0, 1]
    assert any(note.startswith("tried") and "with 1 in the place of VALUE" in note for note in notes)


def test_a_mask_alone_is_not_the_same_for_every_sample(tmp_path):
    onnx.save(net([value("x", [1, 40], onnx.TensorProto.BOOL)], [value("y", [1, 40])], node("Cast", "x", "y", to=1)), tmp_path / "m.onnx")
    text, _ = suggest(tmp_path / "m.onnx", run=False)
    assert yaml.safe_load(text)["data"]["inputs"]["x"]["range"] == [0, 1]


def test_the_axis_that_the_file_calls_the_batch_counts_samples(tmp_path):
    onnx.save(net([value("x", ["time", "batch", 6])], [value("y", ["time", "batch", 6])], node("Relu", "x", "y")), tmp_path / "m.onnx")
    text, _ = suggest(tmp_path / "m.onnx", run=False)
    assert yaml.safe_load(text)["model"]["inputs"] == {"x": {"sample_axis": 1}}


def test_each_input_has_an_array_of_its_own_whatever_its_name(tmp_path):
    inputs = [value(name, [1, 4]) for name in ("a b", "a_b", "../x", "y" * 300)]
    onnx.save(net(inputs, [value("z", [1, 4])], *[node("Relu", "a_b", "z")]), tmp_path / "m.onnx")
    text, _ = suggest(tmp_path / "m.onnx", run=False)
    assert list(yaml.safe_load(text)["data"]["inputs"]) == ["a_b", "a_b_1", "x", "y" * 64]
    paste(text)


def test_a_model_that_does_not_run_with_the_suggestion_is_said_to(tmp_path, here):
    broken = net(
        [value("x", [1, 40])], [value("y", [1, 5])], node("Reshape", "x s", "r"), node("MatMul", "r w", "y"), w=W, s=np.array([3, 9])
    )
    onnx.save(broken, tmp_path / "m.onnx")
    _, notes = suggest(tmp_path / "m.onnx")
    assert notes[-1].startswith("warning        it does not run with these inputs: model.path: ONNX Runtime rejects")


STATES = {
    "silero": ([("input", (None, None)), ("state", (2, None, 128))], [("output", (None, 1)), ("stateN", ())], {"state": "stateN"}),
    "the only other port of its shape": ([("x", (1, 9)), ("h", (1, 1, 8))], [("y", (1, 2)), ("out_1", (1, 1, 8))], {"h": "out_1"}),
    "a filter of its input": ([("input", (1, 64))], [("output", (1, 64))], {}),
    "two filtered inputs": ([("a", (1, 64)), ("b", (1, 64))], [("a_out", (1, 64)), ("b_out", (1, 64))], {}),
    "a vector": ([("x", (1, 9)), ("states", (8,))], [("y", (1, 2)), ("new_states", (8,))], {"states": "new_states"}),
    "two of one shape, in order": (
        [("x", (None, 6)), ("state_0", (1, None, 8)), ("state_1", (1, None, 8))],
        [("output_0", (None, 3)), ("output_1", (1, None, 8)), ("output_2", (1, None, 8))],
        {"state_0": "output_1", "state_1": "output_2"},
    ),
    "a step that is counted": (
        [("x", (1, 6)), ("cache", (1, 8)), ("step", (1,))],
        [("y", (1, 3)), ("cache_next", (1, 8)), ("step_out", (1,))],
        {"cache": "cache_next", "step": "step_out"},
    ),
    "layers of other names, in another order": (
        [("frame", (None, 8)), ("alpha", (1, None, 16)), ("beta", (2, None, 12))],
        [("17", (2, None, 12)), ("prob", (None, 3)), ("12", (1, None, 16))],
        {"alpha": "12", "beta": "17"},
    ),
    "the only output": ([("x", (1, 8)), ("h", (1, 16))], [("h_out", (1, 16))], {"h": "h_out"}),
    "a vector that is changed": ([("x", (1, 16)), ("noise", (1, 4))], [("x_out", (1, 16))], {}),
    "a picture that is filled in": (
        [("input_image", (1, 3, 32, 32)), ("mask", (1, 1, 32, 32))],
        [("output_image", (1, 3, 32, 32)), ("edges", (1, 1, 30, 30))],
        {},
    ),
    "a cache of keys": (
        [("ids", (None, 1)), ("past_0", (None, 2, None, 8))],
        [("logits", (None, 1, 50)), ("present_0", (None, 2, None, 8))],
        {"past_0": "present_0"},
    ),
}


@pytest.mark.parametrize("kind", STATES)
def test_state_is_recognized_and_nothing_else_taken_for_it(kind):
    inputs, outputs, expected = STATES[kind]
    seen = Inspection("x", *(tuple(Port(name, shape, "float32") for name, shape in side) for side in (inputs, outputs)))
    assert guess_ports(seen).state == expected


def test_inputs_of_a_fixed_number_of_samples_count_them_alike():
    ports = (Port("pic", (2, 1, 8, 8), "uint8"), Port("tok", (2, 5), "int64"), Port("table", (7, 5), "float32"))
    seen = guess_ports(Inspection("x", ports, (Port("y", (2, 4), "float32"),)))
    assert [guess.sample_axis for guess in seen.inputs] == [0, 0, None]


def arrays(path: Path, **held: np.ndarray) -> Path:
    np.savez(path, **held)
    return path


def task_and_data(tmp_path: Path, made: Any, held: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any], str]:
    onnx.save(made, tmp_path / "m.onnx")
    text, _ = suggest(tmp_path / "m.onnx", data=str(arrays(tmp_path / "set.npz", **held)), run=False)
    config = paste(text)
    return config.task.name, dict(yaml.safe_load(text)["data"]), text


N = 30
VECTORS = RANDOM.normal(size=(N, 40)).astype(np.float32)
VECTOR = MODELS["a vector"][0]


@pytest.mark.parametrize(
    ("y", "task"),
    [
        (None, "none"),
        (np.arange(N) % 5, "classification"),
        (np.arange(N) % 3, "none"),
        (RANDOM.normal(size=(N, 5)), "regression"),
        (RANDOM.integers(0, 2, (N, 5)), "multi_label"),
        (np.array([f"c{i % 5}" for i in range(N)]), "classification"),
    ],
)
def test_labels_decide_the_task_where_the_model_has_as_many_outputs(y, task, tmp_path):
    found, data, text = task_and_data(tmp_path, VECTOR(), {"x": VECTORS, **({} if y is None else {"y": y})})
    assert found == task
    if task == "none" and y is not None:
        assert data["targets"] == "none"
        assert "the model gives y [1, 5], the data has arrays, x [40] float32 of each sample, 3 classes: 0, 1, 2" in text.replace(
            "\n# ", " "
        )


def test_arrays_are_matched_with_the_ports(tmp_path):
    text = task_and_data(tmp_path, middle(), {"x": np.zeros((N, 7, 40), np.float32)})[2]
    assert yaml.safe_load(text)["model"]["inputs"] == {"x": {"sample_axis": 1}}
    _, data, _ = task_and_data(
        tmp_path, tokens(INT64), {name: np.zeros((N, 9)) for name in ("attention_mask", "input_ids", "token_type_ids")}
    )
    assert data["dtype"] == "int64"
    _, _, text = task_and_data(tmp_path, recurrent(), {"audio": np.zeros((N, 6, 40), np.float32)})
    assert "by their order, audio feeds x" in text


@pytest.mark.parametrize(
    ("make", "held", "message"),
    [
        (
            VECTOR,
            {"x": np.zeros((N, 8, 5), np.float32)},
            r"x takes \[40\] for each sample, the data's x has \[8, 5\]; save samples of this shape",
        ),
        (VECTOR, {"x": np.zeros((N, 40, 1), np.float32)}, r"remove or add axes of length one: x\.reshape\(-1, 40\)"),
        (middle, {"x": np.zeros((N, 40, 7), np.float32)}, "bring its axes into this order with np.transpose"),
        (recurrent, {"x": np.zeros((N, 40), np.float32)}, r"cut each sequence into steps: x of shape \[samples, steps, 40\]"),
        (VECTOR, {"a": VECTORS, "b": VECTORS}, r"the model takes 1 arrays, x \[40\] float32 .* the data has a \[40\] float32, b"),
    ],
)
def test_arrays_that_do_not_fit_are_told_what_helps(make, held, message, tmp_path):
    with pytest.raises(DataError, match=message):
        task_and_data(tmp_path, make(), held)


def test_a_detector_has_mean_ranges_where_its_format_offers_them():
    names = ("onnx-fp32", "onnx-int8-static", "tflite-int8-static")
    section = Section({name: dict(zip(("format", "scheme"), name.split("-", 1), strict=True)) for name in names})
    suited = suit_detectors(section, read_formats(CONF))
    expected = {**section.values["onnx-int8-static"], "calibration": {"method": "mean"}}
    assert suited.values == {**section.values, "onnx-int8-static": expected}
    assert "detector" in suited.tail[0]
    float_alone = Section({"onnx-fp32": section.values["onnx-fp32"]})
    assert suit_detectors(float_alone, read_formats(CONF)) == float_alone
