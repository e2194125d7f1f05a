"""Make one variant and prove that it is what its name says."""

import dataclasses
import inspect
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import job as calibrating
from edgewise.compress import mixing
from edgewise.compress.cutting import finish
from edgewise.compress.job import Job, band, origin
from edgewise.config import schema
from edgewise.errors import VariantFailed
from edgewise.proof import checks
from edgewise.proof.describing import against_source, making, tool_versions

MODELS = Path("models")


def declared(variant: schema.Variant, schemes: dict[str, Any]) -> dict[str, Any]:
    if variant.scheme not in schemes:
        raise VariantFailed(f"{variant.format} does not offer {variant.scheme}; it has {', '.join(schemes)}")
    return schemes[variant.scheme]


def calibration(variant: schema.Variant, samples: Samples) -> np.ndarray:
    """Indices of the samples that ranges are found with; none where the scheme needs none."""
    if variant.calibration is None:
        return np.zeros(0, np.int64)
    indices = calibrating.chosen(samples, variant.calibration.samples)
    if len(indices) < variant.calibration.samples:
        print(f"calibration: {len(indices)} samples in the split, {variant.calibration.samples} asked for: all are used", file=sys.stderr)
    return indices


def describe(variant: schema.Variant) -> Manifest:
    return Manifest(kind="variant", format=variant.format, scheme=variant.scheme, config_key=f"variants.{variant.name}")


def quantize(variant: schema.Variant, parent: Manifest, configuration: schema.Config) -> None:
    make = schema.part(variant.module, "make")
    ways = origin(variant, configuration.formats)
    with artifact.building(MODELS / "variants" / variant.name) as folder, making(make.REQUIRES), ways as (model, source):
        scheme = declared(variant, make.SCHEMES)
        job = Job(variant, model, source, Samples.open(MODELS / "data"))
        indices = calibration(variant, job.samples)
        kept, found = made(job, indices, folder)
        facts, covered_share = prove(job, kept, scheme, folder)
        manifest = dataclasses.replace(
            describe(variant),
            inputs=parent.inputs,
            outputs=parent.outputs,
            preprocessing=parent.preprocessing,
            labels=parent.labels,
            tools=tool_versions(make.REQUIRES),
        )
        artifact.write(folder, manifest)
        sqnr_db = against_source(variant.module, folder, variant.engine, variant.min_sqnr_db, source)
        found |= as_written(variant, scheme, folder, source)
        runner = artifact.sha256(Path(inspect.getfile(schema.part(variant.module, "run"))))  # another runner is another measurement
        found |= finish(job, kept, folder)
        details = {"facts": facts, "covered_share": covered_share, "sqnr_db": sqnr_db, "kept_float": kept, "runner_sha256": runner, **found}
        details |= {"kept_int8": job.in_int8()} if job.variant.keep_int8 else {}
        if len(indices):
            details |= {"calibration": calibrating.described(indices), "accuracy_band": band(job, kept, configuration.seed)}
        artifact.write(folder, dataclasses.replace(manifest, details=details))


def made(job: Job, indices: np.ndarray, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Make the variant; returns the source layers in float, and what is to be said of how they were found."""
    own = job.in_float()
    if job.variant.mixed is not None:
        kept, found = mixing.search(job, indices, own, folder)
        return kept, {"mixed": found}
    job.write(folder, indices, own)
    return (job.left_float(folder) if job.judging() else own), {}


def as_written(variant: schema.Variant, scheme: dict[str, Any], folder: Path, source: Path) -> dict[str, Any]:
    """SQNR of what the file holds, whatever this machine's integer kernels make of it; {} where the runtime cannot tell the two apart."""
    settings = schema.part(variant.module, "run").AS_WRITTEN
    if settings is None or scheme["activations"] == scheme["weights"] == "float32":
        return {}
    return {"sqnr_as_written_db": against_source(variant.module, folder, {**variant.engine, **settings}, -math.inf, source)}


def prove(job: Job, kept: list[str], scheme: dict[str, Any], folder: Path) -> tuple[dict[str, Any], float]:
    """What the file holds, and the share of the weights that the scheme covers. VariantFailed where it is not what its name says."""
    found = schema.part(job.variant.module, "facts").facts(folder)
    return found, checks.check_scheme(found, scheme, job.nodes(kept), job.variant.name, job.nodes(job.in_int8()))
