"""evaluate@V: the variant on the whole test split, through its format's own session, judged as the task says.

    python -m stages.evaluate VARIANT

Reads   models/variants/V, models/data (test split; validation for a threshold)
Writes  metrics/evaluate/V.json (a few scalars), models/evaluate/V (outputs per sample, details such as the confusion; its manifest
        says how an answer is made of outputs, with a threshold that was chosen on validation where the task has one)
"""

import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.core import artifact, config, isolation, results
from stages.core.artifact import Manifest
from stages.core.errors import DataError, VariantFailed, run_main
from stages.core.judging import Predictions
from stages.core.results import Evaluation, Failed
from stages.core.samples import Samples
from stages.core.settings import build
from stages.payload import parts

MODELS, METRICS = Path("models"), Path("metrics")
CHUNK = 256  # samples that are preprocessed and held in memory at a time


def outputs(variant: config.Variant, samples: Samples, indices: np.ndarray) -> np.ndarray:
    """What the variant answers for `indices`, float32 [n, ...]."""
    settings = {"threads": os.cpu_count() or 1, **variant.engine}
    session = parts.load(config.part(variant.module, "run"), str(MODELS / "variants" / variant.name), settings, keep=True)
    starts = tqdm(
        range(0, len(indices), CHUNK), desc=f"evaluate {variant.name}", unit="chunk", disable=len(indices) <= CHUNK, mininterval=1
    )
    answers = [isolation.run_batched(session, samples.feeds(indices[start : start + CHUNK])) for start in starts]
    return np.concatenate([next(iter(answer.values())) for answer in answers]).astype(np.float32)


def answers(variant: config.Variant, made: Manifest, samples: Samples, split: str) -> Predictions:
    """Of one split. VariantFailed where they are no numbers."""
    indices = samples.indices(split)
    if not len(indices):
        raise DataError(f"data.splits.{split}: the split is empty and the task needs it; give it a share, for example 0.1")
    given = outputs(variant, samples, indices)
    broken = ~np.isfinite(given.reshape(len(given), -1)).all(axis=1)
    if broken.any():
        raise VariantFailed(f"{np.sum(broken)} of {len(given)} {split} samples give NaN or infinite outputs")
    known = {"meaning": made.outputs[0].meaning, "normal": samples.normal}
    return Predictions(given, samples.targets(indices), samples.labels, {key: value for key, value in known.items() if value is not None})


def evaluate(variant: config.Variant, made: Manifest, task: config.Plugin) -> Evaluation:
    module, samples = task.load(), Samples.open(MODELS / "data")
    given = {split: answers(variant, made, samples, split) for split in module.SPLITS}
    judged, test = module.judge(build(module.Settings, task.settings, "task"), given), given["test"]
    with artifact.building(MODELS / "evaluate" / variant.name) as folder:
        np.save(folder / "outputs.npy", test.outputs)
        np.save(folder / "targets.npy", test.targets)
        artifact.write_json(folder / "details.json", judged.details)
        details = {**test.spec, **judged.decision}
        artifact.write(folder, Manifest(kind="evaluation", format=made.format, scheme=made.scheme, labels=samples.labels, details=details))
    return Evaluation(len(test.targets), made.size_bytes, made.details["covered_share"], dict(judged.scores))


def main() -> None:
    settings = config.read()
    variant = settings.variant(sys.argv[1] if len(sys.argv) == 2 else "")
    result: Evaluation | Failed
    try:
        made = artifact.require_ok(artifact.read(MODELS / "variants" / variant.name), variant.name)
        result = evaluate(variant, made, settings.task)
    except VariantFailed as failure:
        result = Failed(str(failure))
        artifact.record(MODELS / "evaluate" / variant.name, Manifest(kind="evaluation", status="failed", reason=result.reason))
    results.write(METRICS / "evaluate" / f"{variant.name}.json", result)


if __name__ == "__main__":
    run_main(main)
