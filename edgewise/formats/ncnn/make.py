"""Make the files of ncnn: convert with pnnx, and quantize by writing weights and scales as ncnn's own tools do, which no wheel has."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import WAYS_TO_ONNX
from edgewise.formats.ncnn import net_files, pnnx_converter, recipes
from edgewise.formats.ncnn.blobs import find_spread
from edgewise.formats.ncnn.run import PORTS

SOURCES = ("torch", "onnx")
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"ncnn": "ncnn", "pnnx": "ncnn", "torch": "ncnn"}
SCHEMES = recipes.SCHEMES
SETTINGS = recipes.SETTINGS


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. Layers of the net are named after those of the source. ValueError in one line where pnnx or ncnn cannot."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    check_floats(manifest["outputs"])
    converted = pnnx_converter.convert(source, manifest)
    layers, found = pnnx_converter.name_layers(converted.layers, source, manifest)
    ports = describe_ports(source, manifest, converted.axes)
    net_files.write(folder, layers)
    (folder / PORTS).write_text(json.dumps(ports, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return {**{side: [plain_port(port, manifest[side]) for port in ports[side]] for side in ports}, "layers": found}


def check_floats(outputs: Sequence[Mapping[str, Any]]) -> None:
    """ValueError for an output of integers: a blob of ncnn does not say what it holds."""
    odd = next((entry for entry in outputs if not is_float(entry)), None)
    if odd:
        raise ValueError(f"output {odd['name']} is {odd['dtype']}; a net of ncnn gives floats alone: leave it out with model.outputs")


def is_float(entry: Mapping[str, Any]) -> bool:
    return bool(entry["dtype"].startswith(("float", "bfloat")))


def plain_port(port: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The port of the source, for one sample."""
    known = next(entry for entry in entries if entry["name"] == port["name"])
    return {**known, "shape": port["shape"], "dtype": port["dtype"]}


def describe_ports(source: Path, manifest: Mapping[str, Any], axes: Mapping[str, int | None]) -> dict[str, list[dict[str, Any]]]:
    """The content of model.json. ValueError where pnnx lost an output."""
    given = [entry for entry in manifest["inputs"] if entry.get("value") is None]
    wanted = manifest["outputs"]
    if len(wanted) != sum(blob.startswith("out") for blob in axes):
        raise ValueError(f"pnnx made {sum(blob.startswith('out') for blob in axes)} outputs of {len(wanted)}; use another format")
    with np.load(source / "probe.npz") as probe:
        shapes = {entry["name"]: find_shape(entry, side, probe) for side, entries in (("in", given), ("out", wanted)) for entry in entries}
    return {
        "inputs": [describe_port(entry, shapes, f"in{i}", axes) for i, entry in enumerate(given)],
        "outputs": [describe_port(entry, shapes, f"out{i}", axes) for i, entry in enumerate(wanted)],
    }


def describe_port(entry: Mapping[str, Any], shapes: Mapping[str, list[int]], blob: str, axes: Mapping[str, int | None]) -> dict[str, Any]:
    """held: the type of the blob, which has 32 bits for each value."""
    shape = shapes[entry["name"]]
    types = {"dtype": "float32", "held": "float32"} if is_float(entry) else {"dtype": entry["dtype"], "held": "int32"}
    return {"name": entry["name"], "blob": blob, "shape": shape, "axis": axes[blob], **types}


def find_shape(entry: Mapping[str, Any], side: str, probe: Mapping[str, np.ndarray]) -> list[int]:
    """The shape for one sample; open axes are as long as in the probe."""
    axis, key = entry.get("sample_axis", 0), f"{side}:{entry['name']}"
    seen = list(probe[key].shape[1:]) if key in probe else []
    rest = [size for place, size in enumerate(entry["shape"]) if place != axis]
    sizes = iter(size if size is not None else seen[place - len(rest)] for place, size in enumerate(rest))
    return [1 if place == axis else next(sizes) for place in range(len(entry["shape"]))]


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> list[str]:
    """plugins.Maker.quantize."""
    layers = net_files.read(parent)
    check_kept(keep_nodes, {layer.name for layer in layers if layer.arrays})
    left = find_spread(parent, layers, calibration) if settings.get("spread") == "float" else []
    net_files.write(folder, recipes.RECIPES[scheme](recipes.Job(parent, layers, settings, calibration, frozenset([*keep_nodes, *left]))))
    shutil.copyfile(parent / PORTS, folder / PORTS)
    return left


def check_kept(keep_nodes: Sequence[str], known: set[str]) -> None:
    """ValueError for layers to keep float that are not among those with weights, see pnnx_converter.name_layers."""
    lost = sorted(set(keep_nodes) - known)
    if lost:
        raise ValueError(f"no layer of the net has the weights of {', '.join(lost)}, so it cannot stay float; remove it from keep_float")
