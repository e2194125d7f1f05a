"""The last step of making a variant: cut into parts where `load` says so, and written in the form that `file` and `load` ask for.

What a file really is was read from it before: a graph that is optimized for one processor, or cut, no longer shows what the scheme did.
So it is proved again by its outputs.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.compressing.job import Job
from stages.core import config, cutting, gating, proof
from stages.core.making import against_source
from stages.payload import parts


def finish(job: Job, kept: Sequence[str], folder: Path) -> dict[str, Any]:
    """What the manifest says of it; {} where the variant stays as it is. VariantFailed where it computes something else then."""
    found, channel_axis = split(job, kept, folder) if job.variant.load.in_parts else ({}, None)
    form = stored(job.variant, folder)
    if found or form:
        sqnr_db = against_source(job.variant.module, folder, job.variant.engine, job.variant.min_sqnr_db, job.source)
        found |= {"file": dict(form), "finished_sqnr_db": sqnr_db}
    if job.variant.load.mode == "lazy" and channel_axis is not None:
        found |= gating.fit(job.variant, job.samples, channel_axis, folder)
    return found


def split(job: Job, kept: Sequence[str], folder: Path) -> tuple[dict[str, Any], int]:
    """Cut the model; returns what is to be said of its parts, and the axis of channels of what crosses a cut."""
    variant = job.variant
    first = job.nodes(proof.named_layers("load.at", [variant.load.at], job.layers)) if variant.load.at else []
    cuttable = config.part(variant.module, "split").cuttable
    model = cuttable(folder, job.source, variant.scheme, config.to_plain(variant), job.nodes(kept))
    part_bytes = cutting.cut(model, variant.load, first, folder)
    cutting.drop_whole(folder, model.files)
    return {"part_weights_bytes": part_bytes}, model.channel_axis


def stored(variant: config.Variant, folder: Path) -> Mapping[str, Any]:
    """Write the model, or each of its parts, in its final form; what the format's store.py says of it."""
    store = config.part(variant.module, "store").store
    places = [folder / name for name in parts.names(str(folder))] if variant.load.in_parts else [folder]
    first, *_ = [store(place, variant.file, variant.engine, variant.load.mode == "mapped") for place in places]
    if first:
        print(f"{variant.name}: {first['form']}", file=sys.stderr)
    return first
