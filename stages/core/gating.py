"""The gate of a lazily loaded model: fitted to normal samples of the calibration split, see payload.gate."""

from pathlib import Path
from typing import Any

import numpy as np

from stages.core import config
from stages.core.errors import VariantFailed
from stages.core.samples import Samples
from stages.payload import gate, parts
from stages.payload.batches import run_batched

LEAST_NORMAL = 16  # samples that a mean and a spread of each channel may rest on
LEAST_STD = 1e-6  # a channel that never changes would divide by nothing


def fit(variant: config.Variant, samples: Samples, channel_axis: int, folder: Path) -> dict[str, Any]:
    """Write gate.npz beside the parts in `folder`. Returns what the manifest says of it. VariantFailed without enough normal samples."""
    indices = samples.indices("calibration")
    normal = indices[samples.targets(indices) == samples.normal] if samples.normal is not None else indices[:0]
    if len(normal) < LEAST_NORMAL:
        raise VariantFailed(
            f"load.mode lazy: {len(normal)} normal samples in the calibration split, the gate needs {LEAST_NORMAL}; "
            "name their label in data.normal, enlarge data.splits.calibration, or use mode split"
        )
    feeds, run = samples.feeds(normal), config.part(variant.module, "run")
    settings = {"threads": 1, **variant.engine}
    first = run.load(str(folder / parts.names(str(folder))[0]), settings)
    features = run_batched(first, feeds)
    names = list(features)
    rows = gate.pooled(features, names, channel_axis)
    mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), LEAST_STD)
    distances = gate.distances(rows, mean, std)
    limit = float(np.quantile(distances, variant.load.shut_share))
    shut = distances <= limit
    answers = {
        f"answer:{name}": array[shut].mean(axis=0) for name, array in run_batched(parts.load(run, str(folder), settings), feeds).items()
    }
    np.savez(folder / gate.FILE, names=names, channel_axis=channel_axis, mean=mean, std=std, limit=limit, **answers)
    return {"gate_limit": limit, "gate_normal_samples": len(normal)}
