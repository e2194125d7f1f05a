"""Make one variant and prove that it is what its name says."""

import contextlib
import dataclasses
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import calibration, mixed
from edgewise.compress.build import Build
from edgewise.compress.float_models import carry_over, open_parent
from edgewise.compress.partition import finish
from edgewise.config import schema
from edgewise.errors import OutputsDiffer, VariantFailed
from edgewise.proof import checks
from edgewise.proof.making import (
    check_against_source,
    compare_with_source,
    describe_agreement,
    find_tool_versions,
    lowest_db,
    translate_errors,
)

MODELS = Path("models")


def make_variant(variant: schema.Variant, parent: Manifest, configuration: schema.Config) -> None:
    """Write models/variants/NAME: the model, and a manifest that says what the file really holds.

    parent: manifest of the float model of the variant's format. VariantFailed where the variant cannot be made, or is not what it claims.
    """
    make = schema.part(variant.module, "make")
    opened = open_parent(variant, configuration.formats)
    with (
        artifact.building(MODELS / "variants" / variant.name) as folder,
        translate_errors(make.REQUIRES, variant.module),
        opened as (model, source),
    ):
        scheme = find_scheme(variant, make.SCHEMES)
        build = Build(variant, model, source, Samples.open(MODELS / "data"))
        indices = select_calibration(variant, build.samples)
        kept, searched = quantize(build, indices, folder)
        tail = build.tail()
        facts, covered_share = check_file(build, kept, scheme, folder, tail["operators"] if tail else ())
        manifest = dataclasses.replace(
            blank_manifest(variant),
            inputs=parent.inputs,
            outputs=parent.outputs,
            preprocessing=parent.preprocessing,
            labels=parent.labels,
            tools=find_tool_versions(make.REQUIRES),
        )
        artifact.write(folder, manifest)
        details = {"facts": facts, "covered_share": covered_share, "kept_float": kept, **searched, **carry_over(parent)}
        details |= describe_pruned(variant.name, source, facts)
        details |= {"tail": tail} if tail else {}
        with name_layers(build):
            found = compare_with_source(variant.module, folder, variant.engine, variant.min_sqnr_db, source)
        details |= {"sqnr_db": lowest_db(found), "agreement": describe_agreement(found)}
        details |= check_as_written(variant, scheme, folder, source)
        details |= finish(build, kept, folder)
        details |= {"kept_int8": build.int8_layers()} if variant.keep_int8 else {}
        if len(indices):
            band = build.accuracy_band(kept, configuration.seed)
            details |= {"calibration": calibration.describe(indices), "accuracy_band": band}
        artifact.write(folder, dataclasses.replace(manifest, details=details))


def describe_pruned(name: str, source: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Entries for the details of a variant with a pruned source; {} for others. VariantFailed where its file has more channels."""
    manifest = artifact.read(source)
    if "pruned" not in manifest.details:
        return {}
    checks.check_channels(facts, manifest.details["layers"], name)
    return {"multiply_adds": manifest.details["multiply_adds"], "pruned": manifest.details["pruned"]}


def blank_manifest(variant: schema.Variant) -> Manifest:
    return Manifest(kind="variant", format=variant.format, scheme=variant.scheme, config_key=f"variants.{variant.name}")


def find_scheme(variant: schema.Variant, schemes: dict[str, Any]) -> dict[str, Any]:
    if variant.scheme not in schemes:
        raise VariantFailed(f"{variant.format} does not offer {variant.scheme}; it has {', '.join(schemes)}")
    scheme: dict[str, Any] = schemes[variant.scheme]
    return scheme


def select_calibration(variant: schema.Variant, samples: Samples) -> np.ndarray:
    """Indices of the calibration samples; empty where the scheme needs none."""
    if variant.calibration is None:
        return np.zeros(0, np.int64)
    wanted = variant.calibration.samples
    indices = calibration.select(samples, wanted)
    if len(indices) < wanted and wanted != schema.Calibration().samples:  # nobody asked for the default
        print(f"calibration.samples: {wanted}, but the split has {len(indices)}; using all of them", file=sys.stderr)
    return indices


def quantize(build: Build, indices: np.ndarray, folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Write the model into `folder`. Returns the source layers in float, and how they were found as entries of the manifest's details."""
    user_layers = build.float_layers()
    if build.variant.mixed is not None:
        kept, searched = mixed.search(build, indices, user_layers, folder)
        return kept, {"mixed": searched}
    left = build.quantize(folder, indices, user_layers)
    if build.accuracy_control_arguments():
        return build.layers_reverted_to_float(folder), {}
    return [*user_layers, *(layer for layer in left if layer not in user_layers)], {}


@contextlib.contextmanager
def name_layers(build: Build) -> Iterator[None]:
    """Name the layers behind a group of outputs that a check finds dead or bad, as a setting that keeps them float."""
    try:
        yield
    except OutputsDiffer as error:
        layers = build.layers_behind(error.output, *error.span)
        advice = f"; keep these layers in float: `keep_float: [{', '.join(layers)}]` under the variant in params.yaml" if layers else ""
        raise VariantFailed(f"{error}{advice}") from error


def check_file(
    build: Build, kept: list[str], scheme: dict[str, Any], folder: Path, tail: Sequence[str] = ()
) -> tuple[dict[str, Any], float]:
    """What the file holds, and the share of the weights that the scheme covers. VariantFailed where the file is not what its name says.

    Of a source that is quantized already, layers that are float in the user's file stay so. tail: operators behind the last layers that
    stay float; some read constants.
    """
    facts = schema.part(build.variant.module, "facts").facts(folder)
    own = checks.list_float_nodes(facts) if artifact.read(build.source).details.get("quantized") else []
    own += [node["name"] for node in facts["nodes"] if node["name"] in tail]
    nodes, int8_nodes = build.nodes_of(kept), build.nodes_of(build.int8_layers())
    return facts, checks.check_scheme(facts, scheme, [*nodes, *own], build.variant.name, int8_nodes)


def check_as_written(variant: schema.Variant, scheme: dict[str, Any], folder: Path, source: Path) -> dict[str, Any]:
    """SQNR with reference kernels, which compute what the file says; {} where the runtime has none or the scheme is float.

    A low SQNR on this machine with a high one here means that the machine's integer kernels are at fault, not the file.
    """
    settings = schema.part(variant.module, "run").AS_WRITTEN
    if settings is None or scheme["activations"] == scheme["weights"] == "float32":
        return {}
    return {"sqnr_as_written_db": check_against_source(variant.module, folder, {**variant.engine, **settings}, -math.inf, source)}
