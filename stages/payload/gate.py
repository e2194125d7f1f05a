"""Whether a sample needs the rest of a model: how far its features lie from those of normal samples.

The distance is the mean of ((feature - mean) / std)^2 over the channels, each averaged over the picture: the squared Mahalanobis
distance with a diagonal covariance, per channel. Standard library and numpy; Python 3.9.
"""

from __future__ import annotations

import os
from typing import Dict, Mapping, Sequence

import numpy as np

FILE = "gate.npz"  # names, channel_axis, mean, std: of the features; limit: the largest distance at which the gate stays shut; answer:NAME


class Gate:
    """answers: what is said of a sample that does not pass, by output: what the whole model says of such samples in the mean."""

    def __init__(self, folder: str):
        with np.load(os.path.join(folder, FILE)) as stored:
            self._names = [str(name) for name in stored["names"]]
            self._axis, self._limit = int(stored["channel_axis"]), float(stored["limit"])
            self._mean, self._std = stored["mean"], stored["std"]
            self.answers = {key[len("answer:") :]: stored[key] for key in stored.files if key.startswith("answer:")}

    def opens(self, known: Mapping[str, np.ndarray]) -> np.ndarray:
        """bool [n]: the samples that the rest of the model has to look at."""
        return distances(pooled(known, self._names, self._axis), self._mean, self._std) > self._limit


def pooled(known: Mapping[str, np.ndarray], names: Sequence[str], channel_axis: int) -> np.ndarray:
    """float32 [n, channels of all features]: each channel averaged over all else of a sample."""
    return np.concatenate([_channels(np.asarray(known[name], np.float32), channel_axis) for name in names], axis=1)


def _channels(feature: np.ndarray, channel_axis: int) -> np.ndarray:
    if feature.ndim == 1:
        return feature[:, None]
    return np.moveaxis(feature, channel_axis, 1).reshape(len(feature), feature.shape[channel_axis], -1).mean(axis=2)


def distances(features: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """float32 [n]."""
    return (((features - mean) / std) ** 2).mean(axis=1)


def passed(answers: Mapping[str, np.ndarray], opened: np.ndarray, rest: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
    """The outputs for all samples: `rest` holds those of the samples that passed, in their order."""
    every = {name: np.repeat(answer[None], len(opened), axis=0) for name, answer in answers.items()}
    for name, array in rest.items():
        every[name][opened] = array
    return every
