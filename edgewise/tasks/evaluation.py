"""Evaluate a variant: its predictions on the splits that the task needs, through its format's own session, and their scores."""

import os
from pathlib import Path

import numpy as np

from edgewise.agent import sessions
from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.records import Evaluation
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.config.settings import build
from edgewise.errors import DataError, VariantFailed
from edgewise.plugins import Predictions
from edgewise.proof import isolation

MODELS, METRICS = Path("models"), Path("metrics")
CHUNK = 256  # samples that are preprocessed and held in memory at a time


def evaluate(variant: schema.Variant, made: Manifest, task: schema.Plugin) -> Evaluation:
    """Write models/evaluate/V (outputs, targets, details) and return the scores. VariantFailed if outputs are not finite."""
    module, samples = task.load(), Samples.open(MODELS / "data")
    with isolation.translate_missing_runtime(variant.module):
        given = {split: predict(variant, made, samples, split) for split in module.SPLITS}
    judged, test = module.judge(build(module.Settings, task.settings, "task"), given), given["test"]
    with artifact.building(MODELS / "evaluate" / variant.name) as folder:
        np.save(folder / "outputs.npy", test.outputs)
        np.save(folder / "targets.npy", test.targets)
        artifact.write_json(folder / "details.json", judged.details)
        details = {**test.spec, **judged.decision}
        artifact.write(folder, Manifest(kind="evaluation", format=made.format, scheme=made.scheme, labels=samples.labels, details=details))
    return Evaluation(len(test.targets), made.size_bytes, made.details["covered_share"], dict(judged.scores))


def run_variant(variant: schema.Variant, samples: Samples, indices: np.ndarray) -> np.ndarray:
    """The first output of the variant for these samples, float32 [n, ...]."""
    from tqdm import tqdm

    settings = {"threads": os.cpu_count() or 1, **variant.engine}
    session = sessions.load(schema.part(variant.module, "run"), str(MODELS / "variants" / variant.name), settings, keep=True)
    starts = tqdm(
        range(0, len(indices), CHUNK), desc=f"evaluate {variant.name}", unit="chunk", disable=len(indices) <= CHUNK, mininterval=1
    )
    answers = [sessions.run_batched(session, samples.feeds(indices[start : start + CHUNK])) for start in starts]
    return np.concatenate([next(iter(answer.values())) for answer in answers]).astype(np.float32)


def predict(variant: schema.Variant, made: Manifest, samples: Samples, split: str) -> Predictions:
    """Predictions on one split. DataError if it is empty; VariantFailed if outputs are NaN or infinite."""
    indices = samples.indices(split)
    if not len(indices):
        raise DataError(f"data.splits.{split}: the split is empty, but the task needs it; give it a share, for example 0.1")
    given = run_variant(variant, samples, indices)
    broken = ~np.isfinite(given.reshape(len(given), -1)).all(axis=1)
    if broken.any():
        raise VariantFailed(f"{np.sum(broken)} of {len(given)} {split} samples have NaN or infinite outputs")
    known = {"meaning": made.outputs[0].meaning, "normal": samples.normal}
    return Predictions(given, samples.targets(indices), samples.labels, {key: value for key, value in known.items() if value is not None})
