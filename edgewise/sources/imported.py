"""What all sources of a user's file share: recording its outputs as the oracle of every variant, and trying its preprocessing."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import ragged
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import trial
from edgewise.sources.oracle import Oracle, PortSettings
from edgewise.stats.agreement import as_rows

PROBE_SAMPLES = 16


@dataclass(frozen=True, kw_only=True)
class Settings(PortSettings):
    """Settings that every source of a file has."""

    path: str = option(help="file of the model")
    step_ms: float | None = option(None, "of a model with state: how much time one step covers, for the real-time factor", low=0.001)


def make_probe(samples: Samples) -> dict[str, np.ndarray]:
    """The samples of the oracle, from the calibration split."""
    return samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))


def record(settings: Settings, oracle: Oracle, samples: Samples, folder: Path) -> dict[str, Any]:
    """Write probe.npz and return the manifest fields that all sources of a file have.

    ModelError for NaN, and for a setting that the outputs contradict.
    """
    feeds = make_probe(samples)
    results = oracle.run(feeds)
    broken = [name for name, array in results.items() if not np.isfinite(as_rows(array)).all()]
    if broken:
        where = ", ".join(broken)
        raise ModelError(f"model.path: {settings.path} returns NaN or infinite values in {where}; check its weights and the preprocessing")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()} | {f"out:{name}": a for name, a in results.items()}
    np.savez(folder / "probe.npz", **ragged.pack(stored))  # type: ignore[arg-type]
    fit = oracle.fit
    meanings = {fit.scored: find_meaning(settings, results[fit.scored])} if fit.scored else {}
    outputs = [replace(port, meaning=meanings.get(port.name, port.meaning)) for port in fit.renamed(fit.outputs)]
    details = {"step_ms": settings.step_ms} if settings.step_ms is not None else {}
    return {
        "inputs": [asdict(port) for port in fit.renamed(fit.inputs)],
        "outputs": [asdict(port) for port in outputs],
        "details": details,
        "training": {"accuracy_validation": None, "epochs": 0, "curve": [], **_try_preprocessing(oracle, samples)},
    }


def _try_preprocessing(oracle: Oracle, samples: Samples) -> dict[str, Any]:
    """Entries of metrics/train.json: how right the source is, and a warning where other preprocessing does better."""
    found = trial.try_preprocessing(oracle.run, samples, oracle.fit.scored)
    if found is None:
        return {}
    warnings = {"warnings": [found.warning]} if found.warning else {}
    return {"tried_samples": found.samples, "tried": found.words, **warnings}


def find_meaning(settings: Settings, scores: np.ndarray) -> str:
    """`logits` or `probabilities`. ModelError if the setting says probabilities and the scores cannot be."""
    bounded = bool(scores.min() >= 0 and scores.max() <= 1)
    if settings.scores == "probabilities" and not bounded:
        raise ModelError(
            f"model.scores: {settings.scores!r}, but {settings.path} returns {scores.min():.3g} to {scores.max():.3g}; set it to logits"
        )
    return settings.scores or ("probabilities" if bounded else "logits")
