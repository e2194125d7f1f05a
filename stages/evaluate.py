"""evaluate@V: the variant on the whole test split, through its format's own session.

    python -m stages.evaluate VARIANT

Reads   models/variants/V, models/data (test split)
Writes  metrics/evaluate/V.json (a few scalars), models/evaluate/V (outputs per sample, confusion, recall per class)
"""

import os
import sys
from pathlib import Path

import numpy as np
from tqdm import tqdm

from stages.core import artifact, config, isolation, scores
from stages.core.artifact import Manifest
from stages.core.errors import VariantFailed, run_main
from stages.core.samples import Samples
from stages.payload import parts

MODELS, METRICS = Path("models"), Path("metrics")
CHUNK = 256  # samples that are preprocessed and held in memory at a time


def outputs(variant: config.Variant, samples: Samples, indices: np.ndarray) -> np.ndarray:
    """What the variant answers for `indices`, float32 [n, classes]."""
    session = parts.load(
        config.part(variant.module, "run"), str(MODELS / "variants" / variant.name), {"threads": os.cpu_count() or 1, **variant.engine}
    )
    starts = tqdm(
        range(0, len(indices), CHUNK), desc=f"evaluate {variant.name}", unit="chunk", disable=len(indices) <= CHUNK, mininterval=1
    )
    answers = [isolation.run_batched(session, samples.feeds(indices[start : start + CHUNK])) for start in starts]
    return np.concatenate([next(iter(answer.values())) for answer in answers]).astype(np.float32)


def evaluate(variant: config.Variant, made: Manifest) -> dict:
    samples = Samples.open(MODELS / "data")
    indices = samples.indices("test")
    given, targets = outputs(variant, samples, indices), samples.targets(indices)
    if not np.isfinite(given).all():
        raise VariantFailed(f"{np.sum(~np.isfinite(given).all(axis=1))} of {len(given)} test samples give NaN or infinite outputs")
    confusion = scores.confusion(targets, given.argmax(axis=1), len(samples.labels))
    with artifact.building(MODELS / "evaluate" / variant.name) as folder:
        np.save(folder / "outputs.npy", given)
        np.save(folder / "targets.npy", targets)
        recalls = dict(zip(samples.labels, scores.recalls(confusion), strict=True))
        artifact.write_json(folder / "details.json", {"confusion": confusion.tolist(), "recall_per_class": recalls})
        artifact.write(folder, Manifest(kind="evaluation", format=made.format, scheme=made.scheme, labels=samples.labels))
    return {
        "schema": 1,
        "status": "ok",
        "samples": len(targets),
        **scores.summary(confusion),
        "size_bytes": made.size_bytes,
        "covered_share": made.details["covered_share"],
    }


def main() -> None:
    variant = config.read().variant(sys.argv[1] if len(sys.argv) == 2 else "")
    try:
        made = artifact.require_ok(artifact.read(MODELS / "variants" / variant.name), variant.name)
        result = evaluate(variant, made)
    except VariantFailed as failure:
        result = {"schema": 1, "status": "failed", "reason": str(failure)}
        artifact.record(MODELS / "evaluate" / variant.name, Manifest(kind="evaluation", status="failed", reason=str(failure)))
    artifact.write_json(METRICS / "evaluate" / f"{variant.name}.json", result)


if __name__ == "__main__":
    run_main(main)
