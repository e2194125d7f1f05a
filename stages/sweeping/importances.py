"""What a search tells of its keys: Optuna's importances, from the stored results alone.

Mean decrease of impurity in a forest; the fANOVA of this Optuna fails on arrays of numpy 1.25 and newer.
"""

import warnings
from collections.abc import Mapping, Sequence

FEWEST = 8  # points, below which a forest of trees tells nothing


def importances(points: Sequence[Mapping[str, str]], values: Sequence[float], keys: Sequence[str]) -> dict[str, float]:
    """{key: share}, largest first, adding up to 1; empty where the points are too few or all alike."""
    kept = [key for key in keys if len({point.get(key) for point in points}) > 1 and all(key in point for point in points)]
    if len(points) < FEWEST or not kept or len(set(values)) < 2:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    distributions = {key: optuna.distributions.CategoricalDistribution(sorted({point[key] for point in points})) for key in kept}
    study = optuna.create_study()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # Optuna 2.10 calls trials from stored results one
        for point, value in zip(points, values, strict=True):
            params = {key: point[key] for key in kept}
            study.add_trial(optuna.trial.create_trial(params=params, distributions=distributions, value=value))
    judge = optuna.importance.MeanDecreaseImpurityImportanceEvaluator(seed=0)
    return {key: float(share) for key, share in optuna.importance.get_param_importances(study, evaluator=judge).items()}
