"""Optuna's TPE sampler without repeated points: a point that is known already teaches the search nothing.

Plain TPE draws each key independently and repeats itself: of 27 trials on a grid of 108 about 17 are different points.
conf/sweep/search/*.yaml names the class by its dotted path; Hydra gives it the settings of hydra/sweeper/sampler: tpe.
"""

import warnings
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

DRAWS = 50  # tries by TPE for one trial, then as many at random; if all are known points, hardly any are left
Space = dict[str, BaseDistribution]


class NoRepeatTPESampler(TPESampler):
    def __init__(self, **settings: Any):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna 2.10 calls `multivariate` experimental
            super().__init__(**settings | {"multivariate": True, "warn_independent_sampling": False})
        self._drawn: list[dict[str, Any]] = []  # Hydra draws a whole batch before it adds the trials to the study

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """A value for every key. Empty for the first trial, whose keys are not known yet: Optuna then draws each at random."""
        known = [*self._drawn, *(other.params for other in study.get_trials(deepcopy=False) if other.number != trial.number)]
        drawn: dict[str, Any] = {}
        for attempt in range(2 * DRAWS if search_space else 0):
            drawn = super().sample_relative(study, trial, search_space) if attempt < DRAWS else {}
            drawn = drawn or self.sample_randomly(study, trial, search_space)
            if drawn not in known:
                break
        self._drawn.append(drawn)
        return drawn

    def sample_randomly(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """As TPE samples before it has `n_startup_trials` results."""
        draw = self._random_sampler.sample_independent
        return {name: draw(study, trial, name, distribution) for name, distribution in search_space.items()}
