"""Evaluate a variant: its outputs on the splits that the task needs, through its format's own session, and their scores."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from edgewise.agent import ragged, sessions
from edgewise.artifacts import artifact, targets
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.records import Evaluation
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.config.settings import build
from edgewise.errors import VariantFailed
from edgewise.plugins import Arrays, Predictions, Task
from edgewise.proof import isolation
from edgewise.tasks.predictions import count_samples, require_split, write_outputs

MODELS, METRICS = Path("models"), Path("metrics")
CHUNK, LARGE_CHUNK = 256, 64  # samples that are preprocessed and held in memory at a time
LARGE_BYTES = 2**18  # a sample of more comes in smaller chunks
MAX_KEPT_BYTES = 2**26  # of all outputs of a variant, where whole outputs are kept; further samples are left out


def evaluate(variant: schema.Variant, made: Manifest, task: schema.Plugin) -> Evaluation:
    """Write models/evaluate/V (outputs, targets, details) and return the scores. VariantFailed if outputs are not finite."""
    module, samples = cast(Task, task.load()), Samples.open(MODELS / "data")
    settings: Any = build(module.Settings, task.settings, "task")
    with isolation.translate_missing_runtime(variant.module):
        splits = [split for split in module.SPLITS if len(samples.indices(split))]
        given = {split: predict(variant, made, samples, split, module, settings) for split in splits}
    test = require_split(given, "test")
    judged = module.judge(settings, given)
    with artifact.building(MODELS / "evaluate" / variant.name) as folder:
        write_outputs(folder, test.ports)
        targets.store(folder, targets.pack(test.targets))
        artifact.write_json(folder / "details.json", judged.details)
        details = {"targets": samples.kind, **test.spec, **judged.decision}
        artifact.write(folder, Manifest(kind="evaluation", format=made.format, scheme=made.scheme, labels=samples.labels, details=details))
    return Evaluation(count_samples(test.ports), made.size_bytes, made.details["covered_share"], dict(judged.scores))


def predict(variant: schema.Variant, made: Manifest, samples: Samples, split: str, task: Task, settings: Any) -> Predictions:
    """Predictions on one split. VariantFailed if outputs are NaN or infinite."""
    indices, spec = samples.indices(split), describe_outputs(made, samples, task)
    kept, done = [], 0
    for outputs in iterate_outputs(variant, samples, indices, split):
        chosen = indices[done : done + count_samples(outputs)]
        kept.append(task.condense(settings, {**spec, **describe_samples(samples, chosen)}, outputs))
        done += len(chosen)
        if sum(array.nbytes for part in kept for array in part.values()) > MAX_KEPT_BYTES and "counts" not in kept[0]:
            break
    ports = {name: ragged.join([part[name] for part in kept]) for name in kept[0]}
    return Predictions(ports, samples.targets(indices[:done]), samples.labels, spec)


def describe_outputs(made: Manifest, samples: Samples, task: Task) -> dict[str, Any]:
    """What is known of the outputs, for Predictions.spec. ModelError if the task needs one value for each label and there is none."""
    scored = artifact.require_scored(made, samples.labels) if task.SCORED else made.scored
    known = {"output": scored.name, "meaning": scored.meaning} if scored else {}
    ports = {} if task.SCORED else {"ports": {port.name: {"shape": list(port.shape), "meaning": port.meaning} for port in made.answered}}
    decoding = {"decoding": made.details["decoding"]} if "decoding" in made.details else {}
    return {**known, **ports, **decoding, **({} if samples.normal is None else {"normal": samples.normal})}


def describe_samples(samples: Samples, indices: np.ndarray) -> dict[str, Any]:
    """What `condense` needs to know of the data, and of the samples whose outputs it gets."""
    sizes = {} if samples.stored_sizes is None else {"sizes": samples.sizes(indices)}
    return {"labels": samples.labels, "preprocessing": samples.preprocessing, **sizes}


def iterate_outputs(variant: schema.Variant, samples: Samples, indices: np.ndarray, split: str) -> Iterator[Arrays]:
    """All outputs of the variant, [n, ...] each, for some of the samples at a time. VariantFailed if they are NaN or infinite."""
    from tqdm import tqdm

    run = schema.part(variant.module, "run")
    settings = {"threads": count_threads(run.ENGINE["threads"]), **variant.engine}
    session = sessions.load(run, str(MODELS / "variants" / variant.name), settings, keep=True)
    chunk = find_chunk(samples, indices)
    starts = range(0, len(indices), chunk)
    for start in tqdm(starts, desc=f"evaluate {variant.name}", unit="chunk", disable=len(starts) < 2, mininterval=1):
        outputs = sessions.run_batched(session, samples.feeds(indices[start : start + chunk]))
        broken = find_broken(outputs)
        if broken.any():
            raise VariantFailed(f"{np.sum(broken)} of {len(broken)} {split} samples have NaN or infinite outputs")
        yield {name: array.astype(np.float32, copy=False) for name, array in outputs.items()}


def count_threads(allowed: Sequence[int] | None) -> int:
    """All cores that this process may use, or as many of them as the runtime can: ENGINE of run.py, where None leaves it to the runtime."""
    cores = len(os.sched_getaffinity(0))
    return cores if allowed is None else max((count for count in allowed if count <= cores), default=min(allowed))


def find_chunk(samples: Samples, indices: np.ndarray) -> int:
    """How many samples to take at a time; one where they have various sizes."""
    if samples.ragged:
        return 1
    return CHUNK if sum(array.nbytes for array in samples.feeds(indices[:1]).values()) <= LARGE_BYTES else LARGE_CHUNK


def find_broken(outputs: Arrays) -> np.ndarray:
    """The samples of which some output is NaN or infinite, bool [n]. outputs: [n, ...] each."""
    finite = [np.isfinite(array.reshape(len(array), -1)).all(axis=1) for array in outputs.values()]
    broken: np.ndarray = ~np.logical_and.reduce(finite)
    return broken
