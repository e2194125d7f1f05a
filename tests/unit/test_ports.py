"""Ports: models that count samples elsewhere or not at all, take constants, or carry state from step to step."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from edgewise.agent import ports
from edgewise.agent.jobs import make_call
from edgewise.agent.sessions import run_batched
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.errors import ConfigError, ModelError
from edgewise.sources import imported
from edgewise.sources.oracle import Oracle, PortSettings, fit_ports
from edgewise.sources.state_pairs import suggest_state

RNG = np.random.default_rng(0)


class Session:
    """A model written in numpy. function: feeds of the file to its outputs."""

    def __init__(self, inputs: Mapping[str, Sequence[int | None]], outputs: Mapping[str, Sequence[int | None]], function, **dtypes: str):
        self.inputs, self.outputs = (
            [{"name": n, "shape": list(s), "dtype": dtypes.get(n, "float32")} for n, s in side.items()] for side in (inputs, outputs)
        )
        self.function, self.fed = function, []

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        assert feeds.keys() == {entry["name"] for entry in self.inputs}
        for entry in self.inputs:
            shape = feeds[entry["name"]].shape
            assert len(shape) == len(entry["shape"]), (entry, shape)
            assert all(size in (None, side) for size, side in zip(entry["shape"], shape, strict=True)), (entry, shape)
        self.fed.append(feeds)
        return self.function(feeds)


def counter(batch: int | None = None) -> Session:
    """h' = (h + x) * rate, y = sum of h'; the state is [1, batch, 3]."""

    def step(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        state = (feeds["h"] + feeds["x"][None]) * np.float32(feeds["rate"] / 10)
        return {"y": state[0].sum(axis=1, keepdims=True), "hn": state}

    return Session({"x": [batch, 3], "h": [1, batch, 3], "rate": []}, {"y": [batch, 1], "hn": [None, None, None]}, step, rate="int64")


def sequences(count: int = 4, steps: int = 5) -> np.ndarray:
    return RNG.normal(size=(count, steps, 3)).astype(np.float32)


def expected(x: np.ndarray) -> np.ndarray:
    """y of `counter`, by the recurrence in float64."""
    state, answers = np.zeros((len(x), 3)), []
    for step in range(x.shape[1]):
        state = (state + x[:, step]) * 0.5
        answers.append(state.sum(axis=1, keepdims=True))
    return np.stack(answers, axis=1)


COUNTER = PortSettings(inputs={"rate": 5}, state={"h": "hn"})


def data(**arrays: np.ndarray) -> Manifest:
    return Manifest("data", inputs=tuple(Port(name, (None, *array.shape[1:]), str(array.dtype)) for name, array in arrays.items()))


def oracle(session: Session, settings: PortSettings, **arrays: np.ndarray) -> Oracle:
    return Oracle(session, fit_ports("mine", settings, session, data(**arrays), arrays))


@pytest.mark.parametrize("batch", [None, 1], ids=["open batch", "batch of one"])
def test_state_is_carried_from_step_to_step_and_starts_with_zeros(batch):
    x = sequences()
    given = oracle(counter(batch), COUNTER, x=x)
    for _ in range(2):  # nothing is left of the samples before
        answers = given.run({"x": x})
        assert answers.keys() == {"y"}
        np.testing.assert_allclose(answers["y"], expected(x), rtol=1e-5, atol=1e-6)


def test_a_stream_answers_step_by_step_as_a_whole_sequence_does():
    x = sequences(1)
    session = oracle(counter(), COUNTER, x=x)._session
    session.reset()
    steps = [session.step({"x": x[:, i]})["y"] for i in range(x.shape[1])]
    np.testing.assert_array_equal(np.stack(steps, axis=1), session.run({"x": x})["y"])


def test_a_state_that_is_the_only_output_is_the_answer_too(tmp_path):
    step = lambda feeds: {"hn": (feeds["h"] + feeds["x"]) * np.float32(0.5)}  # noqa: E731
    session = Session({"x": [None, 3], "h": [None, 3]}, {"hn": [None, 3]}, step)
    x = sequences()
    made = oracle(session, PortSettings(state={"h": "hn"}), x=x)
    wanted = np.stack([sum(x[:, k] * 0.5 ** (step + 1 - k) for k in range(step + 1)) for step in range(x.shape[1])], axis=1)
    np.testing.assert_allclose(made.run({"x": x})["hn"], wanted, rtol=1e-5)
    manifest = Manifest("source", inputs=made.fit.rename_inputs(), outputs=made.fit.rename_outputs())
    assert [(port.name, port.shape) for port in manifest.answered] == [("hn", (None, None, 3))]


def test_a_timed_run_of_a_model_with_state_is_one_step():
    x = sequences(2)
    session = oracle(counter(), COUNTER, x=x)._session
    call = make_call(session, {"kind": "latency", "scope": "model"}, [{"x": x[:1]}, {"x": x[1:]}])
    assert call(0)["y"].shape == (1, 1)
    whole = make_call(session, {"kind": "outputs", "scope": "model"}, [{"x": x[:1]}])
    assert whole(0)["y"].shape == (1, 5, 1)


def test_calibration_sees_what_the_file_is_fed_with_the_state_before_each_step():
    x = sequences(1)
    session = oracle(counter(), COUNTER, x=x)._session
    fed = list(session.iterate_file_feeds({"x": x}))
    assert len(fed) == 5 and all(each.keys() == {"x", "h", "rate"} for each in fed)
    assert not fed[0]["h"].any() and fed[0]["rate"] == 5
    np.testing.assert_allclose(fed[1]["h"], x[None, :, 0] * 0.5, rtol=1e-6)


def test_samples_may_be_counted_on_another_axis():
    session = Session({"x": [7, None]}, {"y": [2, None]}, lambda feeds: {"y": np.stack([feeds["x"].sum(0), feeds["x"].max(0)])})
    x = RNG.normal(size=(6, 7)).astype(np.float32)
    found = oracle(session, PortSettings(inputs={"x": {"sample_axis": 1}}), x=x)
    assert found.fit.outputs[0].sample_axis == 1
    np.testing.assert_allclose(found.run({"x": x})["y"], np.stack([x.sum(1), x.max(1)], axis=1), rtol=1e-5)


def test_a_model_without_a_batch_runs_one_sample_at_a_time():
    session = Session({"x": [7]}, {"y": [], "z": [7]}, lambda feeds: {"y": np.float32(feeds["x"].sum()), "z": feeds["x"] * 2})
    x = RNG.normal(size=(6, 7)).astype(np.float32)
    answers = oracle(session, PortSettings(), x=x).run({"x": x})
    np.testing.assert_allclose(answers["y"], x.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(answers["z"], x * 2)


def test_inputs_are_matched_by_name_where_the_data_has_the_names_and_else_in_order():
    session = Session({"a": [None, 2], "b": [None, 2]}, {"y": [None, 2]}, lambda feeds: {"y": feeds["a"] - feeds["b"]})
    first, second = RNG.normal(size=(2, 4, 2)).astype(np.float32)
    swapped = oracle(session, PortSettings(), b=second, a=first).run({"b": second, "a": first})
    ordered = oracle(session, PortSettings(), one=first, two=second).run({"one": first, "two": second})
    np.testing.assert_array_equal(swapped["y"], first - second)
    np.testing.assert_array_equal(ordered["y"], first - second)


def test_all_outputs_are_kept_unless_the_user_names_fewer():
    session = Session({"x": [None, 2]}, {"y": [None, 2], "z": [None]}, lambda feeds: {"y": feeds["x"], "z": feeds["x"].sum(1)})
    x = RNG.normal(size=(4, 2)).astype(np.float32)
    assert list(oracle(session, PortSettings(), x=x).run({"x": x})) == ["y", "z"]
    assert list(oracle(session, PortSettings(outputs=["z"]), x=x).run({"x": x})) == ["z"]


def test_an_output_named_as_an_input_gets_another_name():
    session = Session({"x": [None, 2]}, {"image": [None, 2]}, lambda feeds: {"image": feeds["x"]})
    x = RNG.normal(size=(4, 2)).astype(np.float32)
    assert list(oracle(session, PortSettings(), image=x).run({"image": x})) == ["image_out"]


def test_an_input_and_an_output_of_one_name_stay_apart():
    def step(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"h": feeds["h"] + feeds["x"], "h_out": feeds["x"] * 2}

    session = Session({"x": [None, 3], "h": [None, 3]}, {"h": [None, 3], "h_out": [None, 3]}, step)
    x = sequences()
    found = oracle(session, PortSettings(state={"h": "h"}), x=x)
    np.testing.assert_array_equal(found.run({"x": x})["h_out"], x * 2)
    assert [port.name for port in found.fit.rename_inputs()] == ["x", "h"]
    assert [port.name for port in found.fit.rename_outputs()] == ["h_out_out", "h_out"]
    assert found.fit.rename_inputs()[1].state == "h_out_out"


def test_a_file_that_takes_one_sample_only_although_it_leaves_their_number_open():
    def one(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(feeds["x"]) > 1:
            raise ModelError("the input tensor cannot be reshaped to {1, 4}")
        return {"y": feeds["x"].reshape(1, 4)}

    session, x = Session({"x": [None, 2, 2]}, {"y": [None, 4]}, one), RNG.normal(size=(5, 2, 2)).astype(np.float32)
    found = oracle(session, PortSettings(), x=x)
    assert found.fit.inputs[0].shape == (1, 2, 2)
    np.testing.assert_array_equal(found.run({"x": x})["y"], x.reshape(5, 4))


def test_a_fixed_number_of_samples_is_found_on_any_axis_of_an_output():
    session = Session({"x": [4, 2]}, {"y": [2, 4]}, lambda feeds: {"y": feeds["x"].T})
    x = RNG.normal(size=(6, 2)).astype(np.float32)
    np.testing.assert_array_equal(oracle(session, PortSettings(), x=x).run({"x": x})["y"], x)
    flat = Session({"x": [4, 2]}, {"y": [8]}, lambda feeds: {"y": feeds["x"].ravel()})
    with pytest.raises(ModelError, match=r"takes 4 samples at a time, and its output y \[8\] has no axis of 4"):
        oracle(flat, PortSettings(), x=x)


def test_outputs_of_another_shape_for_another_sample_are_named_and_can_be_left_out():
    def find(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"scores": feeds["x"], "found": np.argwhere(feeds["x"] > 0)}

    x = np.array([[1, -1, 1], [-1, 1, -1], [1, 1, 1]], np.float32)
    session = Session({"x": [1, 3]}, {"scores": [1, 3], "found": [None, 2]}, find)
    with pytest.raises(ModelError, match=r"found \[1, 2\] and \[2, 2\]; keep the others with model\.outputs=\[scores\]"):
        oracle(session, PortSettings(), x=x).run({"x": x})
    assert list(oracle(session, PortSettings(outputs=["scores"]), x=x).run({"x": x})) == ["scores"]


@pytest.mark.parametrize("kind", ["string", "object", "seq(tensor(float))"])
def test_outputs_that_are_no_arrays_of_numbers_are_named(kind):
    session = Session({"x": [None, 2]}, {"y": [None, 2], "label": []}, lambda feeds: {"y": feeds["x"], "label": ["a"]}, label=kind)
    x = RNG.normal(size=(4, 2)).astype(np.float32)
    with pytest.raises(ModelError, match=r"gives label \(.*\), which is no array of numbers .*model\.outputs=\[y\]"):
        oracle(session, PortSettings(), x=x)
    assert list(oracle(session, PortSettings(outputs=["y"]), x=x).run({"x": x})) == ["y"]


def test_outputs_that_differ_from_run_to_run_are_refused():
    session = Session({"x": [None, 2]}, {"y": [None, 2]}, lambda feeds: {"y": feeds["x"] + RNG.normal(size=feeds["x"].shape)})
    x = RNG.normal(size=(4, 2)).astype(np.float32)
    found = oracle(session, PortSettings(), x=x)
    with pytest.raises(ModelError, match=r"gives another y each time for the same samples"):
        imported.check_steady("mine", found, {"x": x}, found.run({"x": x}))


def test_samples_that_influence_each_other_are_warned_of():
    session = Session({"x": [None, None, 3]}, {"y": [None, None, 3]}, lambda feeds: {"y": np.cumsum(feeds["x"][::-1], axis=0)[::-1]})
    x = RNG.normal(size=(6, 5, 3)).astype(np.float32)
    over_time = oracle(session, PortSettings(), x=x)
    (warning,) = imported.check_steady("mine", over_time, {"x": x}, over_time.run({"x": x}))
    assert "what a sample gets in y depends on the samples beside it" in warning and "sample_axis: 1" in warning
    right = oracle(session, PortSettings(inputs={"x": {"sample_axis": 1}}), x=x)
    assert imported.check_steady("mine", right, {"x": x}, right.run({"x": x})) == []


ERRORS: dict[str, tuple[dict[str, Any], dict[str, np.ndarray], str]] = {
    "nothing feeds two inputs": (
        {},
        {"x": sequences()},
        r"expects 3 inputs, .*; set model\.state=\{h: hn\} and model\.inputs=\{rate: VALUE\}",
    ),
    "unknown constant": (
        {"inputs": {"rat": 5}},
        {"x": sequences()},
        r"model\.inputs: the model has no port 'rat' there; did you mean 'rate'",
    ),
    "unknown state": ({"inputs": {"rate": 5}, "state": {"h": "y2"}}, {"x": sequences()}, r"model\.state: the model has no port 'y2'"),
    "unknown output": ({"outputs": ["q"]}, {"x": sequences()}, r"model\.outputs: the model has no port 'q'"),
    "a constant that is none": (
        {"inputs": {"rate": "fast"}},
        {"x": sequences()},
        r"model\.inputs\.rate: 'fast' is not a value of type int64",
    ),
    "a constant of another shape": ({"inputs": {"rate": [1, 2]}}, {"x": sequences()}, r"model\.inputs\.rate: \[1, 2\] has 1 axes"),
    "an unknown key": ({"inputs": {"x": {"axis": 1}}}, {"x": sequences()}, r"model\.inputs\.x\.axis: unknown setting"),
    "an axis that is none": (
        {"inputs": {"rate": 5, "x": {"sample_axis": 4}}, "state": {"h": "hn"}},
        {"x": sequences()},
        r"from 0 to 1, or null",
    ),
    "no steps": (
        {"inputs": {"rate": 5}, "state": {"h": "hn"}},
        {"x": sequences()[:, 0]},
        r"expects \[3\] for x, the data has nothing|\[\]",
    ),
    "another size": (
        {"inputs": {"rate": 5}, "state": {"h": "hn"}},
        {"x": sequences()[..., :2]},
        r"expects \[3\] for x, the data has \[2\]",
    ),
}


@pytest.mark.parametrize(("given", "arrays", "message"), ERRORS.values(), ids=ERRORS)
def test_what_does_not_fit_is_named_with_the_setting_that_helps(given, arrays, message):
    with pytest.raises(ModelError, match=message):
        oracle(counter(), PortSettings(**given), **arrays)


def test_inputs_that_take_different_numbers_of_samples_are_named():
    session = Session({"x": [2, 3], "m": [2, 5]}, {"y": [2]}, lambda feeds: {"y": feeds["x"].sum(1) + feeds["m"].sum(1)})
    x, m = (RNG.normal(size=shape).astype(np.float32) for shape in ((4, 3), (4, 2, 5)))
    with pytest.raises(ModelError, match=r"different numbers of samples at a time \(2 of x, 1 of m\); .*sample_axis: 0"):
        oracle(session, PortSettings(), x=x, m=m)
    np.testing.assert_allclose(
        oracle(session, PortSettings(), x=x, m=m[:, 0]).run({"x": x, "m": m[:, 0]})["y"], x.sum(1) + m[:, 0].sum(1), rtol=1e-5
    )


def test_floats_for_an_integer_input_are_refused():
    session = Session({"ids": [None, 4]}, {"y": [None]}, lambda feeds: {"y": feeds["ids"].sum(1)}, ids="int32")
    with pytest.raises(ModelError, match=r"ids takes int32, the data's x is float32; set data\.dtype=int32"):
        oracle(session, PortSettings(), x=RNG.normal(size=(3, 4)).astype(np.float32))


@pytest.mark.parametrize("given", ["logits", "probabilities"])
def test_the_old_meaning_of_outputs_names_the_new_key(given):
    with pytest.raises(ConfigError, match=rf"model\.outputs: '{given}'; it names outputs now, write model\.scores={given}"):
        PortSettings(outputs=given)


def port(name: str, *shape: int | None, dtype: str = "float32") -> Port:
    return Port(name, shape, dtype)


def test_state_is_recognized_by_shape_and_name():
    audio, image = port("input", None, None), port("image", None, 3, 8, 8)
    assert suggest_state([audio, port("state", 2, None, 128)], [port("output", None, 1), port("stateN", None, None, None)]) == {
        "state": "stateN"
    }
    inputs = [image, port("h0", 1, 1, 64), port("c0", 1, 1, 64)]
    assert suggest_state(inputs, [port("y", None, 4), port("hn", 1, 1, 64), port("cn", 1, 1, 64)]) == {"h0": "hn", "c0": "cn"}
    caches = [port("past_0", None, 8, None, 64), port("past_1", None, 8, None, 64)]
    presents = [port("present_0", None, 8, None, 64), port("present_1", None, 8, None, 64)]
    assert suggest_state(caches, presents) == {"past_0": "present_0", "past_1": "present_1"}
    assert suggest_state([image, audio], [port("output", None, 1), port("image_features", None, 64)]) == {}


def test_ports_json_beside_a_model_is_obeyed(tmp_path):
    session = counter()
    x = sequences(3)
    fit = fit_ports("mine", COUNTER, session, data(x=x), {"x": x})
    (tmp_path / ports.PORTS_FILE).write_text(json.dumps(fit.plan()))
    wrapped = ports.wrap(session, str(tmp_path))
    assert [(entry["name"], entry["shape"]) for entry in wrapped.inputs] == [("x", [None, None, 3])]
    np.testing.assert_allclose(run_batched(wrapped, {"x": x}, batch=2)["y"], expected(x), rtol=1e-5, atol=1e-6)
    (tmp_path / ports.PORTS_FILE).unlink()
    assert ports.wrap(session, str(tmp_path)) is session


def test_sequences_of_unequal_length_are_refused():
    with pytest.raises(ValueError, match=r"a has 5, b has 4; .* equally many steps"):
        ports.count_steps({"a": np.zeros((1, 5, 2)), "b": np.zeros((1, 4, 2))})
