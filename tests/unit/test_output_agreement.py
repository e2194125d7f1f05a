"""Outputs compared group by group: what one number over all of them hides."""

from pathlib import Path

import numpy as np
import pytest

from edgewise.errors import VariantFailed
from edgewise.proof import checks
from edgewise.stats.agreement import Group, compare_groups, find_groups, sqnr_db, worst_of

MIXED_SCALES = Path(__file__).parents[1] / "data/mixed_scales.onnx"  # out [n, 7]: four numbers in pixels, three confidences


def detector(samples: int = 16, seed: int = 0) -> np.ndarray:
    """Boxes in pixels, an objectness and classes, as YOLO's raw heads have them: [n, 50, 4 + 1 + 3]."""
    random = np.random.default_rng(seed)
    return np.concatenate([random.uniform(0, 400, (samples, 50, 4)), random.uniform(0, 1, (samples, 50, 4))], axis=2)


def points(count: int = 10) -> np.ndarray:
    """Of a body, flattened as a net for poses gives them: x and y in pixels, confidence, presence; [n, count * 4]."""
    random = np.random.default_rng(0)
    pixels, scores = random.uniform(0, 400, (16, count, 2)), random.uniform(0, 1, (16, count, 2))
    return np.concatenate([pixels, scores], axis=2).reshape(16, -1)


@pytest.mark.parametrize(
    ("array", "names"),
    [
        (detector(), ["[0:4]", "[4:8]"]),
        (detector().transpose(0, 2, 1), ["[0:4]", "[4:8]"]),
        (detector()[:, 0] * [1, 1, 1, 1, 0.01, 1, 1, 1], ["[0:4]", "[4:8]"]),
        (np.random.default_rng(0).normal(size=(16, 10)), [""]),
        (np.random.default_rng(0).uniform(size=(16, 10)) * np.logspace(-6, 0, 10), [""]),  # probabilities, some of them rare
        (np.random.default_rng(0).normal(size=(16, 8, 6, 6)), [""]),
        (points(), ["[0:2 of each 4]", "[2:4 of each 4]"]),
        (points(600), ["[0:2 of each 4]", "[2:4 of each 4]"]),
        (points() * np.geomspace(1, 1e6, 40), [""]),  # magnitudes that alternate in no order
        (np.random.default_rng(0).normal(size=(16, 4000)), [""]),
        (np.zeros((16, 0)), [""]),
        (np.zeros(16), [""]),
    ],
    ids=[
        "boxes last",
        "boxes first",
        "a vector",
        "logits",
        "probabilities",
        "a map",
        "points",
        "many points",
        "no order",
        "many logits",
        "empty",
        "one number",
    ],
)
def test_groups_are_found_by_the_kind_of_their_values(array, names):
    assert [group.name for group in find_groups(array)] == names


def test_a_group_is_a_part_of_the_output():
    array = detector()
    np.testing.assert_array_equal(Group(2, 4, 5).of(array), array[:, :, 4:5])
    np.testing.assert_array_equal(np.concatenate([group.of(array) for group in find_groups(array)], axis=2), array)


def test_a_dead_group_decides_whatever_the_others_say():
    source = detector()
    dead = source.copy()
    dead[:, :, 4:] = 0
    found = worst_of(compare_groups({"boxes": source[:, :, :4], "all": source}, {"boxes": source[:, :, :4], "all": dead}))
    assert (found.name, found.dead) == ("all[4:8]", True) and found.largest_difference > 0.9
    with pytest.raises(VariantFailed, match=r"output all\[4:8\] is dead"):
        checks.check_outputs({"all": source}, {"all": dead}, -200.0)


def test_a_dead_kind_among_those_that_alternate_is_named():
    source = points()
    dead = source.copy()
    dead.reshape(16, 10, 4)[:, :, 2:] = 0
    assert sqnr_db(source, dead) > 40
    with pytest.raises(VariantFailed, match=r"output points\[2:4 of each 4\] is dead"):
        checks.check_outputs({"points": source}, {"points": dead}, -200.0)


def test_the_same_answer_for_every_sample_is_dead_although_its_values_differ():
    logits = np.random.default_rng(0).normal(size=(16, 10))
    (found,) = compare_groups({"logits": logits}, {"logits": np.repeat(logits[:1], 16, axis=0)})
    assert found.dead
    (still,) = compare_groups({"logits": logits[:1]}, {"logits": logits[1:2]})
    assert not still.dead, "of a single sample nothing can be told"


def test_a_source_that_is_constant_itself_kills_no_variant():
    constant = np.ones((16, 10))
    assert not worst_of(compare_groups({"logits": constant}, {"logits": constant})).dead


def test_a_constant_of_the_model_is_compared_by_its_size():
    """Anchors as an output: rounded to float16 they are as good as any other output."""
    anchors = np.repeat(np.random.default_rng(0).uniform(size=(1, 20, 4)), 16, axis=0)
    (found,) = compare_groups({"anchors": anchors}, {"anchors": anchors.astype(np.float16)})
    assert 60 < found.sqnr_db < 90 and not found.dead
    (lost,) = compare_groups({"anchors": anchors}, {"anchors": np.zeros_like(anchors)})
    assert lost.sqnr_db == 0


def test_the_worst_group_is_named_with_its_own_ratio():
    source = detector()
    rounded = source.copy()
    rounded[:, :, 4:] = np.round(source[:, :, 4:], 1)
    with pytest.raises(VariantFailed, match=r"SQNR \d+\.\d dB of all\[4:8\], this scheme needs at least 60 dB"):
        checks.check_outputs({"all": source}, {"all": rounded}, 60.0)
    assert checks.check_outputs({"all": source}, {"all": source + 1e-6}, 30.0) > 100


@pytest.mark.framework
def test_scores_that_share_their_scale_with_pixels_are_no_variant(tmp_path):
    """ONNX Runtime's own quantizer gives the concatenation of boxes and confidences one scale: every confidence is then 0, at 47 dB
    over all outputs."""
    onnxruntime = pytest.importorskip("onnxruntime")
    quantization = pytest.importorskip("onnxruntime.quantization")
    random = np.random.default_rng(0)

    class Reader(quantization.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"x": random.normal(size=(1, 3, 32, 32)).astype(np.float32)} for _ in range(32)])

        def get_next(self):
            return next(self.feeds, None)

    quantization.quantize_static(MIXED_SCALES, tmp_path / "int8.onnx", Reader(), per_channel=True)
    x = random.normal(size=(16, 3, 32, 32)).astype(np.float32)
    float_out, int8_out = (
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
        for path in (MIXED_SCALES, tmp_path / "int8.onnx")
    )
    assert not int8_out[:, 4:].any()
    with pytest.raises(VariantFailed, match=r"output out\[4:7\] is dead"):
        checks.check_outputs({"out": float_out}, {"out": int8_out}, 20.0)


def test_classes_are_compared_by_how_many_differ():
    """One pixel in a thousand, numbered 0 in place of 20, is as good as numbered 19; of pixel values the distance counts."""
    classes = np.random.default_rng(0).integers(0, 21, (16, 1000))
    classes[:, 0] = 20
    near, far = classes.copy(), classes.copy()
    near[:, 0], far[:, 0] = 19, 0
    found = [worst_of(compare_groups({"classes": classes}, {"classes": other})).sqnr_db for other in (near, far)]
    assert found[1] == pytest.approx(60) and found[0] >= 60
    pixels = np.random.default_rng(0).integers(0, 255, (16, 1000))
    assert worst_of(compare_groups({"pixels": pixels}, {"pixels": pixels + 1})).sqnr_db > 35


def test_values_that_are_not_finite_agree_with_nothing():
    source = detector()
    for broken in (np.nan, np.inf):
        spoiled = source.copy()
        spoiled[3, 7, 2] = broken
        assert sqnr_db(source, spoiled) == sqnr_db(spoiled, source) == sqnr_db(spoiled, spoiled) == -200.0


@pytest.mark.parametrize("shape", [(1, 10), (1,), (1, 1)])
def test_a_single_sample_is_judged_by_its_own_elements(shape):
    """Its mean over the samples is itself: about that there is no signal, and rounding would be a disaster."""
    one = np.random.default_rng(0).normal(size=shape)
    assert 70 < sqnr_db(one, one * (1 + 1e-4)) < 90
    assert sqnr_db(one, one) == 200.0


def test_outputs_without_an_element_are_equal():
    assert sqnr_db(np.zeros((0, 3)), np.zeros((0, 3))) == sqnr_db(np.zeros((4, 0)), np.zeros((4, 0))) == 200.0
