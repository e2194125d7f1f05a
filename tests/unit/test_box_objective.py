"""How a detector on grids is trained: assignment, losses and AP50 against plain loops, the loop as a whole on drawn rectangles."""

import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from edgewise.agent.decoding import decode
from edgewise.config.schema import Train
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Boxes
from edgewise.sources import objectives, tiny_detector, training
from edgewise.sources.box_objective import BACKGROUND, IGNORED, BoxObjective, Grid, assign, focal_loss, generalized_iou, to_corners
from tests.support import shapes

pytestmark = pytest.mark.framework

SIDE, STRIDES = 32, [4, 8]
DECODING = {**tiny_detector.DECODING, "size": [SIDE, SIDE], "strides": STRIDES}
GRID = Grid.of((SIDE, SIDE), STRIDES)
SMALL = tiny_detector.Settings(
    arguments={"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}, width=16, strides=(4, 8)
)
TRAIN = Train("x", epochs=4, batch_size=16, learning_rate=5e-3, monitor="loss", flip_horizontal=True, flip_vertical=True, zoom=0.3)


@pytest.fixture(scope="module")
def objective() -> BoxObjective:
    return BoxObjective(shapes.make_samples("boxes", SIDE), TRAIN, DECODING)


def points_of(classes: np.ndarray, label: int) -> set[tuple[int, int, int]]:
    """x, y and stride of the middles of the points that have this class."""
    chosen = classes == label
    return {(*(at + stride / 2), stride) for at, stride in zip(GRID.at[chosen], GRID.strides[chosen], strict=True)}


def test_an_object_has_the_points_in_the_middle_of_it_on_the_grid_of_its_size() -> None:
    classes, boxes = assign(Boxes.of([[4, 4, 24, 16]], [1]), GRID)
    assert points_of(classes, 1) == {(x, y, 4) for x in (10, 14, 18) for y in (6, 10, 14)}
    assert (boxes[classes == 1] == [4, 4, 24, 16]).all()
    large, _ = assign(Boxes.of([[0, 0, 32.5, 32]], [0]), GRID)
    assert {stride for _, _, stride in points_of(large, 0)} == {8}


def test_an_object_smaller_than_a_cell_has_one_point_and_a_thin_one_a_row() -> None:
    assert points_of(assign(Boxes.of([[9, 17, 10, 18]], [1]), GRID)[0], 1) == {(10, 18, 4)}
    assert points_of(assign(Boxes.of([[2, 9, 22, 10]], [0]), GRID)[0], 0) == {(x, 10, 4) for x in (6, 10, 14, 18)}


def test_the_smaller_of_two_objects_has_the_point_that_both_claim() -> None:
    classes, boxes = assign(Boxes.of([[12, 12, 16, 16], [4, 4, 24, 24]], [1, 0]), GRID)
    assert points_of(classes, 1) == {(14, 14, 4)}
    assert (14, 14, 4) not in points_of(classes, 0) and len(points_of(classes, 0)) == 8
    assert boxes[classes == 1].tolist() == [[12, 12, 16, 16]]


def test_points_in_a_crowd_count_neither_way() -> None:
    classes, _ = assign(Boxes.of([[0, 0, 16, 16], [4, 4, 8, 8]], [0, 1], crowd=[True, False]), GRID)
    assert points_of(classes, 1) == {(6, 6, 4)}
    inside = {(x, y, s) for s in (4, 8) for x in range(s // 2, 16, s) for y in range(s // 2, 16, s)}
    assert points_of(classes, IGNORED) == inside - {(6, 6, 4)}
    assert (assign(Boxes.of([], []), GRID)[0] == BACKGROUND).all()


def plain_giou(one: np.ndarray, other: np.ndarray) -> float:
    """In counts of small cells."""
    at = (np.arange(400) + 0.5) / 10
    first, second = ((at[:, None] > b[1]) & (at[:, None] < b[3]) & (at[None, :] > b[0]) & (at[None, :] < b[2]) for b in (one, other))
    low, high = np.minimum(one, other)[:2], np.maximum(one, other)[2:]
    hull, union = np.prod((high - low) * 10), (first | second).sum()
    return float((first & second).sum() / union - (hull - union) / hull)


def test_giou_is_that_of_counted_cells() -> None:
    rng = np.random.default_rng(0)
    low, sides = rng.integers(0, 200, (2, 30, 2)) / 10, rng.integers(1, 150, (2, 30, 2)) / 10
    one, other = np.concatenate([low, low + sides], 2)
    found = generalized_iou(torch.from_numpy(one), torch.from_numpy(other))
    np.testing.assert_allclose(found, [plain_giou(*pair) for pair in zip(one, other, strict=True)], atol=1e-9)
    assert found.min() < 0 < found.max()


def test_focal_loss_is_its_formula() -> None:
    logits, targets = torch.randn(50, dtype=torch.float64), (torch.rand(50) < 0.3).double()
    p = torch.where(targets > 0, logits.sigmoid(), 1 - logits.sigmoid())
    torch.testing.assert_close(focal_loss(logits, targets), -0.5 * (1 - p) ** 2 * p.log())


def perfect(objective: BoxObjective, indices: np.ndarray) -> list[torch.Tensor]:
    """The outputs of a detector that knows the truth."""
    classes, corners = objective.targets(objective.objects(indices))
    scores = torch.full((len(indices), 2, classes.shape[1]), -20.0)
    picture, point = torch.nonzero(classes >= 0, as_tuple=True)
    scores[picture, classes[picture, point], point] = 20.0
    strides = torch.from_numpy(GRID.strides)[:, None]
    centers = ((corners[..., :2] + corners[..., 2:]) / 2 - torch.from_numpy(GRID.at)) / strides
    sizes = ((corners[..., 2:] - corners[..., :2]) / strides).clamp(min=1e-3).log()
    return [scores, torch.cat([centers, sizes], 2).transpose(1, 2)]


def test_training_and_decoding_mean_the_same_boxes(objective: BoxObjective) -> None:
    scores, boxes = torch.randn(3, 2, 80), torch.randn(3, 4, 80)
    spec = {**DECODING, "nms_threshold": None, "score_threshold": 0, "max_detections": 80}
    for i, found in enumerate(decode({"scores": scores.numpy(), "boxes": boxes.numpy()}, spec)):
        highest, classes = scores[i].max(0)
        order = torch.argsort(-highest, stable=True)
        np.testing.assert_allclose(found.corners, to_corners(boxes, objective.grid)[i][order], atol=1e-4)
        np.testing.assert_allclose(found.scores, highest[order].sigmoid(), rtol=1e-6)
        np.testing.assert_array_equal(found.classes, classes[order])


def test_the_boxes_that_two_points_of_an_object_give_become_one_detection() -> None:
    scores, boxes = torch.full((1, 2, 80), -20.0), torch.zeros(1, 4, 80)
    scores[0, 0, [34, 35]] = torch.tensor([2.0, 1.0])  # neighbours on the finer grid
    boxes[0, 2:, [34, 35]] = float(np.log(4))  # 16 pixels each, 4 apart: they overlap by 0.6
    (found,) = decode({"scores": scores.numpy(), "boxes": boxes.numpy()}, DECODING)
    assert found.scores == pytest.approx([torch.tensor(2.0).sigmoid().item()])


def test_the_truth_has_no_loss_and_an_ap50_of_1(objective: BoxObjective) -> None:
    indices = objective.samples.indices("validation")
    truth = perfect(objective, indices)
    assert objective.loss(truth, objective.targets(objective.objects(indices))).item() == pytest.approx(0, abs=1e-5)
    scores = objective.validate((part, [output[part - indices[0]] for output in truth]) for part in np.array_split(indices, 3))
    assert scores["ap50_validation"] == pytest.approx(1.0)
    half = [truth[0].clone(), truth[1]]
    half[0][:, 0] = -20.0  # no dark ones
    assert objective.validate([(indices, half)])["ap50_validation"] == pytest.approx(0.5)


def test_outputs_far_off_have_a_finite_loss_and_gradient(objective: BoxObjective) -> None:
    indices = objective.samples.indices("validation")
    scores, boxes = (torch.full((len(indices), rows, 80), 300.0, requires_grad=True) for rows in (2, 4))
    loss = objective.loss([scores, boxes], objective.targets(objective.objects(indices)))
    loss.backward()
    assert loss.isfinite() and scores.grad is not None and scores.grad.isfinite().all()
    assert boxes.grad is not None and boxes.grad.isfinite().all()


def test_what_a_changed_batch_should_give_is_what_is_in_the_changed_pictures(objective: BoxObjective) -> None:
    feeds, (classes, corners) = objective.batch(objective.samples.indices("train"), np.random.default_rng(0))
    bright = [feeds["image"][i, 0] > 0.7 for i in range(64)]  # -1 .. 1
    shares = []
    for i, picture in enumerate(bright):
        for x0, y0, x1, y1 in np.unique(corners[i][classes[i] == 1].numpy().round().astype(int), axis=0):
            shares.append(picture[y0:y1, x0:x1].mean())
    assert len(shares) > 20 and np.mean(shares) > 0.8, shares  # a dark one may lie above it


def test_an_epoch_has_all_objects_and_no_more_pictures_without(objective: BoxObjective) -> None:
    samples = objective.samples
    shown = {i for i, boxes in enumerate(samples.targets(np.arange(120))) if len(boxes)}
    assert {*objective.epoch(np.random.default_rng(0))} == {*samples.splits["train"]}  # a third of the pictures show nothing
    mostly_empty = dataclasses.replace(samples, splits={"train": [i for i in range(120) if i not in shown] + [*shown][:3]})
    first, second = (BoxObjective(mostly_empty, TRAIN, DECODING).epoch(np.random.default_rng(seed)) for seed in (0, 1))
    assert len(first) == len(second) == 6 and {*first} & shown == {*second} & shown and {*first} != {*second}


def train(seed: int = 0) -> tuple[dict, str]:
    samples = shapes.make_samples("boxes", SIDE)
    with training.repeatable(seed, 1):
        detector = tiny_detector.create(SMALL, shapes.make_manifest(samples))
        objective = objectives.choose(samples, TRAIN, detector.decoding)
        assert isinstance(objective, BoxObjective)
        history = training.fit(detector, samples, TRAIN, seed, objective)
    weights = b"".join(tensor.numpy().tobytes() for tensor in detector.state_dict().values())
    return history, hashlib.sha256(weights).hexdigest()


def test_it_learns_and_the_same_seed_gives_the_same_bytes() -> None:
    (first, digest), (_, again), (_, other) = train(), train(), train(1)
    assert first["curve"][-1]["loss_train"] < 0.8 * first["curve"][0]["loss_train"]
    assert first["accuracy_validation"] is None and 0 <= first["ap50_validation"] <= 1
    assert digest == again != other


def test_settings_of_other_targets_are_refused() -> None:
    samples = shapes.make_samples("boxes", SIDE)
    with pytest.raises(
        ConfigError, match=r"train\.monitor: 'accuracy' needs classes, but data\.targets is boxes; allowed: ap50, loss, last"
    ):
        objectives.choose(samples, dataclasses.replace(TRAIN, monitor="accuracy"), DECODING)
    with pytest.raises(ConfigError, match=r"train\.label_smoothing: 0\.1 needs classes"):
        objectives.choose(samples, dataclasses.replace(TRAIN, label_smoothing=0.1), DECODING)


def test_a_validation_split_without_objects_is_named(objective: BoxObjective) -> None:
    indices = objective.samples.indices("validation")
    empty = [i for i, boxes in zip(indices, objective.samples.targets(indices), strict=True) if not len(boxes)]
    outputs = [torch.zeros(len(empty), rows, 80) for rows in (2, 4)]
    with pytest.raises(DataError, match=r"data\.splits: no picture of the validation split has an object"):
        objective.validate([(np.array(empty), outputs)])
