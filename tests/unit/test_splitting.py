"""core/splitting: disjoint, complete, stratified, never through a group, the same for a seed. Oracle: scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewise.artifacts.targets import count_by_split, masks_by_label
from edgewise.config.settings import build
from edgewise.data import splitting
from edgewise.data.splitting import SPLITS, Shares, split
from edgewise.errors import ConfigError
from edgewise.plugins import Boxes, Item

shares_of = st.builds(
    lambda a, b, c: Shares(validation=a, calibration=b, test=c), st.floats(0.02, 0.3), st.floats(0.02, 0.3), st.floats(0.02, 0.3)
)
targets_of = st.lists(st.integers(0, 5), min_size=1, max_size=200).map(lambda t: np.unique(t, return_inverse=True)[1])


def by_class(targets, splits):
    return np.array([np.bincount(targets[splits[name]], minlength=targets.max() + 1) for name in SPLITS]).T


@settings(max_examples=150, deadline=None)
@given(targets_of, shares_of, st.integers(0, 5), st.data())
def test_disjoint_complete_and_groups_whole(targets, shares, seed, data):
    groups = np.array(data.draw(st.lists(st.integers(0, 40), min_size=len(targets), max_size=len(targets))))
    groups = np.unique(groups, return_inverse=True)[1]
    splits = split(targets, groups, shares.without(), seed)
    assert sorted(np.concatenate(list(splits.values()))) == list(range(len(targets)))
    owners = [set(groups[indices]) for indices in splits.values()]
    assert sum(map(len, owners)) == len(set(groups))


@settings(max_examples=150, deadline=None)
@given(targets_of, shares_of, st.integers(0, 5))
def test_without_groups_every_class_has_its_share_rounded(targets, shares, seed):
    table = by_class(targets, split(targets, np.arange(len(targets)), shares.without(), seed))
    exact = np.outer(table.sum(1), list(shares.without().values()))
    large = table.sum(1) * min(shares.without()["train"], shares.test) >= 1  # a smaller class goes to train and test first
    assert (np.abs(table - exact)[large] < 1 + 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(targets_of, shares_of, st.integers(0, 5))
def test_a_class_of_two_samples_or_more_is_learned_and_judged(targets, shares, seed):
    table = by_class(targets, split(targets, np.arange(len(targets)), shares.without(), seed))
    assert (table[table.sum(1) >= 2][:, [0, 3]] > 0).all()


def test_many_small_classes_leave_no_split_empty():
    targets = np.repeat(np.arange(100), 4)
    sizes = [len(i) for i in split(targets, np.arange(400), Shares(validation=0.1, calibration=0.1, test=0.3).without(), 0).values()]
    assert all(abs(size - expected) <= 1 for size, expected in zip(sizes, (200, 40, 40, 120), strict=True)), sizes


def test_the_seed_alone_decides():
    targets, groups = np.random.default_rng(0).integers(0, 4, 300), np.arange(300)
    one, again, other = (split(targets, groups, Shares().without(), seed) for seed in (7, 7, 8))
    assert all(np.array_equal(one[name], again[name]) for name in SPLITS)
    assert not np.array_equal(one["test"], other["test"])


def test_large_groups_come_into_all_splits_alike():
    groups = np.concatenate([np.repeat(np.arange(100), 6), np.arange(100, 300)])
    splits = split(np.zeros(800, np.int64), groups, Shares().without(), 0)
    for indices, share in zip(splits.values(), list(Shares().without().values()), strict=True):
        assert len(set(groups[indices])) == pytest.approx(300 * share, abs=8)


def test_groups_are_dealt_as_evenly_as_by_scikit_learn():
    from sklearn.model_selection import StratifiedGroupKFold

    generator = np.random.default_rng(3)
    groups = np.sort(generator.integers(0, 120, 600))
    targets = generator.choice(4, 120, p=[0.6, 0.2, 0.15, 0.05])[groups]
    groups = np.unique(groups, return_inverse=True)[1]
    quarters = split(targets, groups, Shares(validation=0.25, calibration=0.25, test=0.25).without(), 0)
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0).split(targets, targets, groups)
    theirs = np.array([np.bincount(targets[fold], minlength=4) for _, fold in folds]).T
    ours = by_class(targets, quarters)
    exact = np.bincount(targets)[:, None] / 4
    assert np.abs(ours - exact).sum() <= np.abs(theirs - exact).sum()


def test_counts_names_splits_and_labels():
    splits = {"train": np.array([0, 1]), "test": np.array([2])}
    assert count_by_split(masks_by_label(np.array([0, 1, 1]), "classes", ["a", "b"]), splits) == {
        "train": {"a": 1, "b": 1},
        "test": {"a": 0, "b": 1},
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"test": 0.9}, "data.splits: validation .* is 1.1, must be at most 1"),
        ({"test": -0.1}, "data.splits.test: -0.1 must be at least"),
        ({"train": 0.5}, "data.splits.train: unknown setting"),
        ({"test": "many"}, "data.splits.test: 'many' must be a number"),
    ],
)
def test_wrong_shares(given, message):
    with pytest.raises(ConfigError, match=message):
        build(Shares, given, "data.splits")


def test_pictures_with_several_classes_are_divided_by_the_rarest():
    """Class 2 is in four pictures, each beside class 0; every one of them counts for class 2."""
    boxes = [Boxes.of([[0, 0, 1, 1]] * 2, [0, 2]) for _ in range(4)] + [Boxes.of([0, 0, 1, 1], 0) for _ in range(60)]
    boxes += [Boxes.of([[0, 0, 1, 1]] * 2, [0, 1]) for _ in range(20)] + [Boxes.of([], []) for _ in range(16)]
    items = [Item(str(i), label, None, str(i), None) for i, label in enumerate(boxes)]
    assert splitting.rarest_classes(items) == ["2"] * 4 + ["0"] * 60 + ["1"] * 20 + [""] * 16
    for seed in range(20):
        splits = splitting.assign_splits(items, np.arange(100), Shares(), seed)
        assert all((splits[name] < 4).any() for name in ("train", "test"))
        assert sum(i >= 84 for i in splits["test"]) in (3, 4) and len(splits["test"]) in (19, 20, 21)


def test_a_note_of_a_thousand_class_names_is_cut():
    counts = {f"class {number}": int(number < 5) for number in range(1000)}
    details = {"unreadable": {"count": 0}, "copies": {"with_another_label": 0}, "groups_in_two_splits": 0, "counts": {"test": counts}}
    (note,) = splitting.list_warnings(details)
    assert note.startswith("test has no sample of: class 5, class 6") and note.endswith("and 975 more") and len(note) < 400
