"""A variant is what its name says, or it fails with the numbers."""

import numpy as np
import pytest

from edgewise.errors import VariantFailed
from edgewise.proof import checks
from edgewise.stats import ranking
from edgewise.stats.agreement import sqnr_db

INT8 = {"weights": "int8", "activations": "uint8", "covers": ("Conv", "Gemm")}


def node(name, operator="Conv", weights="int8", activations="uint8", elements=100):
    return {"name": name, "operator": operator, "weights_dtype": weights, "activations_dtype": activations, "elements": elements}


def facts(*nodes, total=None):
    return {"nodes": list(nodes), "weights_elements": total or sum(n["elements"] for n in nodes)}


def test_covered_share_counts_elements_not_nodes():
    found = facts(node("a", elements=900), node("b", "Gather", "float32", "float32", elements=100))
    assert checks.check_scheme(found, INT8, [], "onnx-int8-static") == pytest.approx(0.9)


def test_the_sign_of_a_type_is_not_its_width():
    found = facts(node("a", weights="uint8", activations="int8"), node("b", "Gather", "uint8", "float32"))
    assert checks.check_scheme(found, INT8, [], "v") == 1.0
    with pytest.raises(VariantFailed, match="did less"):
        checks.check_scheme(facts(node("a", weights="int4")), INT8, [], "v")


@pytest.mark.parametrize("wrong", [{"weights": "float32"}, {"activations": "float32"}])
def test_a_covered_node_left_out_fails_with_its_name(wrong):
    with pytest.raises(VariantFailed, match=r"did less than its name says: 1 of 2 nodes .* b \(Conv"):
        checks.check_scheme(facts(node("a"), node("b", **wrong)), INT8, [], "v")


def test_a_scheme_that_covers_nothing_of_the_model_fails():
    with pytest.raises(VariantFailed, match="covers Conv, Gemm only"):
        checks.check_scheme(facts(node("a", "MatMul", "float32", "float32")), INT8, [], "v")


def test_kept_nodes_must_be_float_and_present():
    found = facts(node("a"), node("b", weights="float32", activations="float32"))
    assert checks.check_scheme(found, INT8, ["b"], "v") == pytest.approx(0.5)
    with pytest.raises(VariantFailed, match="keep_float was not applied: a"):
        checks.check_scheme(found, INT8, ["a", "b"], "v")
    with pytest.raises(VariantFailed, match="not in the file"):
        checks.check_scheme(found, INT8, ["b", "gone"], "v")


def test_nodes_kept_in_8_bits_must_be_so_and_do_not_count_as_covered():
    scheme = {**INT8, "weights": "int4"}
    found = facts(node("a", weights="int4"), node("b", weights="int8", elements=300), node("c", weights="float32"))
    assert checks.check_scheme(found, scheme, ["c"], "v", ["b"]) == pytest.approx(0.2)
    with pytest.raises(VariantFailed, match="keep_int8 was not applied: a are not int8"):
        checks.check_scheme(found, scheme, ["c"], "v", ["a", "b"])
    with pytest.raises(VariantFailed, match="keep_int8 cannot be checked: gone"):
        checks.check_scheme(found, scheme, ["c"], "v", ["b", "gone"])
    with pytest.raises(VariantFailed, match=r"not int4 with uint8 activations, for example b"):
        checks.check_scheme(found, scheme, ["c"], "v")


LAYERS = {"stem.conv": ["n1"], "stages.0.conv": ["n2"], "stages.1.conv": ["n3", "n4"], "classifier": ["n5"]}


@pytest.mark.parametrize(
    ("patterns", "kept"),
    [
        (["classifier"], ["classifier"]),
        (["stages"], ["stages.0.conv", "stages.1.conv"]),
        (["*.conv"], ["stages.0.conv", "stages.1.conv", "stem.conv"]),
        ([], []),
    ],
)
def test_kept_layers_by_name_module_and_pattern(patterns, kept):
    assert checks.select_layers("keep_float", patterns, LAYERS) == kept


def test_nodes_of_all_kept_layers():
    assert checks.list_nodes(["stages.1.conv", "classifier"], LAYERS) == ["n3", "n4", "n5"]


def test_an_unknown_layer_names_the_nearest():
    with pytest.raises(VariantFailed, match=r"keep_float: 'clasifier' matches no layer of the source; did you mean 'classifier'\?"):
        checks.select_layers("keep_float", ["clasifier"], LAYERS)


def test_sqnr_of_a_known_noise():
    signal = np.random.default_rng(0).normal(size=(10_000, 3))
    noise = np.random.default_rng(1).normal(size=signal.shape) * 0.1
    assert sqnr_db(signal, signal + noise) == pytest.approx(20.0, abs=0.2)  # 10 log10(1 / 0.01)
    assert sqnr_db(signal, signal) == 200.0


def test_a_constant_answer_is_no_signal():
    logits = np.random.default_rng(0).normal(size=(50, 4)) + 100
    assert sqnr_db(logits, np.broadcast_to(logits.mean(axis=0), logits.shape)) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"logits": np.zeros((4, 3))}, "output logits is dead"),
        ({"logits": np.arange(12.0).reshape(4, 3)[::-1]}, "SQNR"),
        ({"logits": np.full((4, 3), np.nan)}, "NaN"),
        ({"logits": np.zeros((4, 2))}, "shape"),
        ({"probabilities": np.zeros((4, 3))}, "named probabilities"),
    ],
)
def test_each_kind_of_wrong_outputs_has_its_message(given, message):
    expected = {"logits": np.arange(12.0).reshape(4, 3)}
    with pytest.raises(VariantFailed, match=message):
        checks.check_outputs(expected, given, 20.0)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true:UserWarning")  # scikit-learn's word on one of the cases
def test_scores_agree_with_scikit_learn():
    from sklearn import metrics

    random = np.random.default_rng(3)
    targets, answers = random.integers(0, 5, 300), random.integers(0, 5, 300)
    targets[targets == 4] = 0  # a class that only the answers have
    summary = ranking.summarize_confusion(ranking.confusion_matrix(targets, answers, 5))
    assert summary["accuracy_top1"] == pytest.approx(metrics.accuracy_score(targets, answers))
    assert summary["accuracy_balanced"] == pytest.approx(metrics.balanced_accuracy_score(targets, answers))
    assert summary["macro_f1"] == pytest.approx(metrics.f1_score(targets, answers, average="macro"))
