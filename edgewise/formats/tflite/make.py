"""Make TFLite files: of a torch program, of a Keras model, or of a TFLite file, each by the tools that its framework has.

source    float model      quantized by
torch     litert-torch     the AI Edge Quantizer
keras     TFLiteConverter  TFLiteConverter; int4 by the AI Edge Quantizer, since the converter has none
tflite    the file itself  the AI Edge Quantizer; a file that is quantized already stays as it is
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.tflite import aeq, facts, keras, naming

SOURCES = ("torch", "keras", "tflite")
ELSEWHERE = {"onnx": "onnx2tf, which needs an environment of its own, makes a TFLite file of it, to be brought in its place"}
REQUIRES = {"ai_edge_litert": "tflite", "ai_edge_quantizer": "tflite", "litert_torch": "tflite", "tensorflow": "keras"}
SCHEMES = aeq.SCHEMES
SETTINGS = aeq.SETTINGS
Arrays = dict[str, np.ndarray]


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """plugins.Maker.convert. A node that computes a layer of the source bears the layer's path; where the source has none (a TFLite file,
    a SavedModel) the nodes keep their names, which then are its layers."""
    manifest, path = _manifest(source), folder / facts.FILE
    described = manifest["details"]["layers"]
    sides = {side: [entry["name"] for entry in manifest[side]] for side in ("inputs", "outputs")}
    wanted = described
    if manifest["format"] == "torch":
        used = aeq.write(source, path, sides["inputs"])
        wanted = {name: layer for name, layer in described.items() if layer["weight"] in used}
    elif manifest["format"] == "keras":
        keras.write(source / manifest["details"]["file"], path, "fp32", _shapes(manifest), {}, [])
    else:
        shutil.copyfile(source / manifest["details"]["file"], path)
    model = facts.read(path)
    naming.name_signature(model, **sides)
    nodes = facts.read_nodes(model)
    if not described:  # a graph without layers of its own: a TFLite file, a SavedModel
        named = {node.name: [node.name] for node in nodes if node.weights}
    else:
        found = naming.match(wanted, _weights(source), nodes)
        named = naming.name_nodes(model, {name: found.get(name, []) for name in described})
    facts.write(model, path)
    return {**{side: [{**entry, "shape": [1, *entry["shape"][1:]]} for entry in manifest[side]] for side in sides}, "layers": named}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[Arrays],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize. settings: as for aeq.quantize."""
    float_file, path = parent / facts.FILE, folder / facts.FILE
    manifest = _manifest(source)
    held = held_as(parent) if manifest["format"] == "tflite" else []
    if held and scheme not in held:
        raise ValueError(f"the file is quantized already and stays as it is: it can be measured as {', '.join(held)}, not as {scheme}")
    if held or scheme == "fp32":
        shutil.copyfile(float_file, path)
    elif manifest["format"] == "keras" and scheme in keras.SCHEMES:
        _check_keras(settings, keep_nodes)
        keras.write(source / manifest["details"]["file"], path, scheme, _shapes(manifest), settings, calibration)
        _name_as(float_file, path, manifest)
    else:
        aeq.quantize(float_file, path, scheme, settings, calibration, keep_nodes)


def _check_keras(settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> None:
    if keep_nodes:
        raise ValueError("keep_float: TFLiteConverter quantizes all layers of a Keras model or none; remove keep_float")
    method = (settings["calibration"] or {}).get("method", "minmax")
    if method != "minmax":
        raise ValueError(f"calibration.method: {method!r}; TFLiteConverter has minmax only")


def _name_as(float_file: Path, path: Path, manifest: Mapping[str, Any]) -> None:
    model = facts.read(path)
    naming.name_signature(model, *([entry["name"] for entry in manifest[side]] for side in ("inputs", "outputs")))
    naming.copy_names(facts.read(float_file), model)
    facts.write(model, path)


def held_as(folder: Path) -> list[str]:
    """The schemes that a file which is quantized already can be measured as; none for a float file."""
    nodes = facts.facts(folder)["nodes"]
    largest = max(nodes, key=lambda node: node["elements"], default=None)
    if largest is None or largest["weights_dtype"] == "float32":
        return []
    kind = [largest[key].removeprefix("u") for key in ("weights_dtype", "activations_dtype")]
    return [name for name, scheme in SCHEMES.items() if [scheme["weights"], scheme["activations"]] == kind]


def _shapes(manifest: Mapping[str, Any]) -> list[list[int | None]]:
    return [entry["shape"] for entry in manifest["inputs"]]


def _weights(source: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(source / "weights.safetensors")


def _manifest(source: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    return manifest
