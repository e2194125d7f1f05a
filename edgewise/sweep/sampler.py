"""Optuna's TPE that asks for no point twice: a known point is restored, and has taught the search nothing.

Plain TPE draws each key on its own from the good ones and comes back: of 27 trials on a grid of 108 about 17 are different points.
Named by its dotted path in conf/sweep/search/*.yaml; Hydra gives it the settings of hydra/sweeper/sampler: tpe.
"""

import warnings
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

DRAWS = 50  # of TPE for one trial; when all are known, as many by chance; when these are known too, next to nothing is left
Space = dict[str, BaseDistribution]


class UnrepeatedTPE(TPESampler):
    def __init__(self, **settings: Any):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # Optuna 2.10 calls `multivariate` one
            super().__init__(**settings | {"multivariate": True, "warn_independent_sampling": False})
        self._drawn: list[dict[str, Any]] = []  # Hydra asks for all of a batch before it notes what it got

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """All keys at once. Empty for the first trial, before which nobody knows the keys: Optuna then draws each by chance."""
        known = [*self._drawn, *(other.params for other in study.get_trials(deepcopy=False) if other.number != trial.number)]
        drawn: dict[str, Any] = {}
        for attempt in range(2 * DRAWS if search_space else 0):
            drawn = super().sample_relative(study, trial, search_space) if attempt < DRAWS else {}
            drawn = drawn or self.by_chance(study, trial, search_space)
            if drawn not in known:
                break
        self._drawn.append(drawn)
        return drawn

    def by_chance(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """As TPE draws until it has `n_startup_trials` results."""
        draw = self._random_sampler.sample_independent
        return {name: draw(study, trial, name, distribution) for name, distribution in search_space.items()}
