"""Make TFLite files: of a torch program, a Keras model, or a TFLite file, each with the tools of its framework.

source    float model      quantized by
torch     litert-torch     the AI Edge Quantizer
keras     TFLiteConverter  TFLiteConverter; by the AI Edge Quantizer what the converter cannot do: int4, and a tail that stays float
tflite    the file itself  the AI Edge Quantizer; a file that is already quantized stays unchanged
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.programs import make_example
from edgewise.formats.common.quiet import capture_output
from edgewise.formats.tflite import edge_quantizer, facts, keras_converter, naming
from edgewise.formats.tflite.edge_quantizer import REFUSALS, first_line

SOURCES = ("torch", "keras", "tflite")
ELSEWHERE = {"onnx": "onnx2tf, which needs an environment of its own, makes a TFLite file of it, to be brought in its place"}
REQUIRES = {"ai_edge_litert": "tflite", "ai_edge_quantizer": "tflite", "litert_torch": "tflite", "tensorflow": "keras"}
SCHEMES = edge_quantizer.SCHEMES
SETTINGS = edge_quantizer.SETTINGS
Arrays = dict[str, np.ndarray]


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """plugins.Maker.convert. Nodes are named after the layers of the source. If the source has none (a TFLite file, a SavedModel), the
    nodes keep their names and count as layers."""
    manifest, path = _read_manifest(source), folder / facts.FILE
    layers = manifest["details"]["layers"]
    sides = {side: [entry["name"] for entry in manifest[side]] for side in ("inputs", "outputs")}
    used_layers = layers
    if manifest["format"] == "torch":
        used = convert_torch(source, path, manifest["inputs"])
        used_layers = {name: layer for name, layer in layers.items() if layer["weight"] in used}
    elif manifest["format"] == "keras":
        file, kept = source / manifest["details"]["file"], manifest["details"].get("kept")
        keras_converter.write(file, path, "fp32", _input_shapes(manifest), {}, [], kept)
    else:
        shutil.copyfile(source / manifest["details"]["file"], path)
    model = facts.read(path)
    if manifest["format"] == "keras":
        naming.sort_ports(model)
    naming.name_signature(model, **sides)
    nodes = facts.read_nodes(model)
    if not layers:  # a TFLite file, a SavedModel
        named = {node.name: [node.name] for node in nodes if node.weights}
    else:
        found = naming.match_nodes(used_layers, _load_weights(source), nodes)
        named = naming.name_nodes(model, {name: found.get(name, []) for name in layers})
    facts.write(model, path)
    return {**{side: _describe_ports(model, manifest, side) for side in sides}, "layers": named}


def _describe_ports(model: Any, manifest: Mapping[str, Any], side: str) -> list[dict[str, Any]]:
    """The ports of the source with the shapes that they have in the file."""
    graph = model.subgraphs[0]
    shapes = [graph.tensors[index].shape for index in getattr(graph, side)]
    return [
        {**entry, "shape": [] if shape is None else [int(size) for size in shape]}
        for entry, shape in zip(manifest[side], shapes, strict=True)
    ]


def convert_torch(source: Path, path: Path, inputs: Sequence[Mapping[str, Any]]) -> set[str]:
    """Write the TFLite file with litert-torch. Returns the names of the weights that the graph uses, a tied weight under all its names.
    ValueError if the program cannot be converted.

    inputs: as in the source's manifest. The file has batch size 1, or the one that the source is fixed to: litert-torch 0.10 cannot convert
    a flatten or an arange over a dynamic batch.
    """
    try:
        with capture_output():
            return _export_torch(source, path, inputs)
    except REFUSALS as error:
        raise ValueError(f"litert-torch cannot convert this program: {first_line(error)}") from error


def _export_torch(source: Path, path: Path, inputs: Sequence[Mapping[str, Any]]) -> set[str]:
    import litert_torch
    import torch

    program = torch.export.load(source / "program.pt2")
    with np.load(source / "probe.npz") as probe:
        example = tuple(torch.from_numpy(make_example(entry, probe, inputs)) for entry in inputs)
    litert_torch.convert(program.module(check_guards=False), example).export(str(path))
    placeholders = {node.name for node in program.graph.nodes if node.op == "placeholder" and node.users}
    parameters = program.graph_signature.inputs_to_parameters
    storages = {program.state_dict[parameters[name]].data_ptr() for name in placeholders & parameters.keys()}
    return {name for name, tensor in program.state_dict.items() if tensor.data_ptr() in storages}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[Arrays],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize. settings: as for edge_quantizer.quantize and keras_converter.write."""
    float_file, path = parent / facts.FILE, folder / facts.FILE
    manifest = _read_manifest(source)
    schemes = schemes_of_quantized(parent) if manifest["format"] == "tflite" else []
    if schemes and scheme not in schemes:
        raise ValueError(f"the file is quantized already and stays as it is: it can be measured as {', '.join(schemes)}, not as {scheme}")
    held = facts.find_tail(parent).operators if settings.get("tail") == "float" and not schemes else ()
    if schemes or scheme == "fp32":
        shutil.copyfile(float_file, path)
    elif manifest["format"] == "keras" and scheme in keras_converter.SCHEMES and not held:
        _check_keras_settings(settings, keep_nodes)
        file, kept = source / manifest["details"]["file"], manifest["details"].get("kept")
        keras_converter.write(file, path, scheme, _input_shapes(manifest), settings, calibration, kept)
        _copy_names(float_file, path, manifest)
    else:
        edge_quantizer.quantize(float_file, path, scheme, settings, calibration, [*keep_nodes, *held])


def _check_keras_settings(settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> None:
    if keep_nodes:
        raise ValueError("keep_float: TFLiteConverter quantizes all layers of a Keras model or none; remove keep_float")
    method = (settings["calibration"] or {}).get("method", "minmax")
    if method != "minmax":
        raise ValueError(f"calibration.method: {method!r}; TFLiteConverter has minmax only")


def _copy_names(float_file: Path, path: Path, manifest: Mapping[str, Any]) -> None:
    model = facts.read(path)
    naming.sort_ports(model)
    naming.name_signature(model, *([entry["name"] for entry in manifest[side]] for side in ("inputs", "outputs")))
    naming.copy_names(facts.read(float_file), model)
    facts.write(model, path)


def schemes_of_quantized(folder: Path) -> list[str]:
    """The schemes that an already quantized file can be measured as; none for a float file."""
    nodes = facts.facts(folder)["nodes"]
    largest = max(nodes, key=lambda node: node["elements"], default=None)
    if largest is None or largest["weights_dtype"] == "float32":
        return []
    kind = [largest[key].removeprefix("u") for key in ("weights_dtype", "activations_dtype")]
    return [name for name, scheme in SCHEMES.items() if [scheme["weights"], scheme["activations"]] == kind]


def _input_shapes(manifest: Mapping[str, Any]) -> dict[str, list[int | None]]:
    return {entry["name"]: entry["shape"] for entry in manifest["inputs"]}


def _load_weights(source: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(source / "weights.safetensors")


def _read_manifest(source: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    return manifest
