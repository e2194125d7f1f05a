"""artifacts/targets: labels to targets of each kind, into models/data and back; what does not fit is named."""

from types import SimpleNamespace

import numpy as np
import pytest

from edgewise.artifacts import targets
from edgewise.errors import DataError
from edgewise.plugins import IGNORED, Boxes, Item, Mask

CAR, DOG = Boxes.of([0, 0, 4, 2], 0), Boxes.of([[1, 1, 3, 5], [0, 0, 2, 2]], [1, 0], areas=[5, 4], crowd=[False, True])


def items(*labels) -> list[Item]:
    return [Item(f"{number}.png", label, None, str(number), None) for number, label in enumerate(labels)]


def settings(kind: str, names=("car", "dog"), order=None) -> SimpleNamespace:
    """As a data set's. order: the names of the model, where it has its own."""

    def index(given):
        listed = list(order or given)
        return listed, {name: listed.index(name) for name in given}

    return SimpleNamespace(targets=kind, label_names=None, class_names=lambda: names, index_classes=index)


def round_trip(tmp_path, kind, encoded):
    targets.store(tmp_path, encoded)
    return targets.load(tmp_path, kind)


def test_boxes_come_back_by_picture_with_empty_ones(tmp_path):
    given = (CAR, Boxes.of([], []), DOG)
    labels, encoded = targets.encode(items(*given), settings("boxes"))
    found = round_trip(tmp_path, "boxes", encoded)
    assert labels == ["car", "dog"] and tuple(found[np.array([0, 1, 2])]) == given and found[np.array([2])] == [DOG]
    assert {name: array.dtype.name for name, array in vars(found[np.array([0])][0]).items()} == {
        "corners": "float32", "classes": "int64", "areas": "float32", "crowd": "bool",
    }  # fmt: skip
    assert found[np.array([1])][0].corners.shape == (0, 4)


def test_boxes_are_counted_by_picture_and_by_object():
    labels, encoded = targets.encode(items(CAR, Boxes.of([], []), DOG, CAR), settings("boxes", ("car", "dog", "cat")))
    splits = {"train": np.array([0, 3]), "test": np.array([1, 2])}
    present = targets.masks_by_label(encoded, "boxes", labels)
    assert targets.count_by_split(present, splits) == {"train": {"car": 2, "dog": 0, "cat": 0}, "test": {"car": 1, "dog": 1, "cat": 0}}
    assert targets.count_parts(encoded, labels, splits)["objects"]["test"] == {"car": 1, "dog": 1, "cat": 0}


@pytest.mark.parametrize("kind", ["boxes", "masks"])
def test_classes_follow_the_order_of_the_model(kind):
    mask = np.array([[0, 1], [1, IGNORED]], np.uint8)
    given = items(DOG) if kind == "boxes" else items(Mask.pack(mask))
    labels, encoded = targets.encode(given, settings(kind, order=("none", "dog", "car")))
    (found,) = encoded[np.array([0])]
    assert labels == ["none", "dog", "car"]
    if kind == "boxes":
        assert found.classes.tolist() == [1, 2] and np.array_equal(found.corners, DOG.corners)
    else:
        assert found.tolist() == [[2, 1], [1, IGNORED]]


def test_masks_of_any_size_come_back(tmp_path):
    rng = np.random.default_rng(0)
    given = [rng.integers(0, 3, size).astype(np.uint8) for size in ((4, 7), (1, 1), (30, 20))]
    given[2][0] = IGNORED
    labels, encoded = targets.encode(items(*map(Mask.pack, given)), settings("masks", ()))
    found = round_trip(tmp_path, "masks", encoded)
    assert labels == ["0", "1", "2"]
    assert all(np.array_equal(one, other) for one, other in zip(found[np.arange(3)], given, strict=True))
    counts = targets.count_parts(found, labels, {"all": np.arange(3)})["pixels"]["all"]
    assert counts == {str(label): sum(int((mask == label).sum()) for mask in given) for label in range(3)}


def test_without_labels_there_are_no_targets(tmp_path):
    assert targets.encode(items(None, None), settings("classes")) == ([], None)
    assert round_trip(tmp_path, "none", None) is None and not list(tmp_path.iterdir())
    assert targets.masks_by_label(None, "none", []) == {} == targets.count_parts(None, [], {})


@pytest.mark.parametrize(
    ("kind", "labels", "message"),
    [
        ("classes", ("car", None, "dog"), r"1 of 3 samples have no label, such as 1.png; label all of them, or set data.targets=none"),
        ("boxes", (Boxes.of([], []),) * 4, "4 pictures without any object; check that the labels belong to these pictures"),
        ("masks", (Mask.pack(np.full((2, 2), IGNORED, np.uint8)),), "1 masks without a pixel of any class; check data.ignore"),
        ("masks", (Mask.pack(np.zeros((2, 2), np.uint8)),) * 2, r"all pixels of 2 masks are \w+; two classes or more are needed"),
    ],
)
def test_labels_that_cannot_be_targets(kind, labels, message):
    with pytest.raises(DataError, match=message):
        targets.encode(items(*labels), settings(kind))


def test_problems_are_counted_over_all_samples_and_some_are_named():
    bad = [Item(f"{i}.png", None, None, "", None, problems=(("boxes of no area, left out", f"{i}.png"),) * 2) for i in range(5)]
    assert targets.count_problems(bad, most=3) == {"boxes of no area, left out": {"count": 10, "named": ["0.png", "1.png", "2.png"]}}


def test_boxes_are_equal_by_value():
    assert Boxes.of([0, 0, 4, 2], 0) == CAR != Boxes.of([0, 0, 4, 2], 1) and CAR.areas.tolist() == [8.0]
    assert Boxes.of([], []) != CAR and DOG.take(np.array([False, True])) == Boxes.of([0, 0, 2, 2], 0, 4, True)
