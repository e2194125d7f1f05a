"""The objective of masks, against torch and plain counts, and which objective the data gets."""

import numpy as np
import pytest
import torch

from edgewise.artifacts.samples import Samples
from edgewise.config.schema import Train
from edgewise.errors import ConfigError
from edgewise.sources import objectives, torch_source, training
from tests.support import shapes

pytestmark = pytest.mark.framework

SIDE = 32
TRAIN = Train("x", epochs=3, batch_size=8, learning_rate=0.03, monitor="mean_iou", flip_horizontal=True, zoom=0.3, shift_pixels=2)


@pytest.fixture(scope="module")
def samples() -> Samples:
    return shapes.make_samples("masks", SIDE)


def net() -> torch.nn.Module:
    """Brightness in cells of 4x4 pixels, and a class of it."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(1, 8, 4, 4), torch.nn.ReLU(), torch.nn.Conv2d(8, 3, 1))


def test_masks_are_learned_and_the_same_seed_gives_the_same_bytes(samples: Samples) -> None:
    weights, histories = [], []
    for _ in range(2):
        module, objective = net(), objectives.choose(samples, TRAIN)
        assert objective is not None
        with training.repeatable(0, 1):
            histories.append(training.fit(module, samples, TRAIN, 0, objective))
        weights.append([tensor.numpy().tobytes() for tensor in module.state_dict().values()])
    assert weights[0] == weights[1]
    curve = histories[0]["curve"]
    assert curve[-1]["loss_train"] < curve[0]["loss_train"] / 2
    assert histories[0]["mean_iou_validation"] > 0.6 > curve[0]["mean_iou_validation"]


def test_loss_and_mean_iou_are_those_of_plain_counts(samples: Samples) -> None:
    module, objective, indices = net(), objectives.Masks(samples, TRAIN), samples.indices("validation")
    scores = training.validate(module, samples, objective)
    with torch.no_grad():
        logits = module(torch.from_numpy(samples.feeds(indices)["image"]))
        large = torch.nn.functional.interpolate(logits, scale_factor=4, mode="bilinear")
    truth = torch.from_numpy(np.stack(samples.targets(indices))).long()
    assert scores["loss_validation"] == pytest.approx(torch.nn.functional.cross_entropy(large, truth, ignore_index=255).item(), rel=1e-5)
    said, known = large.argmax(1), truth != 255
    ious = [((said == c) & (truth == c) & known).sum() / (((said == c) | (truth == c)) & known).sum() for c in range(3)]
    assert scores["mean_iou_validation"] == pytest.approx(np.mean(ious))


def test_masks_without_any_class_have_no_loss(samples: Samples) -> None:
    logits = torch.randn(2, 3, 8, 8, requires_grad=True)
    loss = objectives.Masks(samples, TRAIN).loss([logits], [np.full((SIDE, SIDE), 255, np.uint8)] * 2)
    loss.backward()
    assert loss.item() == 0 and not logits.grad.any()


@pytest.mark.parametrize("shapes_given", [[(2, 4, 8, 8)], [(2, 3)], [(2, 3, 8, 8), (2, 3)]])
def test_outputs_that_are_no_map_of_the_labels(samples: Samples, shapes_given: list) -> None:
    said = objectives.Masks(samples, TRAIN).check(shapes_given)
    assert said is not None and "masks of 3 labels, so it must return logits [2, 3, rows, columns]" in said
    assert objectives.Masks(samples, TRAIN).check([(2, 3, 5, 7)]) is None


def test_without_an_objective_a_model_is_taken_as_it_is() -> None:
    boxes = shapes.make_samples("boxes", SIDE)
    assert objectives.choose(boxes, Train("x", monitor="loss")) is None
    assert torch_source.leave_untrained("boxes", Train("x", epochs=0))["curve"] == []
    with pytest.raises(ConfigError, match=r"train\.epochs: 8; this model cannot be trained with data\.targets=boxes: set train\.epochs=0"):
        torch_source.leave_untrained("boxes", Train("x"))
