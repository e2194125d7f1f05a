"""What all sources of a user's file share: recording its outputs as the oracle of every variant, and trying its preprocessing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import trial
from edgewise.sources.inspection import Shape
from edgewise.sources.oracle import Oracle, PortSettings, format_shapes, suggest_settings

PROBE_SAMPLES = 16
MAX_LISTED = 5


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
    broken = [name for name, array in results.items() if not np.isfinite(array).all()]
    if broken:
        where = ", ".join(broken)
        raise ModelError(f"model.path: {settings.path} returns NaN or infinite values in {where}; check its weights and the preprocessing")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()} | {f"out:{name}": a for name, a in results.items()}
    np.savez(folder / "probe.npz", **stored)
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
    """Entries of metrics/train.json: how often the source is right, and a warning where other preprocessing does better."""
    scored = oracle.fit.scored
    found = trial.try_preprocessing(lambda feeds: oracle.run(feeds)[scored], samples) if scored else None
    if found is None:
        return {}
    warnings = {"warnings": [found.warning]} if found.warning else {}
    return {"tried_samples": found.samples, "tried_right": found.correct, **warnings}


def finish(settings: Settings, score: trial.Score, data: Manifest, samples: Samples, folder: Path) -> dict[str, Any]:
    """Write probe.npz and return the manifest fields that all sources of a file have. score: feeds [n, ...] to float32 [n, labels]."""
    feeds = make_probe(samples)
    scores = score(feeds)
    if not np.isfinite(scores).all():
        raise ModelError(f"model.path: {settings.path} returns NaN or infinite values; check its weights and the data's preprocessing")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()} | {"out:logits": scores}
    np.savez(folder / "probe.npz", **stored)
    found = trial.try_preprocessing(score, samples)
    warnings = [found.warning] if found and found.warning else []
    tried = {"tried_samples": found.samples, "tried_right": found.correct} if found else {}
    return {
        "inputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in data.inputs],
        "outputs": [
            {"name": "logits", "shape": [None, scores.shape[1]], "dtype": "float32", "meaning": find_meaning(settings, scores)},
        ],
        "training": {"accuracy_validation": None, "epochs": 0, "curve": [], **tried, **({"warnings": warnings} if warnings else {})},
    }


def find_meaning(settings: Settings, scores: np.ndarray) -> str:
    """`logits` or `probabilities`. ModelError if the setting says probabilities and the scores cannot be."""
    bounded = bool(scores.min() >= 0 and scores.max() <= 1)
    if settings.scores == "probabilities" and not bounded:
        raise ModelError(
            f"model.scores: {settings.scores!r}, but {settings.path} returns {scores.min():.3g} to {scores.max():.3g}; set it to logits"
        )
    return settings.scores or ("probabilities" if bounded else "logits")


def check_inputs(path: str | Path, accepted: Sequence[Shape], data: Manifest) -> None:
    """ModelError unless the model accepts the data's inputs, in order. accepted: shapes without the batch, None for a dynamic dimension."""
    given = [tensor.shape[1:] for tensor in data.inputs]
    if len(accepted) == len(given) and all(_matches(*pair) for pair in zip(accepted, given, strict=True)):
        return
    expected, actual = format_shapes(accepted), format_shapes(given)
    advice = suggest_settings(accepted, data)
    raise ModelError(f"model.path: {path} expects {expected}, the data has {actual} (without the batch); {advice}")


def check_outputs(path: str | Path, given: Sequence[Shape], data: Manifest) -> int:
    """Index of the output that has one score per label. ModelError if none has. given: shapes without the batch."""
    places = [place for place, shape in enumerate(given) if list(shape) == [len(data.labels)]]
    if places:
        return places[0]
    shown = ", ".join(data.labels[:MAX_LISTED]) + (" ..." if len(data.labels) > MAX_LISTED else "")
    raise ModelError(
        f"model.path: {path} returns {format_shapes(given)}, the data has {len(data.labels)} labels ({shown}); name the model's own classes"
        " with data.label_names=FILE (and data.label_offset=1 if it has a background class), or use the data that it was trained for"
    )


def _matches(accepted: Shape, given: Shape) -> bool:
    return len(accepted) == len(given) and all(a in (None, b) for a, b in zip(accepted, given, strict=True))
