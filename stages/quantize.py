"""quantize@V: one variant, proved to be what its name says.

    python -m stages.quantize VARIANT

Reads   models/FORMAT (float model, layers.json), models/source (oracle), models/data (calibration split); variants.V
Writes  models/variants/V: the model and its manifest with what the file really holds; `failed` with the reason where it did not work out
"""

import dataclasses
import inspect
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.core import artifact, config, cutting, proof
from stages.core.artifact import Manifest
from stages.core.errors import VariantFailed, run_main
from stages.core.making import against_source, making, tool_versions
from stages.core.samples import Samples

MODELS = Path("models")


def declared(variant: config.Variant, schemes: dict[str, Any]) -> dict[str, Any]:
    if variant.scheme not in schemes:
        raise VariantFailed(f"{variant.format} does not offer {variant.scheme}; it has {', '.join(schemes)}")
    return schemes[variant.scheme]


def calibration(variant: config.Variant) -> list[proof.Arrays]:
    """Feeds of batch 1: the first samples of the calibration split, in its stored order."""
    if variant.calibration is None:
        return []
    samples = Samples.open(MODELS / "data")
    indices = samples.indices("calibration")
    if len(indices) < variant.calibration.samples:
        print(f"calibration: {len(indices)} samples in the split, {variant.calibration.samples} asked for: all are used", file=sys.stderr)
    return [samples.feeds(indices[i : i + 1]) for i in range(min(len(indices), variant.calibration.samples))]


def describe(variant: config.Variant) -> Manifest:
    return Manifest(kind="variant", format=variant.format, scheme=variant.scheme, config_key=f"variants.{variant.name}")


def split(variant: config.Variant, kept_nodes: Sequence[str], layers: Mapping[str, Sequence[str]], folder: Path) -> dict[str, Any]:
    """Cut the variant where `load` says so, and prove that the parts compute what the whole did."""
    if variant.load.mode == "whole":
        return {}
    first = proof.nodes_of(proof.kept_layers([variant.load.at], layers), layers) if variant.load.at else []
    cuttable = config.part(variant.module, "split").cuttable
    model = cuttable(folder, MODELS / "source", variant.scheme, config.to_plain(variant), kept_nodes)
    part_bytes = cutting.cut(model, variant.load, first, folder)
    cutting.drop_whole(folder, model.files)
    parts_db = against_source(variant.module, folder, variant.engine, variant.min_sqnr_db)
    return {"part_weights_bytes": part_bytes, "parts_sqnr_db": parts_db}


def quantize(variant: config.Variant, parent: Manifest) -> None:
    make, facts = config.part(variant.module, "make"), config.part(variant.module, "facts")
    source, target = MODELS / "source", MODELS / "variants" / variant.name
    with artifact.building(target) as folder, making(make.REQUIRES):
        scheme = declared(variant, make.SCHEMES)
        layers = json.loads((MODELS / variant.format / "layers.json").read_text())
        kept = proof.kept_layers(variant.keep_float, layers)
        nodes = proof.nodes_of(kept, layers)
        make.quantize(MODELS / variant.format, source, folder, variant.scheme, config.to_plain(variant), calibration(variant), nodes)
        found = facts.facts(folder)
        covered_share = proof.check_scheme(found, scheme, nodes, variant.name)
        manifest = dataclasses.replace(
            describe(variant),
            inputs=parent.inputs,
            outputs=parent.outputs,
            preprocessing=parent.preprocessing,
            labels=parent.labels,
            tools=tool_versions(make.REQUIRES),
        )
        artifact.write(folder, manifest)
        sqnr_db = against_source(variant.module, folder, variant.engine, variant.min_sqnr_db)
        in_parts = split(variant, nodes, layers, folder)
        runner = artifact.sha256(Path(inspect.getfile(config.part(variant.module, "run"))))  # another runner is another measurement
        details = {
            "facts": found,
            "covered_share": covered_share,
            "sqnr_db": sqnr_db,
            "kept_float": kept,
            "runner_sha256": runner,
            **in_parts,
        }
        artifact.write(folder, dataclasses.replace(manifest, details=details))


def main() -> None:
    variant = config.read().variant(sys.argv[1] if len(sys.argv) == 2 else "")
    try:
        parent = artifact.require_ok(artifact.read(MODELS / variant.format), f"models/{variant.format}")
        quantize(variant, parent)
    except VariantFailed as failure:
        failed = dataclasses.replace(describe(variant), status="failed", reason=str(failure))
        artifact.record(MODELS / "variants" / variant.name, failed)
        print(f"{variant.name}: failed: {failure}", file=sys.stderr)


if __name__ == "__main__":
    run_main(main)
