"""The last step of making a variant: cut the model into parts where `load` asks for it, and write it in the form that `file` asks for.

A format's split.py offers the model as steps in the order of execution (plugins.Cuttable); this module decides where to cut. The variant's
scheme was read from the file before: a graph that is cut, or optimized for one processor, no longer shows it. So what is written here is
checked again by its outputs. A lazily loaded model also gets a gate (see edgewise.agent.sessions), fitted to the normal samples of the
calibration split.
"""

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
from edgewise.compress.build import Build
from edgewise.config import schema
from edgewise.config.schema import Load
from edgewise.errors import VariantFailed
from edgewise.plugins import Cuttable
from edgewise.proof import checks
from edgewise.proof.making import check_against_source

MIN_NORMAL_SAMPLES = 16  # to estimate a mean and a standard deviation of each channel
MIN_STD = 1e-6  # for channels that never change

Step = Mapping[str, Any]  # of plugins.Cuttable


def finish(build: Build, kept: Sequence[str], folder: Path) -> dict[str, Any]:
    """Entries for the manifest's details; {} where the variant stays as it is. VariantFailed where it then computes something else."""
    if build.variant.load.in_parts and build.samples.ragged:
        raise VariantFailed("load.mode: a model is cut for inputs of one size, but data.resize is as_is; set another one, or mode whole")
    details, channel_axis = split(build, kept, folder) if build.variant.load.in_parts else ({}, None)
    form = store(build.variant, folder)
    if details or form:
        sqnr_db = check_against_source(build.variant.module, folder, build.variant.engine, build.variant.min_sqnr_db, build.source)
        details |= {"file": dict(form), "finished_sqnr_db": sqnr_db}
    if build.variant.load.mode == "lazy" and channel_axis is not None:
        details |= fit_gate(build.variant, build.samples, channel_axis, folder)
    return details


def split(build: Build, kept: Sequence[str], folder: Path) -> tuple[dict[str, Any], int]:
    """Replace the model in `folder` by parts. Returns entries for the details, and the channel axis of the tensors between parts."""
    variant = build.variant
    first = build.nodes_of(checks.select_layers("load.at", [variant.load.at], build.layers)) if variant.load.at else []
    open_cuttable = schema.part(variant.module, "split").cuttable
    model = open_cuttable(folder, build.source, variant.scheme, schema.to_plain(variant), build.nodes_of(kept))
    part_bytes = write_parts(model, variant.load, first, folder)
    remove_unsplit(folder, model.files)
    return {"part_weights_bytes": part_bytes}, model.channel_axis


def write_parts(model: Cuttable, load: Load, first_nodes: Sequence[str], folder: Path) -> list[int]:
    """Write the parts into `folder`/part-N and parts.json beside them. Returns the bytes of weights of each part.

    first_nodes: nodes (of layers.json) that begin the second part; empty: cut into `load.parts` parts of about equal bytes.
    """
    steps = model.steps
    cuts = [find_cut_before(steps, first_nodes)] if first_nodes else find_balanced_cuts(steps, load.parts)
    bounds = list(itertools.pairwise([0, *cuts, len(steps)]))
    for number, (start, end) in enumerate(bounds):
        target = folder / f"part-{number}"
        target.mkdir()
        model.write(start, end, target)
    names = [f"part-{number}" for number in range(len(bounds))]
    write_json(
        folder / sessions.PARTS_FILE, {"parts": names, "keep": load.keep, "inputs": list(model.inputs), "outputs": list(model.outputs)}
    )
    return [sum(step["weights_bytes"] for step in steps[start:end]) for start, end in bounds]


def find_cut_before(steps: Sequence[Step], nodes: Sequence[str]) -> int:
    """Number of steps before the last possible cut ahead of the first of `nodes`. VariantFailed where there is none."""
    place = next((index for index, step in enumerate(steps) if step["node"] in nodes), None)
    allowed = [index for index in range(1, len(steps)) if place is not None and index <= place and steps[index - 1]["crossing"]]
    if not allowed:
        raise VariantFailed(f"load.at: no cut is possible before {', '.join(nodes)}; name a later layer, or set load.parts")
    return allowed[-1]


def find_balanced_cuts(steps: Sequence[Step], count: int) -> list[int]:
    """After how many steps to cut, for `count` parts: smallest largest part first, then fewest tensors that cross a cut."""
    cumulative: list[int] = [0, *itertools.accumulate(step["weights_bytes"] for step in steps)]
    places = [index + 1 for index, step in enumerate(steps[:-1]) if step["crossing"]]
    if len(places) < count - 1:
        raise VariantFailed(f"load.parts: {count} parts need {count - 1} cuts, this model allows {len(places)}; ask for fewer parts")

    def bytes_between(start: int, end: int) -> int:
        return cumulative[end] - cumulative[start]

    def tensors_or_infinity(start: int, end: int) -> float:
        return math.inf if bytes_between(start, end) > largest else steps[end - 1]["crossing"]

    largest, _ = find_cheapest_cuts(places, len(steps), count, bytes_between, max)
    return find_cheapest_cuts(places, len(steps), count, tensors_or_infinity, operator.add)[1]


def find_cheapest_cuts(
    places: Sequence[int], end: int, count: int, cost: Callable[[int, int], float], join: Callable[[float, float], float]
) -> tuple[float, list[int]]:
    """Cut 0..end at `places` into `count` parts, by dynamic programming: the lowest joined cost, and the cuts."""
    best: dict[int, tuple[float, list[int]]] = {0: (0, [])}
    for stops in [places] * (count - 1) + [[end]]:
        best = {
            stop: min((join(spent, cost(start, stop)), [*cuts, stop]) for start, (spent, cuts) in best.items() if start < stop)
            for stop in stops
            if any(start < stop for start in best)
        }
    spent, cuts = best[end]
    return spent, cuts[:-1]


def remove_unsplit(folder: Path, names: Sequence[str]) -> None:
    """Remove the undivided model's files once its parts are written."""
    for name in names:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def store(variant: schema.Variant, folder: Path) -> Mapping[str, Any]:
    """Write the model, or each of its parts, in its final form. Returns what the format's store.py reports of it."""
    store_model = schema.part(variant.module, "store").store
    places = [folder / name for name in sessions.part_names(str(folder))] if variant.load.in_parts else [folder]
    first: Mapping[str, Any]
    first, *_ = [store_model(place, variant.file, variant.engine, variant.load.mode == "mapped") for place in places]
    if first:
        print(f"{variant.name}: {first['form']}", file=sys.stderr)
    return first


def fit_gate(variant: schema.Variant, samples: Samples, channel_axis: int, folder: Path) -> dict[str, Any]:
    """Write gate.npz beside the parts in `folder`. Returns entries for the manifest's details.

    Of the normal calibration samples, the share `load.shut_share` nearest to their mean gets the mean answer without the second part.
    VariantFailed without enough normal samples.
    """
    indices = samples.indices("calibration")
    normal = indices[samples.targets(indices) == samples.normal] if samples.normal is not None else indices[:0]
    if len(normal) < MIN_NORMAL_SAMPLES:
        raise VariantFailed(
            f"load.mode lazy: {len(normal)} normal samples in the calibration split, the gate needs {MIN_NORMAL_SAMPLES}; "
            "name their label in data.normal, enlarge data.splits.calibration, or use mode split"
        )
    feeds, run = samples.feeds(normal), schema.part(variant.module, "run")
    settings = {"threads": 1, **variant.engine}
    first = run.load(str(folder / sessions.part_names(str(folder))[0]), settings)
    features = run_batched(first, feeds)
    names = list(features)
    rows = sessions.pool_channels(features, names, channel_axis)
    mean, std = rows.mean(axis=0), np.maximum(rows.std(axis=0), MIN_STD)
    distances = sessions.squared_distances(rows, mean, std)
    limit = float(np.quantile(distances, variant.load.shut_share))
    shut = distances <= limit
    outputs = run_batched(sessions.load(run, str(folder), settings, keep=True), feeds)
    answers = {f"answer:{name}": array[shut].mean(axis=0) for name, array in outputs.items()}
    np.savez(folder / sessions.GATE_FILE, names=names, channel_axis=channel_axis, mean=mean, std=std, limit=limit, **answers)
    return {"gate_limit": limit, "gate_normal_samples": len(normal)}


def count_reloaded_parts(folder: Path) -> int:
    """Number of parts of the variant in `folder` that are loaded and released at each inference; 0 for an undivided model."""
    if not (folder / sessions.PARTS_FILE).exists():
        return 0
    plan = json.loads((folder / sessions.PARTS_FILE).read_text(encoding="utf-8"))
    return 0 if plan["keep"] else len(plan["parts"])
