"""The task embedding: neighbours against scikit-learn, scores of a pair, and what users can do wrong."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from edgewise.agent.sample_answer import answer_sample
from edgewise.artifacts.records import Evaluation, VariantSummary
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Predictions
from edgewise.report import rows
from edgewise.stats.paired import exact_interval
from edgewise.tasks import embedding
from edgewise.tasks.embedding import Settings


def vectors(count: int = 120, width: int = 16, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    made = np.random.default_rng(seed).normal(size=(count, width))
    return (made + noise * np.random.default_rng(seed + 1).normal(size=made.shape)).astype(np.float32)


def nearest(array: np.ndarray, k: int) -> np.ndarray:
    found = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(array)
    return found.kneighbors(return_distance=False)


@pytest.mark.parametrize("k", [1, 5])
@pytest.mark.parametrize("cells", [embedding.MAX_CELLS, 500], ids=["at once", "in blocks"])
def test_neighbours_are_those_of_scikit_learn(k, cells, monkeypatch):
    monkeypatch.setattr(embedding, "MAX_CELLS", cells)
    one, other = vectors(), vectors(noise=0.3)
    pairs = zip(nearest(one, k), nearest(other, k), strict=True)
    expected = [len(set(before) & set(after)) / k for before, after in pairs]
    assert embedding.neighbours_kept(one, other, k) == pytest.approx(expected)
    assert 0.2 < np.mean(expected) < 0.95


def test_a_twin_of_the_neighbour_is_as_near():
    one = vectors(40)
    other = np.concatenate([one, one[:1]])  # of the last sample the first is the neighbour, and the other way round
    again = other.copy()
    again[1] = other[0]  # now a third one is as near
    assert embedding.neighbours_kept(other, again, 1)[[0, -1]].tolist() == [1.0, 1.0]


def test_cosines_of_scaled_turned_and_empty_vectors():
    one = np.array([[1, 0], [3, 4], [0, 0], [0, 0], [1, 1]], np.float32)
    other = np.array([[5, 0], [-3, -4], [0, 0], [1, 0], [1, 0]], np.float32)
    assert embedding.cosines(one, other) == pytest.approx([1, -1, 1, 0, np.sqrt(0.5)])


def compared(one: np.ndarray, other: np.ndarray):
    return embedding.compare(Settings(), Predictions({"vector": one}, None), Predictions({"vector": other}, None))


def test_a_pair_has_the_scores_that_are_declared():
    found = compared(vectors(), vectors(noise=0.1))
    assert set(found.scores) == set(embedding.SCORES)
    lost = round(-found.delta * 120)
    low, high = exact_interval(lost, 120)
    assert lost > 0 and found.delta_ci95 == (-high, -low) and found.resolved
    assert found.scores["cosine_lowest"] < found.scores["cosine_p5"] < found.scores["cosine_mean"] < 1


def test_the_same_vectors_differ_by_nothing_and_longer_ones_by_nothing_that_shows():
    same, longer = compared(vectors(), vectors()), compared(vectors(), 3 * vectors())
    assert (same.delta, same.delta_ci95, same.scores["cosine_mean"]) == (0.0, (0.0, 0.0), pytest.approx(1.0))
    assert longer.delta == 0 and longer.delta_ci95 == (pytest.approx(-(1 - 0.025 ** (1 / 120))), 0.0)


def test_the_output_that_holds_vectors_is_found():
    tokens, pooled, score = vectors(12).reshape(3, 4, 16), vectors(3), vectors(3, 1)
    assert list(embedding.condense(Settings(), {}, {"tokens": tokens, "pooled": pooled, "score": score})) == ["pooled"]
    assert embedding.condense(Settings(), {}, {"vector": pooled[:, :, None, None]})["vector"].shape == (3, 16)
    first = embedding.condense(Settings(output="tokens", pooling="first"), {}, {"tokens": tokens, "pooled": pooled})
    np.testing.assert_array_equal(first["tokens"], tokens[:, 0])
    mean = embedding.condense(Settings(pooling="mean"), {}, {"tokens": tokens})
    np.testing.assert_allclose(mean["tokens"], tokens.mean(axis=1))


@pytest.mark.parametrize(
    ("settings", "outputs"),
    [
        ({}, {"one": vectors(3), "two": vectors(3)}),
        ({}, {"tokens": vectors(12).reshape(3, 4, 16)}),
        ({"output": "elsewhere"}, {"one": vectors(3)}),
    ],
    ids=["two", "none", "another name"],
)
def test_what_is_not_clear_is_named(settings, outputs):
    with pytest.raises(ConfigError, match=r"task\.output: .* the model returns"):
        embedding.condense(Settings(**settings), {}, outputs)


def test_two_samples_have_no_other_neighbours():
    few, enough = ({"test": Predictions({"vector": vectors(count)}, None)} for count in (2, 3))
    with pytest.raises(DataError, match=r"data\.splits\.test: 2 samples"):
        embedding.judge(Settings(), few)
    assert embedding.judge(Settings(), enough).decision == {"answer": "vector", "output": "vector", "pooling": "none"}


@pytest.mark.parametrize("pooling", ["none", "first", "mean"])
def test_a_device_answers_with_the_vector_that_is_judged(pooling):
    outputs = {"score": vectors(3, 1), "vector": vectors(12).reshape(3, 4, 16) if pooling != "none" else vectors(3)}
    kept = embedding.condense(Settings(pooling=pooling), {}, outputs)
    spec = embedding.judge(Settings(pooling=pooling), {"test": Predictions(kept, None)}).decision
    for place, vector in enumerate(kept["vector"]):
        said = answer_sample({name: array[place : place + 1] for name, array in outputs.items()}, spec, ())
        np.testing.assert_allclose(said["embedding"], vector, rtol=1e-6)


def test_the_score_of_a_variant_is_what_agrees_with_the_reference():
    judge = rows.Judge(embedding, Settings())
    pair = [Predictions({"vector": array}, None) for array in (vectors(), vectors(noise=0.1))]
    row = rows.add_scores(VariantSummary("onnx", "int8-static", "ok"), Evaluation(120, 1, None, {}), judge)
    quality = rows.add_comparison(row, pair[1], pair[0], "onnx-int8-static", judge).quality
    assert quality.score == pytest.approx(1 + quality.delta) and 0.5 < quality.score < 1
    assert rows.add_comparison(row, pair[0], pair[0], "onnx-fp32", judge).quality.score == 1.0
