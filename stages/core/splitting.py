"""Divide a data set into train, validation, calibration and test: stratified by label, by seed, never through a group.

scikit-learn has this for equal folds only (StratifiedGroupKFold), not for shares.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stages.core.errors import ConfigError
from stages.core.settings import option

SPLITS = ("train", "validation", "calibration", "test")
JUDGED = (0, 3)  # train and test: a class must be in both to be learned and judged
TINY = 1e-9  # shares are not exact in binary


@dataclass(frozen=True, kw_only=True)
class Shares:
    """Shares of the samples; the training split gets what they leave."""

    validation: float = option(0.1, "share that picks the best epoch and thresholds", low=0.001, high=0.9)
    calibration: float = option(0.1, "share that quantization looks at", low=0.001, high=0.9)
    test: float = option(0.2, "share that every variant is judged on", low=0.001, high=0.9)

    def __post_init__(self) -> None:
        if self.train < 0.001:
            total = self.validation + self.calibration + self.test
            raise ConfigError(
                f"data.splits: {total:.3g} in all leaves nothing to train on; validation + calibration + test must be below 1"
            )

    @property
    def train(self) -> float:
        return 1.0 - self.validation - self.calibration - self.test

    def as_tuple(self) -> tuple[float, ...]:
        return tuple(getattr(self, name) for name in SPLITS)


def split(targets: np.ndarray, groups: np.ndarray, shares: Shares, seed: int) -> dict[str, np.ndarray]:
    """Indices of each split, sorted. targets, groups: int [n], numbered from 0 on; samples of one group stay together.

    Without groups (each sample its own) every class is in every split with its exact share, rounded up or down.
    """
    members = np.zeros((groups.max() + 1, targets.max() + 1), np.int64)
    np.add.at(members, (groups, targets), 1)
    chosen = _deal(members, np.asarray(shares.as_tuple()), np.random.default_rng(seed))[groups]
    return {name: np.flatnonzero(chosen == i) for i, name in enumerate(SPLITS)}


def _deal(members: np.ndarray, shares: np.ndarray, generator: np.random.Generator) -> np.ndarray:
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
            missing = [s for s in JUDGED if not taken[label, s]]
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


def counts(targets: np.ndarray, splits: Mapping[str, np.ndarray], labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """Samples by split and label."""
    return {
        name: dict(zip(labels, np.bincount(targets[indices], minlength=len(labels)).tolist(), strict=True))
        for name, indices in splits.items()
    }
