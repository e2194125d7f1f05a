"""Split a data set into train, validation, calibration and test: stratified by class, repeatable by seed, groups kept together.

scikit-learn has this for equal folds only (StratifiedGroupKFold), not for shares.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.config.settings import option
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import IGNORED, Boxes, Item, Label, Mask

SPLITS = ("train", "validation", "calibration", "test")
NEED_EVERY_CLASS = ("train", "test")  # to learn and to evaluate it
NEED_SAMPLES = ("calibration", "test")  # even where nothing is trained
TOLERANCE = 1e-9  # shares are not exact in binary
MIN_SHARE = 0.001  # less is none
MAX_LISTED = 20  # unreadable samples, copies or problems, in the manifest; all are counted
Splits = Mapping[str, np.ndarray]
RANDOM = "random"
DECLARED = {RANDOM: "random inputs: for a first look at speed and size only"}  # by what a data set declares of itself


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of the samples; the rest, if any, is the training split."""

    validation: float = option(0.1, "share for picking the best epoch, and thresholds", low=0.0, high=1.0)
    calibration: float = option(0.1, "share for the calibration of quantization", low=0.0, high=1.0)
    test: float = option(0.2, "share on which every variant is evaluated", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        total = self.validation + self.calibration + self.test
        if total > 1 + TOLERANCE:
            raise ConfigError(f"data.splits: validation + calibration + test is {total:.3g}, must be at most 1; lower one of them")

    @property
    def train(self) -> float:
        """The rest, 0 if it is less than MIN_SHARE."""
        left = 1.0 - self.validation - self.calibration - self.test
        return left if left >= MIN_SHARE else 0.0

    def without(self, fixed: Set[str] = frozenset()) -> dict[str, float]:
        """Shares of the samples that are still to be split, if the data itself fills the splits in `fixed`."""
        open_shares = {name: getattr(self, name) for name in SPLITS[1:] if name not in fixed}
        shares = {"train": 1.0 - sum(open_shares.values()), **open_shares}
        return {name: share for name, share in shares.items() if share >= MIN_SHARE}


def number_groups(items: Sequence[Item]) -> np.ndarray:
    """Group number of each sample, int [n]: the same for samples that share a group or, as copies of one file, a hash."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for item in items:
        if item.group is not None:
            parent[root(item.sha256)] = root(f"group {item.group}")
    return np.unique([root(item.sha256) for item in items], return_inverse=True)[1]


def assign_splits(items: Sequence[Item], groups: np.ndarray, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Sorted indices of each split. Samples for which the data names a split go there, all others are split by `shares`.

    Stratified by class, of pictures with several classes by the rarest; samples without any form one stratum.
    """
    strata = np.unique(rarest_classes(items), return_inverse=True)[1]
    named = np.array([item.split or "" for item in items])
    free = np.flatnonzero(named == "")
    drawn = split(strata[free], groups[free], shares.without(set(named)), seed)
    return {
        name: np.sort(np.r_[free[drawn[name]] if name in drawn else [], np.flatnonzero(named == name)]).astype(np.int64) for name in SPLITS
    }


def rarest_classes(items: Sequence[Item]) -> list[str]:
    """For each sample the one of its classes that the fewest samples have, "" without classes."""
    classes = [classes_of(item.label) for item in items]
    counts = Counter(name for names in classes for name in names)
    return [min(names, key=lambda name: (counts[name], name), default="") for names in classes]


def classes_of(label: Label) -> set[str]:
    """The class of a sample, or the numbers of all that its boxes or its mask show; none of numbers."""
    if isinstance(label, Boxes):
        return set(map(str, label.classes.tolist()))
    if isinstance(label, Mask):
        return {str(number) for number, count in enumerate(label.pixels[:IGNORED]) if count}
    return {label} if isinstance(label, str) else set()


def check_splits(
    samples_by_label: Mapping[str, np.ndarray],
    groups: np.ndarray,
    splits: Splits,
    shares: Shares = Shares(),
    need_every_label: bool = True,
    divide: Callable[[Shares], Splits] | None = None,
) -> None:
    """DataError if a split that needs samples is empty, or, with `need_every_label`, if train or test lacks a label.

    samples_by_label: which samples have each label, bool [n]. groups: int [n]. divide: how the samples are split by other shares.
    """
    empty = [name for name in SPLITS if not len(splits[name]) and (name in NEED_SAMPLES or getattr(shares, name))]
    if empty:
        raise DataError(
            f"data: {len(groups)} samples in {len(set(groups))} groups leave {' and '.join(empty)} empty; add samples{advise(divide)}"
        )
    for label, mine in samples_by_label.items() if need_every_label and shares.train else ():
        if any(not mine[splits[name]].any() for name in NEED_EVERY_CLASS):
            raise DataError(
                f"data: class {label!r} has {mine.sum()} samples in {len(set(groups[mine]))} groups, not in both train and test; "
                f"add samples of it, or remove the class{advise(divide)}"
            )


def advise(divide: Callable[[Shares], Splits] | None) -> str:
    """The shares with which these samples are enough, where nothing is trained; nothing if these are not enough either."""
    shares = Shares(validation=0.0, calibration=0.5, test=0.5)
    if divide is None or any(not len(divide(shares)[name]) for name in NEED_SAMPLES):
        return ""
    words = " ".join(f"data.splits.{name}={getattr(shares, name):g}" for name in SPLITS[1:])
    return f"; for a model that is trained already, set {words}"


def split(targets: np.ndarray, groups: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Sorted indices of each split in `shares`. targets, groups: int [n], counted from 0; samples of one group stay together.

    If each sample is its own group, every class has its exact share in every split, rounded up or down.
    """
    if not len(targets):
        return {name: np.zeros(0, np.int64) for name in shares}
    counts = np.zeros((groups.max() + 1, targets.max() + 1), np.int64)
    np.add.at(counts, (groups, targets), 1)
    required = [i for i, name in enumerate(shares) if name in NEED_EVERY_CLASS and "train" in shares]
    chosen = _choose_splits(counts, np.array(list(shares.values())), required, np.random.default_rng(seed))[groups]
    return {name: np.flatnonzero(chosen == i) for i, name in enumerate(shares)}


def _choose_splits(counts: np.ndarray, shares: np.ndarray, required: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    """The split of each group, greedily: rare classes first, within a class large groups first.

    counts: samples [group, class]. required: splits that need samples of every class.
    """
    wanted = np.outer(counts.sum(0), shares)
    taken = np.zeros_like(wanted)
    chosen = np.full(len(counts), -1)
    order = np.argsort(counts.sum(0), kind="stable")
    for rank, label in enumerate(order):
        carried = (wanted - taken)[order[:rank]].sum(0)
        mine = generator.permutation(np.flatnonzero((counts[:, label] > 0) & (chosen < 0)))
        mine = mine[np.argsort(-counts[mine].sum(1), kind="stable")]
        for done, group in enumerate(mine):
            missing = [s for s in required if not taken[label, s]]
            allowed = missing if len(mine) - done <= len(missing) else range(len(shares))
            best = _rank_splits(wanted[label] - taken[label], counts[group, label], shares, carried)
            chosen[group] = next(s for s in best if s in allowed)
            taken[:, chosen[group]] += counts[group]
    return chosen


def _rank_splits(lack: np.ndarray, size: int, shares: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Splits in descending order of how many samples of a class they lack.

    Splits that lack at least `size` samples, a whole group, come first, in proportion to their share, so that large and small groups
    are spread over all splits. The others round up. `carried` is what rounding took from each split in earlier classes; without it,
    many small classes would all leave the same split empty.
    """
    fits = lack >= size - TOLERANCE
    return np.lexsort((np.where(fits, lack / shares, lack + carried), lack > TOLERANCE, fits))[::-1]


def find_copies(items: Sequence[Item]) -> dict[str, Any]:
    """How many samples repeat the content of an earlier one, and which of them have another label."""
    first: dict[str, Item] = {}
    again = [(first[item.sha256], item) for item in items if first.setdefault(item.sha256, item) is not item]
    conflicts = [f"{one.name} = {other.name}" for one, other in again if one.label != other.label]
    return {"count": len(again), "with_another_label": len(conflicts), "named": conflicts[:MAX_LISTED]}


def count_shared_groups(groups: np.ndarray, splits: Mapping[str, np.ndarray]) -> int:
    """Number of groups in more than one split: above 0 only if the data's own splits leak."""
    return sum(len(set(groups[indices])) for indices in splits.values()) - len(set(groups))


def list_warnings(details: Mapping[str, Any]) -> list[str]:
    """What the user should know about a prepared data set, although nothing is wrong enough to stop."""
    unreadable, copied, leaks = details["unreadable"], details["copies"], details["groups_in_two_splits"]
    found = [DECLARED[details["declared"]]] if details.get("declared") else []
    if unreadable["count"]:
        named = "; ".join(f"{name}: {reason}" for name, reason in unreadable["named"].items())
        found.append(f"{unreadable['count']} samples could not be read and are skipped: {named}")
    for what, where in details.get("problems", {}).items():
        more = " ..." if where["count"] > len(where["named"]) else ""
        found.append(f"{where['count']} {what}: {', '.join(where['named'])}{more}")
    if copied["with_another_label"]:
        found.append(f"{copied['with_another_label']} samples have a copy with another label: {', '.join(copied['named'])}")
    if leaks:
        found.append(f"{leaks} groups (or copies of a file) are in two of the data's own splits: scores will be too good")
    counts = details["counts"] if "objects" not in details and "pixels" not in details else {"test": details["counts"]["test"]}
    return [*found, *warn_of_absent_labels(counts)]


def warn_of_absent_labels(counts: Mapping[str, Mapping[str, int]]) -> list[str]:
    """One line for each split that lacks some labels. counts: number of samples by split and label."""
    found = []
    for name, by_label in counts.items():
        absent = [label for label, count in by_label.items() if not count]
        if absent and len(absent) < len(by_label):
            more = f" and {len(absent) - MAX_LISTED} more" if len(absent) > MAX_LISTED else ""
            found.append(f"{name} has no sample of: {', '.join(absent[:MAX_LISTED])}{more}")
    return found
