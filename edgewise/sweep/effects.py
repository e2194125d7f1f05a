"""Which swept key matters how much: main effects by least squares, and for a search Optuna's importances.

y = mean + sum over keys of effect(level) + residual, where the effects of a key add up to 0 (sum-to-zero coding: Fox, Applied
Regression Analysis, 3rd ed., 8.2). Intervals are Student's t of the residuals: what the effects leave unexplained, which is measurement
noise and interactions between keys.
"""

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgewise.stats.timing import t_quantile

CONFIDENCE = 0.95
MOST_LEVELS = 6  # more numbers than this are binned into three classes of about equal size
ROUNDING = 1e-12  # relative to the largest value: what is smaller is rounding error
MIN_POINTS = 8  # points; from fewer a forest learns nothing
Settings = Mapping[str, str]


@dataclass(frozen=True)
class Level:
    """One value of a key. effect: against the mean of all levels, in units of the objective; None where it cannot be estimated. ci95: None
    where there are no degrees of freedom left."""

    points: int
    mean: float
    effect: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class Effect:
    """One key. share: of the variance that this key explains alone (eta squared); None where it cannot be estimated."""

    share: float | None
    levels: Mapping[str, Level]


def main_effects(points: Sequence[Settings], values: Sequence[float], keys: Sequence[str]) -> dict[str, Effect]:
    """The effect of every key on one objective. points: settings as strings; values: the objective, one for each point."""
    columns = {key: bin_numbers([point.get(key, "") for point in points]) for key in keys}
    columns = {key: column for key, column in columns.items() if len(set(column)) > 1}
    y = np.array(values, dtype=float)
    fit = Fit.of(columns, y)
    return {key: fit.effect(key, column, y) for key, column in columns.items()}


def bin_numbers(values: Sequence[str]) -> list[str]:
    """The values as they are; more than MOST_LEVELS different numbers become terciles such as "8 to 40"."""
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        return list(values)
    if len(set(values)) <= MOST_LEVELS or not np.isfinite(numbers).all():
        return list(values)
    place = np.digitize(numbers, np.quantile(numbers, [1 / 3, 2 / 3]), right=True)
    names = {i: f"{numbers[place == i].min():g} to {numbers[place == i].max():g}" for i in set(place.tolist())}
    return [names[i] for i in place.tolist()]


@dataclass(frozen=True)
class Fit:
    """The least-squares fit. places: the columns of each key in `design`, one fewer than it has levels."""

    design: np.ndarray
    places: Mapping[str, range]
    coefficients: np.ndarray
    covariance: np.ndarray | None
    freedom: int
    unexplained: float

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[str]], y: np.ndarray) -> "Fit":
        blocks, places, width = [np.ones((len(y), 1))], {}, 1
        for key, column in columns.items():
            block = contrasts(column)
            blocks.append(block)
            places[key] = range(width, width + block.shape[1])
            width += block.shape[1]
        design = np.hstack(blocks)
        coefficients, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
        rounding = ROUNDING * np.abs(y).max(initial=0)
        coefficients[np.abs(coefficients) < rounding] = 0.0
        unexplained = float(np.sum(np.where(np.abs(left := y - design @ coefficients) < rounding, 0.0, left) ** 2))
        freedom = len(y) - rank
        known = rank == width and freedom > 0
        covariance = np.linalg.inv(design.T @ design) * unexplained / freedom if known else None
        return cls(design, places, coefficients if rank == width else np.full(width, np.nan), covariance, freedom, unexplained)

    def effect(self, key: str, column: Sequence[str], y: np.ndarray) -> Effect:
        levels = {}
        for number, name in enumerate(sorted(set(column), key=level_order)):
            chosen = np.array([value == name for value in column])
            row = np.zeros(len(self.coefficients))
            row[self.places[key]] = level_coding(number, len(set(column)))
            effect = float(row @ self.coefficients)
            estimate = None if np.isnan(effect) else effect
            levels[name] = Level(int(chosen.sum()), float(y[chosen].mean()), estimate, self.interval(row, effect))
        return Effect(self.share(key, y), levels)

    def interval(self, row: np.ndarray, effect: float) -> tuple[float, float] | None:
        if self.covariance is None:
            return None
        half = t_quantile(0.5 + CONFIDENCE / 2, int(self.freedom)) * math.sqrt(max(0.0, row @ self.covariance @ row))
        return effect - half, effect + half

    def share(self, key: str, y: np.ndarray) -> float | None:
        """Eta squared: the rise of the residual sum of squares without the key, over the total sum of squares."""
        total = float(np.sum((y - y.mean()) ** 2))
        if np.isnan(self.coefficients).any() or total == 0:
            return None
        rest = np.delete(self.design, list(self.places[key]), axis=1)
        left = y - rest @ np.linalg.lstsq(rest, y, rcond=None)[0]
        return max(0.0, (float(np.sum(left**2)) - self.unexplained) / total)


def contrasts(column: Sequence[str]) -> np.ndarray:
    """Sum-to-zero coding of a column: [points, levels - 1]."""
    names = sorted(set(column), key=level_order)
    return np.array([level_coding(names.index(value), len(names)) for value in column])


def level_coding(level: int, levels: int) -> np.ndarray:
    """The row of one level, [levels - 1]; the last level is minus the sum of the others."""
    return np.full(levels - 1, -1.0) if level == levels - 1 else np.eye(levels - 1)[level]


def level_order(name: str) -> tuple[int, float, str]:
    """Sort key: numbers by size, before words."""
    try:
        number = float(name.split(" ")[0])
    except ValueError:
        number = math.nan
    return (0, number, name) if math.isfinite(number) else (1, 0.0, name)


def importances(points: Sequence[Mapping[str, str]], values: Sequence[float], keys: Sequence[str]) -> dict[str, float]:
    """Optuna's importances on one objective: {key: share}, largest first, sum 1; empty where the points are too few or all equal.

    Mean decrease of impurity in a forest of trees, since the fANOVA of Optuna 2.10 fails with NumPy 1.25 and later.
    """
    kept = [key for key in keys if len({point.get(key) for point in points}) > 1 and all(key in point for point in points)]
    if len(points) < MIN_POINTS or not kept or len(set(values)) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)
    distributions = {key: optuna.distributions.CategoricalDistribution(sorted({point[key] for point in points})) for key in kept}
    study = optuna.create_study()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # Optuna 2.10 calls create_trial experimental
        for point, value in zip(points, values, strict=True):
            params = {key: point[key] for key in kept}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    judge = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    return {key: float(share) for key, share in optuna.importance.get_param_importances(study, evaluator=judge).items()}
