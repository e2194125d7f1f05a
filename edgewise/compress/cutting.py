"""The gate of a lazily loaded model: fitted to normal samples of the calibration split, see agent.sessions."""

import itertools
import json
import math
import operator
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.agent import sessions
from edgewise.agent.sessions import run_batched
from edgewise.artifacts.artifact import write_json
from edgewise.artifacts.samples import Samples
from edgewise.compress.job import Job
from edgewise.config import schema
from edgewise.config.schema import Load
from edgewise.errors import VariantFailed
from edgewise.plugins import Cuttable
from edgewise.proof import checks
from edgewise.proof.describing import against_source

LEAST_NORMAL = 16  # samples that a mean and a spread of each channel may rest on
LEAST_STD = 1e-6  # a channel that never changes would divide by nothing


def fit(variant: schema.Variant, samples: Samples, channel_axis: int, folder: Path) -> dict[str, Any]:
    """Write gate.npz beside the parts in `folder`. Returns what the manifest says of it. VariantFailed without enough normal samples."""
    indices = samples.indices("calibration")
    normal = indices[samples.targets(indices) == samples.normal] if samples.normal is not None else indices[:0]
    if len(normal) < LEAST_NORMAL:
        raise VariantFailed(
            f"load.mode lazy: {len(normal)} normal samples in the calibration split, the gate needs {LEAST_NORMAL}; "
            "name their label in data.normal, enlarge data.splits.calibration, or use mode split"
        )
    feeds, run = samples.feeds(normal), schema.part(variant.module, "run")
    settings = {"threads": 1, **variant.engine}
    first = run.load(str(folder / sessions.names(str(folder))[0]), settings)
    features = run_batched(first, feeds)
    names = list(features)
    rows = sessions.pooled(features, names, channel_axis)
    mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), LEAST_STD)
    distances = sessions.distances(rows, mean, std)
    limit = float(np.quantile(distances, variant.load.shut_share))
    shut = distances <= limit
    answers = {
        f"answer:{name}": array[shut].mean(axis=0) for name, array in run_batched(sessions.load(run, str(folder), settings), feeds).items()
    }
    np.savez(folder / sessions.GATE_FILE, names=names, channel_axis=channel_axis, mean=mean, std=std, limit=limit, **answers)
    return {"gate_limit": limit, "gate_normal_samples": len(normal)}


# Where to cut a model into parts, and the folder that holds them.
#
# A format's split.py offers the model as steps in the order of execution (`cuttable`); here is decided after which of them to cut.

Step = Mapping[str, Any]  # of plugins.Cuttable


def cut(model: Cuttable, how: Load, first_nodes: Sequence[str], folder: Path) -> list[int]:
    """Write the parts into `folder`/part-N and parts.json beside them. Returns the bytes of weights of each part.

    first_nodes: nodes (of layers.json) that begin the second part; empty: cut into `how.parts` parts by bytes.
    """
    steps = model.steps
    ends = [before(steps, first_nodes)] if first_nodes else balanced(steps, how.parts)
    bounds = list(itertools.pairwise([0, *ends, len(steps)]))
    for number, (start, end) in enumerate(bounds):
        target = folder / f"part-{number}"
        target.mkdir()
        model.write(start, end, target)
    names = [f"part-{number}" for number in range(len(bounds))]
    write_json(folder / sessions.FILE, {"parts": names, "keep": how.keep, "inputs": list(model.inputs), "outputs": list(model.outputs)})
    return [sum(step["weights_bytes"] for step in steps[start:end]) for start, end in bounds]


def drop_whole(folder: Path, names: Sequence[str]) -> None:
    """Remove the whole model's files once its parts are written."""
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def before(steps: Sequence[Step], nodes: Sequence[str]) -> int:
    """The number of steps before the first of `nodes`."""
    place = next((index for index, step in enumerate(steps) if step["node"] in nodes), None)
    allowed = [index for index in range(1, len(steps)) if place is not None and index <= place and steps[index - 1]["crossing"]]
    if not allowed:
        raise VariantFailed(f"load.at: {', '.join(nodes)} cannot begin a part: no cut is possible before it")
    return allowed[-1]


def balanced(steps: Sequence[Step], count: int) -> list[int]:
    """After how many steps to cut, for `count` parts: the largest part is as small as can be, then as few tensors as can be cross."""
    running = [0, *itertools.accumulate(step["weights_bytes"] for step in steps)]
    places = [index + 1 for index, step in enumerate(steps[:-1]) if step["crossing"]]
    if len(places) < count - 1:
        raise VariantFailed(f"load.parts: {count} parts need {count - 1} cuts, this model allows {len(places)}; ask for fewer parts")

    def bytes_between(start: int, end: int) -> int:
        return running[end] - running[start]

    def tensors_or_too_large(start: int, end: int) -> float:
        return math.inf if bytes_between(start, end) > largest else steps[end - 1]["crossing"]

    largest, _ = cheapest(places, len(steps), count, bytes_between, max)
    return cheapest(places, len(steps), count, tensors_or_too_large, operator.add)[1]


def cheapest(
    places: Sequence[int], end: int, count: int, cost: Callable[[int, int], float], join: Callable[[float, float], float]
) -> tuple[float, list[int]]:
    """Dynamic programming: the way to cut 0..end at `places` into `count` parts whose costs, joined, are least; and that cost."""
    best: dict[int, tuple[float, list[int]]] = {0: (0, [])}
    for stops in [places] * (count - 1) + [[end]]:
        best = {
            stop: min((join(spent, cost(start, stop)), [*cuts, stop]) for start, (spent, cuts) in best.items() if start < stop)
            for stop in stops
            if any(start < stop for start in best)
        }
    spent, cuts = best[end]
    return spent, cuts[:-1]


def reopened(folder: Path) -> int:
    """In how many parts the variant of `folder` lies that are loaded and released at each inference; 0 for a whole one."""
    if not (folder / sessions.FILE).exists():
        return 0
    plan = json.loads((folder / sessions.FILE).read_text(encoding="utf-8"))
    return 0 if plan["keep"] else len(plan["parts"])


# The last step of making a variant: cut into parts where `load` says so, and written in the form that `file` and `load` ask for.
#
# What a file really is was read from it before: a graph that is optimized for one processor, or cut, no longer shows what the scheme did.
# So it is proved again by its outputs.


def finish(job: Job, kept: Sequence[str], folder: Path) -> dict[str, Any]:
    """What the manifest says of it; {} where the variant stays as it is. VariantFailed where it computes something else then."""
    found, channel_axis = split(job, kept, folder) if job.variant.load.in_parts else ({}, None)
    form = stored(job.variant, folder)
    if found or form:
        sqnr_db = against_source(job.variant.module, folder, job.variant.engine, job.variant.min_sqnr_db, job.source)
        found |= {"file": dict(form), "finished_sqnr_db": sqnr_db}
    if job.variant.load.mode == "lazy" and channel_axis is not None:
        found |= fit(job.variant, job.samples, channel_axis, folder)
    return found


def split(job: Job, kept: Sequence[str], folder: Path) -> tuple[dict[str, Any], int]:
    """Cut the model; returns what is to be said of its parts, and the axis of channels of what crosses a cut."""
    variant = job.variant
    first = job.nodes(checks.named_layers("load.at", [variant.load.at], job.layers)) if variant.load.at else []
    cuttable = schema.part(variant.module, "split").cuttable
    model = cuttable(folder, job.source, variant.scheme, schema.to_plain(variant), job.nodes(kept))
    part_bytes = cut(model, variant.load, first, folder)
    drop_whole(folder, model.files)
    return {"part_weights_bytes": part_bytes}, model.channel_axis


def stored(variant: schema.Variant, folder: Path) -> Mapping[str, Any]:
    """Write the model, or each of its parts, in its final form; what the format's store.py says of it."""
    store = schema.part(variant.module, "store").store
    places = [folder / name for name in sessions.names(str(folder))] if variant.load.in_parts else [folder]
    first, *_ = [store(place, variant.file, variant.engine, variant.load.mode == "mapped") for place in places]
    if first:
        print(f"{variant.name}: {first['form']}", file=sys.stderr)
    return first
