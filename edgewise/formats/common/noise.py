"""What quantizing a layer adds to the outputs: the power of the error over the power of the output, of the part that suffers most.

Outputs are compared in parts, since boxes in pixels would hide what becomes of the scores beside them. A part is an index into an output.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Parts = Mapping[str, Sequence[Any]]  # output -> indices into [n, ...], of the parts that are compared, each by itself


def cut(outputs: Mapping[str, np.ndarray], parts: Parts) -> list[np.ndarray]:
    """The parts of the outputs, float64 [n, ...]."""
    return [outputs[name][index].astype(np.float64) for name, indices in parts.items() for index in indices]


def sum_errors(exact: Sequence[np.ndarray], given: Sequence[np.ndarray]) -> np.ndarray:
    """The sum of squared errors of each part. exact, given: of `cut`."""
    return np.array([np.sum((mine - other) ** 2) for mine, other in zip(given, exact, strict=True)])


def find_noise(errors: np.ndarray, exact: Sequence[np.ndarray]) -> float:
    """Noise over signal of the part where it is largest: its errors over its power about the mean of the samples, as
    stats.agreement.sqnr_db has it. errors: of `sum_errors`; exact: of `cut`, all samples."""
    signals = [max(float(np.sum((part - part.mean(axis=0)) ** 2)), 1e-30) for part in exact]
    return float(np.max(errors / np.array(signals)))
