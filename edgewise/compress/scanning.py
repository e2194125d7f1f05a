"""How much each layer of the source suffers from 8 bits, for the variants that keep some layers float."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import job
from edgewise.config import schema
from edgewise.errors import VariantFailed
from edgewise.proof.describing import SOURCE, making, tool_versions

TARGET = Path("models/sensitivity")
FLOAT_BYTES = 3  # what a weight takes more as float32 than as int8
DIGITS = 4  # sums differ in the last bits with the number of threads


def scanner(formats: Mapping[str, schema.Format], source: Manifest) -> tuple[Any, Mapping[str, str]]:
    """scan.py of the source's own format, and what that needs. VariantFailed where it has none."""
    able = {name: form.module for name, form in formats.items() if importlib.util.find_spec(f"{form.module}.scan")}
    if source.format not in able:
        raise VariantFailed(f"not from a source of format {source.format}: layers can be scanned of {', '.join(able)}")
    module = able[source.format]
    return schema.part(module, "scan"), schema.part(module, "make").REQUIRES


def decibels(noise: float) -> float:
    return round(float(min(200.0, -10 * np.log10(max(noise, 1e-20)))), DIGITS)


def described(found: Mapping[str, Any]) -> dict[str, Any]:
    layers = {
        path: {"sqnr_db": decibels(layer["noise"]), "noise": float(f"{layer['noise']:.4g}"), "float_bytes": FLOAT_BYTES * layer["elements"]}
        for path, layer in found["layers"].items()
    }
    return {"layers": layers, "sqnr_db": decibels(found["noise"])}


def scan(scheme: str, configuration: schema.Config, folder: Path) -> Manifest:
    """Do the scans of one scheme into `folder`. VariantFailed where this source cannot be scanned."""
    source = artifact.require_ok(artifact.read(SOURCE), str(SOURCE))
    tool, requires = scanner(configuration.formats, source)
    samples = Samples.open(job.DATA)
    for key, settings in configuration.scans[scheme].items():
        feeds = job.calibration_feeds(samples, job.chosen(samples, settings.samples))
        with making(requires):
            artifact.write_json(folder / f"{key}.json", described(tool.scan(SOURCE, feeds, settings.per_channel)))
    return Manifest(kind="sensitivity", scheme=scheme, format=source.format, config_key=f"scans.{scheme}", tools=tool_versions(requires))
