"""Where a model is cut into parts, against trying every way; what a chain of parts holds and gives back."""

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.agent import sessions
from edgewise.compress import partition
from edgewise.config.schema import Load
from edgewise.errors import VariantFailed

STEPS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), min_size=2, max_size=9)


def steps(rows) -> list[dict]:
    return [{"node": f"node{i}", "weights_bytes": size, "crossing": crossing} for i, (size, crossing) in enumerate(rows)]


def cost(rows, cuts) -> tuple[int, int]:
    bounds = itertools.pairwise([0, *cuts, len(rows)])
    return max(sum(size for size, _ in rows[a:b]) for a, b in bounds), sum(rows[cut - 1][1] for cut in cuts)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.integers(2, 4))
def test_the_largest_part_is_as_small_as_any_choice_of_cuts_can_make_it(rows, count):
    places = [i for i in range(1, len(rows)) if rows[i - 1][1]]
    ways = list(itertools.combinations(places, count - 1))
    if not ways:
        with pytest.raises(VariantFailed, match="ask for fewer parts"):
            partition.find_balanced_cuts(steps(rows), count)
    else:
        assert cost(rows, partition.find_balanced_cuts(steps(rows), count)) == min(cost(rows, way) for way in ways)


def test_a_cut_at_a_layer_moves_ahead_of_what_cannot_be_cut():
    rows = steps([(1, 1), (1, 2), (1, 0), (9, 1)])
    assert partition.find_cut_before(rows, ["node3"]) == 2  # after step 2 no cut is possible
    assert partition.find_cut_before(rows, ["node1"]) == 1
    with pytest.raises(VariantFailed, match=r"load\.at: no cut is possible before node0"):
        partition.find_cut_before(rows, ["node0"])


class Doubling:
    """A run.py whose models double what they are given, and which counts those that are alive."""

    alive = most = 0

    def load(self, folder, settings):
        runner, name = self, folder[-1]

        class Session:
            inputs = ({"name": f"t{name}"},)

            def __init__(self):
                runner.alive += 1
                runner.most = max(runner.most, runner.alive)

            def __del__(self):
                runner.alive -= 1

            def run(self, feeds):
                return {f"t{int(name) + 1}": 2 * feeds[f"t{name}"]}

        return Session()


@pytest.mark.parametrize(("keep", "most"), [(True, 3), (False, 1)])
def test_parts_run_in_order_and_are_released_unless_kept(tmp_path, keep, most):
    tensors = {"inputs": [{"name": "t0"}], "outputs": [{"name": "t3"}]}
    (tmp_path / sessions.PARTS_FILE).write_text(json.dumps({"parts": ["part-0", "part-1", "part-2"], "keep": keep, **tensors}))
    runner = Doubling()
    session = sessions.load(runner, str(tmp_path), {})
    for _ in range(2):
        assert list(session.run({"t0": np.ones(2)})["t3"]) == [8.0, 8.0]
    assert (runner.most, runner.alive) == (most, 3 if keep else 0)


def test_a_profile_of_kept_parts_is_that_of_all_of_them():
    class Told:
        inputs = outputs = ()

        def __init__(self, name):
            self.name = name

        def profile(self):
            return {"runs": [[f"{self.name}{run}"] for run in range(2)], "trace": "one session's"}

    chain = sessions.PartsSession([lambda: Told("a"), lambda: Told("b")], True, [], [])
    assert chain.profile() == {"runs": [["a0", "b0"], ["a1", "b1"]], "trace": None}


def gated(folder, keep=False):
    """Parts that double, behind a gate that lets samples pass whose two channels lie further than 1 from (0, 10)."""
    tensors = {"inputs": [{"name": "t0"}], "outputs": [{"name": "t2"}]}
    (folder / sessions.PARTS_FILE).write_text(json.dumps({"parts": ["part-0", "part-1"], "keep": keep, **tensors}))
    fields = {"names": ["t1"], "channel_axis": 1, "mean": np.array([0.0, 10.0]), "std": np.ones(2), "limit": 1.0}
    np.savez(folder / sessions.GATE_FILE, **fields, **{"answer:t2": np.array([-1.0, -1.0])})
    runner = Doubling()
    return runner, sessions.load(runner, str(folder), {})


def test_behind_a_gate_only_what_is_unlike_normal_samples_sees_the_rest(tmp_path):
    runner, session = gated(tmp_path)
    normal, defect = np.array([[0.2, 5.1]]), np.array([[3.0, 5.0]])  # t1 is twice that
    assert session.run({"t0": normal})["t2"].tolist() == [[-1.0, -1.0]] and runner.most == 1  # the rest was never loaded
    assert session.run({"t0": np.concatenate([normal, defect])})["t2"].tolist() == [[-1.0, -1.0], [12.0, 20.0]]
    assert (runner.most, runner.alive) == (2, 1)


def test_a_kept_rest_is_loaded_at_its_first_use(tmp_path):
    runner, session = gated(tmp_path, keep=True)
    assert runner.alive == 1
    for _ in range(2):
        session.run({"t0": np.array([[3.0, 5.0]])})
    assert (runner.most, runner.alive) == (2, 2)


@pytest.mark.parametrize("channel_axis", [1, -1])
def test_channels_are_averaged_over_the_picture(channel_axis):
    picture = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
    given = picture if channel_axis == 1 else picture.transpose(0, 2, 3, 1)
    found = sessions.pool_channels({"a": given, "b": np.ones((2, 4))}, ["a", "b"], channel_axis)
    assert found.shape == (2, 7) and found[:, :3].tolist() == picture.mean(axis=(2, 3)).tolist()


def test_load_settings_are_checked():
    from tests.support.formats import variant

    assert variant("onnx", "fp32", load={"mode": "split", "parts": 2}).load == Load(mode="split", parts=2)
    for wrong, said in (
        ({"mode": "halves"}, "allowed: lazy, mapped, split, whole"),
        ({"parts": 1}, "at least 2"),
        ({"pieces": 3}, "unknown setting"),
        ({"mode": "lazy"}, "mode lazy needs the layer"),
    ):
        with pytest.raises(Exception, match=said):
            variant("onnx", "fp32", load=wrong)
