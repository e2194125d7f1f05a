"""Divide a data set into train, validation, calibration and test: stratified by label, by seed, never through a group.

scikit-learn has this for equal folds only (StratifiedGroupKFold), not for shares.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgewise.config.settings import option
from edgewise.errors import ConfigError, DataError
from edgewise.plugins import Item

SPLITS = ("train", "validation", "calibration", "test")
JUDGED = ("train", "test")  # a class must be in both to be learned and judged
AS_IT_IS = ("calibration", "test")  # all that a model needs which learns nothing here
TINY = 1e-9  # shares are not exact in binary
LEAST = 0.001


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of the samples; the training split gets what they leave, nothing where a model is taken as it is."""

    validation: float = option(0.1, "share that picks the best epoch and thresholds", low=0.0, high=1.0)
    calibration: float = option(0.1, "share that quantization looks at", low=0.0, high=1.0)
    test: float = option(0.2, "share that every variant is judged on", low=0.0, high=1.0)

    def __post_init__(self) -> None:
        total = self.validation + self.calibration + self.test
        if total > 1 + TINY:
            raise ConfigError(f"data.splits: {total:.3g} in all; validation + calibration + test must be at most 1")

    @property
    def train(self) -> float:
        """At least a thousandth, or nothing."""
        left = 1.0 - self.validation - self.calibration - self.test
        return left if left >= LEAST else 0.0

    def open(self, bound: Set[str] = frozenset()) -> dict[str, float]:
        """The shares of what is to be dealt out, where the data brings its own samples for the splits in `bound`."""
        given = {name: getattr(self, name) for name in SPLITS[1:] if name not in bound}
        shares = {"train": 1.0 - sum(given.values()), **given}
        return {name: share for name, share in shares.items() if share >= LEAST}


def number_groups(items: Sequence[Item]) -> np.ndarray:
    """A number for each sample, int [n]: the same for samples that share a group or, as copies of one file, their hash."""
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while parent.setdefault(key, key) != key:
            key = parent[key]
        return key

    for item in items:
        if item.group is not None:
            parent[root(item.sha256)] = root(f"group {item.group}")
    return np.unique([root(item.sha256) for item in items], return_inverse=True)[1]


def divide(items: Sequence[Item], groups: np.ndarray, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Indices of each split, sorted: samples that the data binds to a split go there, all others are dealt out.

    Stratified by class; samples whose labels are numbers are all of one stratum.
    """
    strata = np.unique([item.label if isinstance(item.label, str) else "" for item in items], return_inverse=True)[1]
    bound = np.array([item.split or "" for item in items])
    free = np.flatnonzero(bound == "")
    dealt = split(strata[free], groups[free], shares.open(set(bound)), seed)
    return {
        name: np.sort(np.r_[free[dealt[name]] if name in dealt else [], np.flatnonzero(bound == name)]).astype(np.int64) for name in SPLITS
    }


def check(
    members: Mapping[str, np.ndarray],
    groups: np.ndarray,
    splits: Mapping[str, np.ndarray],
    shares: Shares = Shares(),
    learned: bool = True,
) -> None:
    """DataError unless every split that is to have samples has some, and, where the labels are learned here, train and test have
    some of each. members: the samples of each label, bool [n]."""
    for name in SPLITS:
        if not len(splits[name]) and (name in AS_IT_IS or getattr(shares, name)):
            raise DataError(
                f"data: {len(groups)} samples in {len(set(groups))} groups leave {name} empty; add samples or raise data.splits"
            )
    for label, mine in members.items() if learned and shares.train else ():
        if any(not mine[splits[name]].any() for name in JUDGED):
            raise DataError(
                f"data: class {label!r} has {mine.sum()} samples in {len(set(groups[mine]))} groups, not in both train and test; "
                "add more of it, or take it out"
            )


def split(targets: np.ndarray, groups: np.ndarray, shares: Mapping[str, float], seed: int) -> dict[str, np.ndarray]:
    """Indices of each split in `shares`, sorted. targets, groups: int [n], from 0 on; samples of one group stay together.

    Without groups (each sample its own) every class is in every split with its exact share, rounded up or down.
    """
    if not len(targets):
        return {name: np.zeros(0, np.int64) for name in shares}
    members = np.zeros((groups.max() + 1, targets.max() + 1), np.int64)
    np.add.at(members, (groups, targets), 1)
    judged = [i for i, name in enumerate(shares) if name in JUDGED]
    chosen = _deal(members, np.array(list(shares.values())), judged, np.random.default_rng(seed))[groups]
    return {name: np.flatnonzero(chosen == i) for i, name in enumerate(shares)}


def _deal(members: np.ndarray, shares: np.ndarray, judged: Sequence[int], generator: np.random.Generator) -> np.ndarray:
    """The split of each group. members: samples [group, class]. Rare classes first, in a class large groups first."""
    wanted = np.outer(members.sum(0), shares)
    taken = np.zeros_like(wanted)
    chosen = np.full(len(members), -1)
    order = np.argsort(members.sum(0), kind="stable")
    for rank, label in enumerate(order):
        carried = (wanted - taken)[order[:rank]].sum(0)
        mine = generator.permutation(np.flatnonzero((members[:, label] > 0) & (chosen < 0)))
        mine = mine[np.argsort(-members[mine].sum(1), kind="stable")]
        for dealt, group in enumerate(mine):
            missing = [s for s in judged if not taken[label, s]]
            allowed = missing if len(mine) - dealt <= len(missing) else range(len(shares))
            best = _neediest(wanted[label] - taken[label], members[group, label], shares, carried)
            chosen[group] = next(s for s in best if s in allowed)
            taken[:, chosen[group]] += members[group]
    return chosen


def _neediest(lack: np.ndarray, size: int, shares: np.ndarray, carried: np.ndarray) -> np.ndarray:
    """Splits by how much they lack of a class, most first.

    Those that lack a whole group of this size come first, by their share, so that large and small groups come into all splits alike.
    The others round up; carried is what rounding took from each in the classes before, or else many small classes would all leave the
    same split empty.
    """
    fits = lack >= size - TINY
    return np.lexsort((np.where(fits, lack / shares, lack + carried), lack > TINY, fits))[::-1]


# What the user should know about a prepared data set although nothing is wrong enough to stop.

NAMED = 20  # so many unreadable samples, or copies, are named in the manifest; all are counted


def copies(items: Sequence[Item]) -> dict[str, Any]:
    """Samples with the same content as one before, and those of them that have another label."""
    first: dict[str, Item] = {}
    again = [(first[item.sha256], item) for item in items if first.setdefault(item.sha256, item) is not item]
    torn = [f"{one.name} = {other.name}" for one, other in again if one.label != other.label]
    return {"count": len(again), "with_another_label": len(torn), "named": torn[:NAMED]}


def shared(groups: np.ndarray, splits: Mapping[str, np.ndarray]) -> int:
    """Groups in more than one split: only where the data brings splits that are not clean."""
    return sum(len(set(groups[indices])) for indices in splits.values()) - len(set(groups))


def notes(details: Mapping[str, Any]) -> list[str]:
    """What the user should know although nothing is wrong enough to stop."""
    unreadable, copied, leaks = details["unreadable"], details["copies"], details["groups_in_two_splits"]
    found = []
    if unreadable["count"]:
        named = "; ".join(f"{name}: {reason}" for name, reason in unreadable["named"].items())
        found.append(f"{unreadable['count']} samples could not be read and are left out: {named}")
    if copied["with_another_label"]:
        found.append(f"{copied['with_another_label']} samples have a copy with another label: {', '.join(copied['named'])}")
    if leaks:
        found.append(f"{leaks} groups (or copies of a file) are in two of the splits that the data brings: scores will be too good")
    for name, by_label in details["counts"].items():
        absent = [label for label, count in by_label.items() if not count]
        if absent and len(absent) < len(by_label):
            found.append(f"{name} has no sample of: {', '.join(absent)}")
    return found
