"""What a task (tasks/NAME.py) takes and gives: how good the answers of one variant are, and how they compare with the reference's."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PrimaryMetric:
    """The one score that variants are judged by. name: in metrics; stem: what the names of its differences begin with (accuracy_delta).

    label: on axes; title: at the head of a column. share: from 0 to 1, shown in per cent, its differences in percentage points;
    otherwise in the unit of the targets, and a loss counts in per cent of the reference's score.
    """

    name: str
    stem: str
    label: str
    title: str
    higher_is_better: bool = True
    share: bool = True

    @property
    def worse(self) -> str:
        """What a score is that has become worse."""
        return "lower" if self.higher_is_better else "higher"

    @property
    def unit(self) -> str:
        return "points" if self.share else "%"

    def cost(self, score: float) -> float:
        """The score turned so that less is better."""
        return -score if self.higher_is_better else score

    def percent(self, base: float | None) -> float:
        """What makes a difference of scores into `unit`. base: the reference's score."""
        return 100.0 if self.share else 100.0 / (abs(base or 0.0) or 1.0)


@dataclass(frozen=True)
class Predictions:
    """What a variant answered for the samples of a split, in their order.

    outputs: float32 [n, ...]; targets: int [n] or float32 [n, k]. spec: how an answer is made of outputs, see payload.answer; while a
    variant is judged only `meaning` and `normal` of it are known, afterwards what `judge` decided.
    """

    outputs: np.ndarray
    targets: np.ndarray
    labels: tuple[str, ...] = ()
    spec: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """scores: numbers by name, the primary metric's among them, and their 95 % intervals as NAME_ci95.

    details: plain data for details.json.
    decision: how an answer is made of outputs (see payload.answer), with what was settled on the validation split; it stands in the
    manifest and goes to the device."""

    scores: Mapping[str, Any]
    decision: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """A variant against the reference on the same samples. delta: of the primary metric, variant - reference.

    resolvable: the smallest difference that so many samples can show; needed: how many would show the difference that was seen,
    None where none was. scores: what else is known of the pair, by name.
    """

    delta: float
    delta_ci95: tuple[float, float]
    resolvable: float
    needed: int | None
    scores: Mapping[str, Any] = field(default_factory=dict)

    @property
    def resolved(self) -> bool:
        """Whether the interval excludes 0."""
        low, high = self.delta_ci95
        return low > 0 or high < 0

    def with_scores(self, **scores: Any) -> "Comparison":
        """With further scores of the pair, by name."""
        return replace(self, scores={**self.scores, **scores})


@dataclass(frozen=True)
class Decisions:
    """What was decided for each sample, as text, what is true of it, and whether they agree: bool [n]."""

    said: tuple[str, ...]
    truth: tuple[str, ...]
    right: np.ndarray
