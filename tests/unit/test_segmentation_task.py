"""The task segmentation: maps at the size of the pictures, scores and differences, and what users can do wrong."""

import dataclasses

import numpy as np
import pytest

from edgewise.agent.class_maps import make_class_map
from edgewise.agent.geometry import Geometry
from edgewise.artifacts import artifact, targets
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.artifacts.samples import Samples
from edgewise.errors import ConfigError, DataError, ModelError
from edgewise.measure.runs import complete_answer
from edgewise.plugins import IGNORED, Predictions
from edgewise.tasks import segmentation
from edgewise.tasks.segmentation import Settings, find_reading, timed_answer

LABELS = ("road", "car", "sky")
COUNT = 14
PREPROCESSING = {"size": [24, 32], "resize": "stretch"}


def ports(*shape: int | None, meaning: str | None = None, **more) -> dict[str, dict]:
    return {"map": {"shape": [None, *shape], "meaning": meaning}, **more}


def sample(noise: float = 0.6, seed: int = 0, labels: tuple[str, ...] = LABELS):
    """(outputs, spec, truths): logits [n, classes, 12, 16] of pictures of several sizes, and what is true."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 60, (COUNT, 2)).astype(np.int32)
    coarse = rng.integers(0, len(labels), (COUNT, 3, 4))
    small = np.kron(coarse, np.ones((4, 4), int))
    logits = (np.arange(len(labels))[:, None, None] == small[:, None]) * 2.0
    noisy = logits + np.random.default_rng(seed + 100).normal(0, noise, logits.shape)
    truths = [
        make_class_map(one, {"channels": "first"}, Geometry.of(PREPROCESSING, *size))
        for one, size in zip(logits, sizes.tolist(), strict=True)
    ]
    for truth in truths:
        truth[:2] = IGNORED
    spec = {"labels": labels, "preprocessing": PREPROCESSING, "sizes": sizes, "ports": ports(len(labels), 12, 16)}
    return {"map": noisy.astype(np.float32)}, spec, truths


def predictions(**given) -> Predictions:
    outputs, spec, truths = sample(**given)
    return Predictions(segmentation.condense(Settings(), spec, outputs), truths, spec["labels"], {"ports": spec["ports"]})


def test_all_scores_that_are_declared_are_given_and_a_map_that_is_right_scores_one():
    found = segmentation.judge(Settings(), {"test": predictions()})
    compared = segmentation.compare(Settings(), predictions(), predictions(noise=0.9))
    assert {*found.scores, *compared.scores} == {*segmentation.SCORES, segmentation.PRIMARY_METRIC.name}
    low, high = found.scores["mean_iou_ci95"]
    assert 0.4 < low < found.scores["mean_iou"] < high < 1
    assert segmentation.judge(Settings(), {"test": predictions(noise=0.0)}).scores["mean_iou"] == 1.0
    assert found.decision == {"answer": "map", "output": "map", "channels": "first", "threshold": 0.0}
    assert list(found.details["iou_per_class"]) == list(LABELS)
    assert np.mean(list(found.details["iou_per_class"].values())) == pytest.approx(found.scores["mean_iou"])


def test_maps_have_the_size_of_their_pictures():
    outputs, spec, _ = sample()
    kept = segmentation.condense(Settings(), spec, outputs)
    maps = list(segmentation.iterate_maps(kept))
    assert [made.shape for made in maps] == [tuple(size) for size in spec["sizes"]]
    for made, scores in zip(maps, outputs["map"], strict=True):
        np.testing.assert_array_equal(made, make_class_map(scores, {"channels": "first"}, Geometry.of(PREPROCESSING, *made.shape)))


def test_chunks_that_are_joined_are_the_whole():
    outputs, spec, _ = sample()
    halves = [
        segmentation.condense(Settings(), {**spec, "sizes": spec["sizes"][part]}, {"map": outputs["map"][part]})
        for part in (slice(0, 5), slice(5, None))
    ]
    joined = {name: np.concatenate([half[name] for half in halves]) for name in halves[0]}
    whole = segmentation.condense(Settings(), spec, outputs)
    for one, other in zip(segmentation.iterate_maps(joined), segmentation.iterate_maps(whole), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_worse_variant_is_worse_and_the_same_differs_by_nothing():
    found = segmentation.compare(Settings(), predictions(), predictions(noise=1.5))
    assert found.resolved and found.delta_ci95[0] < found.delta < found.delta_ci95[1] < 0
    assert 0.05 < found.scores["pixels_changed_share"] < 0.9
    same = segmentation.compare(Settings(), predictions(), predictions())
    assert (same.delta, same.delta_ci95, same.scores["pixels_changed_share"]) == (0.0, (0.0, 0.0), 0.0)


@pytest.mark.parametrize(
    ("shape", "labels", "channels"),
    [
        ((3, 12, 16), 3, "first"),
        ((12, 16, 3), 3, "last"),
        ((3, None, None), 3, "first"),
        ((12, 16), 2, "one"),
        ((1, 12, 16), 2, "one"),
        ((12, 16, 1), 2, "one"),
        ((12, 16), 3, "none"),
        ((1, None, None), 3, "none"),
    ],
)
def test_the_form_of_a_map_is_read_from_its_shape(shape, labels, channels):
    assert find_reading(Settings(), ports(*shape), LABELS[:labels])["channels"] == channels


def test_the_threshold_of_one_channel_is_on_the_scale_of_the_output():
    thresholds = [
        find_reading(Settings(threshold=0.8, probabilities=given), ports(12, 16, meaning=meaning), ("no", "yes"))["threshold"]
        for given, meaning in ((None, None), (None, "logits"), (None, "probabilities"), (True, "logits"), (False, "probabilities"))
    ]
    assert thresholds == pytest.approx([np.log(4), np.log(4), 0.8, 0.8, np.log(4)])


def test_one_of_several_outputs_can_be_named():
    two = ports(3, 12, 16, aux={"shape": [None, 3, 6, 8], "meaning": None})
    assert find_reading(Settings(output="aux"), two, LABELS)["output"] == "aux"
    with pytest.raises(ConfigError, match=r"map with channels first, aux with channels first"):
        find_reading(Settings(), two, LABELS)
    square = ports(3, 12, 3)
    assert find_reading(Settings(channels="last"), square, LABELS)["channels"] == "last"
    with pytest.raises(ConfigError, match=r"task\.output"):
        find_reading(Settings(), square, LABELS)


@pytest.mark.parametrize("given", [{"output": "elsewhere"}, {"channels": "one"}, {}], ids=str)
def test_outputs_without_such_a_map_are_named(given):
    with pytest.raises(ConfigError, match=r"the model returns map \[21, 12, 16\] and the data has 3 classes"):
        find_reading(Settings(**given), ports(21, 12, 16), LABELS)


def test_a_class_that_the_data_does_not_have_is_named():
    spec = {**sample()[1], "ports": ports(12, 16)}
    with pytest.raises(ModelError, match=r"class number 7, the data has 3: road, car, sky"):
        segmentation.condense(Settings(), spec, {"map": np.full((COUNT, 12, 16), 7, np.float32)})


def test_a_mask_of_another_size_and_masks_without_a_class_are_named():
    answers = predictions()
    with pytest.raises(DataError, match="they must agree"):
        segmentation.judge(Settings(), {"test": dataclasses.replace(answers, targets=[mask[:-1] for mask in answers.targets])})
    with pytest.raises(DataError, match=r"0 of its 14 masks have a pixel with a class"):
        segmentation.judge(Settings(), {"test": dataclasses.replace(answers, targets=[np.full_like(m, IGNORED) for m in answers.targets])})


def test_masks_are_read_as_they_were_written(tmp_path):
    masks = predictions().targets
    targets.store(tmp_path, targets.pack(masks))
    assert targets.are_same(targets.unpack(targets.load(tmp_path, targets.MASKS)), masks)


def test_what_is_timed_is_read_from_the_models_manifest(tmp_path):
    """With bench.scope=end_to_end; the settings alone do not say which output is the map."""
    outputs = (Port("aux", (None, 2), "float32"), Port("out", (None, 12, 16), "float32", meaning="probabilities"))
    artifact.write(tmp_path, Manifest("variant", outputs=outputs))
    samples, timed = Samples(("no", "yes"), {}, {}, np.zeros(0), {}), timed_answer(Settings(threshold=0.8))
    expected = {"answer": "map", "labels": ["no", "yes"], "output": "out", "channels": "one", "threshold": 0.8}
    assert complete_answer(timed, samples, tmp_path) == expected
    with pytest.raises(ConfigError, match=r"task\.output: 'aux'.* the model returns aux \[2\], out \[12, 16\]"):
        complete_answer(timed | {"output": "aux"}, samples, tmp_path)
