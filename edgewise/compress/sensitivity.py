"""How much each layer of the source suffers from int8: the scan, and the order in which int8-mixed keeps layers in float."""

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.compress import calibration
from edgewise.config import schema
from edgewise.config.schema import Variant
from edgewise.errors import VariantFailed
from edgewise.plugins import Scanner
from edgewise.proof import checks
from edgewise.proof.making import SOURCE, find_tool_versions, translate_errors
from edgewise.stats.agreement import find_groups

SENSITIVITY = Path("models/sensitivity")
EXTRA_FLOAT_BYTES = 3  # per weight, of float32 over int8
DIGITS = 4  # the last bits of sums depend on the number of threads


def scan_scheme(scheme: str, configuration: schema.Config, folder: Path) -> Manifest:
    """Run all scans of one scheme and write KEY.json for each into `folder`. VariantFailed where this source cannot be scanned."""
    source = artifact.require_ok(artifact.read(SOURCE), str(SOURCE))
    scanner, requires = find_scanner(configuration.formats, source)
    samples = Samples.open(calibration.DATA)
    if samples.ragged:
        raise VariantFailed("layers are scanned with samples of one size, but data.resize is as_is; use int8-static with keep_float")
    parts, ports = find_parts(SOURCE), artifact.plan_ports(source.inputs, source.outputs)
    for key, settings in configuration.scans[scheme].items():
        feeds = calibration.load_feeds(samples, calibration.select(samples, settings.samples))
        with translate_errors(requires):
            artifact.write_json(folder / f"{key}.json", summarize(scanner.scan(SOURCE, feeds, settings.per_channel, parts, ports)))
    return Manifest(
        kind="sensitivity", scheme=scheme, format=source.format, config_key=f"scans.{scheme}", tools=find_tool_versions(requires)
    )


def find_scanner(formats: Mapping[str, schema.Format], source: Manifest) -> tuple[Scanner, Mapping[str, str]]:
    """scan.py of the source's own format, and the packages it needs. VariantFailed where the format has none."""
    scannable = {name: form.module for name, form in formats.items() if importlib.util.find_spec(f"{form.module}.scan")}
    if source.format not in scannable:
        raise VariantFailed(f"sources of format {source.format} cannot be scanned layer by layer; allowed: {', '.join(scannable)}")
    module = scannable[source.format]
    return schema.part(module, "scan"), schema.part(module, "make").REQUIRES


def find_parts(source: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Output -> where in it the groups stand whose values differ in kind. VariantFailed where no output holds floating point numbers."""
    _, expected = checks.read_probe(source)
    found = {name: [group.index for group in find_groups(array)] for name, array in expected.items() if array.dtype.kind == "f"}
    if not found:
        raise VariantFailed("the outputs are integers, which do not show how much a layer loses; use keep_float with int8-static")
    return found


def summarize(scanned: Mapping[str, Any]) -> dict[str, Any]:
    """The content of KEY.json. scanned: noise relative to the signal and number of weights per layer, as scan.py returns them."""
    layers = {
        path: {
            "sqnr_db": to_decibels(layer["noise"]),
            "noise": float(f"{layer['noise']:.4g}"),
            "float_bytes": EXTRA_FLOAT_BYTES * layer["elements"],
        }
        for path, layer in scanned["layers"].items()
    }
    return {"layers": layers, "sqnr_db": to_decibels(scanned["noise"])}


def to_decibels(noise: float) -> float:
    return round(float(min(200.0, -10 * np.log10(max(noise, 1e-20)))), DIGITS)


def rank_layers(variant: Variant, folder: Path = SENSITIVITY) -> list[str]:
    """Source layers in the order in which they should be kept in float: most noise per byte first, the same for every format.

    The noises of single layers add up to that of all of them within a few tenths of a dB (ResNet-18, MobileNetV2). Taking the largest
    quotient first is then the greedy solution of a knapsack problem: fewest bytes for the noise removed.
    """
    assert variant.scan is not None
    artifact.require_ok(artifact.read(folder / variant.scheme), f"{folder / variant.scheme}")
    layers: Mapping[str, Any] = json.loads((folder / variant.scheme / f"{variant.scan.key}.json").read_text(encoding="utf-8"))["layers"]
    return sorted(layers, key=lambda path: (-layers[path]["noise"] / layers[path]["float_bytes"], path))
