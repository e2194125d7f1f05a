"""What all sources of a user's file share: recording its outputs as the oracle of every variant, and trying its preprocessing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import ragged
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import MASKS
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import trial
from edgewise.sources.oracle import Oracle, PortSettings
from edgewise.stats.agreement import as_rows

PROBE_SAMPLES = 16
PROBABILITIES = "probabilities"
PAIR = 2  # samples that are run again
UNSTEADY = 0.1  # RMS difference, as a share of the outputs' size: rounding, also of ranges found over a batch, stays far below


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
    influenced = check_steady(settings.path, oracle, feeds, results)
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()} | {f"out:{name}": a for name, a in results.items()}
    np.savez(folder / "probe.npz", **ragged.pack(stored))  # type: ignore[arg-type]
    fit = oracle.fit
    meanings = {fit.scored: find_meaning(settings, results[fit.scored])} if fit.scored else {}
    meanings |= {name: PROBABILITIES for name, array in results.items() if samples.kind == MASKS and is_bounded(array)}
    outputs = [replace(port, meaning=meanings.get(port.name, port.meaning)) for port in fit.rename_outputs()]
    details = {"step_ms": settings.step_ms} if settings.step_ms is not None else {}
    return {
        "inputs": [asdict(port) for port in fit.rename_inputs()],
        "outputs": [asdict(port) for port in outputs],
        "details": details,
        "training": {"accuracy_validation": None, "epochs": 0, "curve": [], **_try_preprocessing(oracle, samples, influenced)},
    }


def check_steady(path: Any, oracle: Oracle, feeds: Mapping[str, np.ndarray], results: Mapping[str, np.ndarray]) -> list[str]:
    """A warning where samples get other outputs beside other samples. results: of all feeds. ModelError for outputs that differ from run to
    run."""
    few = {name: array[:PAIR] for name, array in feeds.items()}
    first, second = oracle.run(few), oracle.run(few)
    random = [name for name in first if _differ(first[name], second[name])]
    if random:
        raise ModelError(
            f"model.path: {path} gives another {', '.join(random)} each time for the same samples, so that nothing can be compared"
            " with it; export it in evaluation mode, without dropout and random numbers, or keep other outputs with model.outputs=[NAMES]"
        )
    moved = [name for name in first if _differ(results[name][:PAIR], first[name])]
    if not moved:
        return []
    inputs = ", ".join(f"{port.name} {list(port.shape)}".replace("None", "any") for port in oracle.fit.fed)
    return [
        f"what a sample gets in {', '.join(moved)} depends on the samples beside it: the axis that counts samples may be another one"
        f" (the inputs are {inputs}); set it with model.inputs={{NAME: {{sample_axis: 1}}}}"
    ]


def _differ(one: np.ndarray, other: np.ndarray) -> bool:
    one, other = as_rows(one), as_rows(other)
    if one.shape != other.shape:
        return True
    size = np.sqrt(np.mean(one.astype(np.float64) ** 2)) if one.size else 0.0
    return bool(one.size) and bool(np.sqrt(np.mean((one.astype(np.float64) - other) ** 2)) > UNSTEADY * size)


def _try_preprocessing(oracle: Oracle, samples: Samples, warnings: Sequence[str]) -> dict[str, Any]:
    """Entries of metrics/train.json: how right the source is, and a warning where other preprocessing does better, after these."""
    found = trial.try_preprocessing(oracle.run, samples, oracle.fit.scored)
    every = [*warnings, *([found.warning] if found and found.warning else [])]
    told = {"tried_samples": found.samples, "tried": found.words} if found else {}
    return {**told, **({"warnings": every} if every else {})}


def is_bounded(array: np.ndarray) -> bool:
    """Whether these are floating numbers that may be probabilities, of scores or of maps."""
    return bool(array.dtype.kind == "f" and array.size and array.min() >= 0 and array.max() <= 1)


def find_meaning(settings: Settings, scores: np.ndarray) -> str:
    """`logits` or `probabilities`. ModelError if the setting says probabilities and the scores cannot be."""
    bounded = is_bounded(scores)
    if settings.scores == "probabilities" and not bounded:
        raise ModelError(
            f"model.scores: {settings.scores!r}, but {settings.path} returns {scores.min():.3g} to {scores.max():.3g}; set it to logits"
        )
    return settings.scores or (PROBABILITIES if bounded else "logits")
