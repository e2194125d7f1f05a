"""The predictions of a variant as models/evaluate/V holds them, and what tasks keep of its outputs (Task.condense)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import ragged
from edgewise.artifacts import artifact, targets
from edgewise.errors import DataError
from edgewise.plugins import Arrays, Predictions

OUTPUTS = "outputs.npz"  # what the task keeps of each output


def keep_scores(settings: Any, spec: Mapping[str, Any], outputs: Arrays) -> Arrays:
    """The output with one value for each label."""
    name = spec["output"]
    return {name: outputs[name]}


def keep_all(settings: Any, spec: Mapping[str, Any], outputs: Arrays) -> Arrays:
    return outputs


def read_predictions(folder: Path) -> Predictions | None:
    """The predictions on the test split that `evaluate` wrote into `folder`; None if the variant failed before it made any."""
    made = artifact.read(folder)
    if not made.ok:
        return None
    with np.load(folder / OUTPUTS) as stored:
        ports = ragged.unpack(dict(stored))
    truth = targets.unpack(targets.load(folder, made.details.get("targets", targets.CLASSES)))
    return Predictions(ports, truth, made.labels, made.details)


def write_outputs(folder: Path, ports: Mapping[str, np.ndarray]) -> None:
    """Write what the task keeps of each output, for `read_predictions`."""
    np.savez(folder / OUTPUTS, **ragged.pack(ports))  # type: ignore[arg-type]


def are_same(one: Predictions, other: Predictions) -> bool:
    """Whether what was kept of all outputs is the same bit by bit."""
    first, second = (ragged.pack(predictions.ports) for predictions in (one, other))
    return first.keys() == second.keys() and all(np.array_equal(array, second[name]) for name, array in first.items())


def require_split(answers: Mapping[str, Predictions], split: str, more: str = "") -> Predictions:
    """The predictions on a split. DataError if it is empty. more: what else could be done about it."""
    if split in answers:
        return answers[split]
    raise DataError(f"data.splits.{split}: the split is empty, but the task needs it; give it a share, for example 0.1{more}")


def count_samples(kept: Mapping[str, np.ndarray]) -> int:
    """Number of samples of what was kept (see Task.condense)."""
    return len(kept.get("counts", next(iter(kept.values()))))
