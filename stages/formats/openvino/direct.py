"""Sources that OpenVINO reads itself: a Keras model, as a SavedModel, and a float TFLite file.

Names in such graphs count what a process made, so nodes with weights are named anew: after the layer whose weights they hold, where
the source has layers (see matching), else after the tensor that they or the steps behind them give, as the file calls it.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.formats.openvino import matching, saved
from stages.formats.openvino.facts import constant, weights

FLOATS = ("f16", "f32", "f64")


def read(source: Path) -> tuple[Any, dict[str, list[str]]]:
    """The model with the names of the source, and the nodes of each of its layers. source: models/source of a format in READERS.
    ValueError where OpenVINO cannot read it, or it is quantized already."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    model = READERS[manifest["format"]](source / manifest["details"]["file"], manifest)
    _check_float(model)
    layers = manifest["details"]["layers"]
    found = matching.match(layers, _weights(source), model) if layers else _by_tensors(model)  # before the ports lose their names
    for ports, side in ((model.inputs, "inputs"), (model.outputs, "outputs")):
        if len(ports) != len(manifest[side]):
            raise ValueError(f"OpenVINO sees {len(ports)} {side} in the source, which has {len(manifest[side])}")
        for port, entry in zip(ports, manifest[side], strict=True):
            port.get_tensor().set_names({entry["name"]})
    return model, _name(model, found)


def from_keras(path: Path, manifest: Mapping[str, Any]) -> Any:
    """The inputs come in the order of their names, as `saved` writes them and as the importer takes those of a SavedModel."""
    with tempfile.TemporaryDirectory() as place:
        model = _converted(path if path.is_dir() else saved.write(path, Path(place, "saved")))
    ordered = sorted(model.get_parameters(), key=lambda node: min(node.output(0).get_names()))
    return _reordered(model, ordered)


def from_tflite(path: Path, manifest: Mapping[str, Any]) -> Any:
    return _converted(path)


READERS = {"keras": from_keras, "tflite": from_tflite}


def _converted(path: Path) -> Any:
    import openvino

    try:
        return openvino.convert_model(path)
    except Exception as error:  # OpenVINO's frontends have no other class in common
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"OpenVINO cannot read the source: {' '.join(lines[-2:])[:300]}") from error


def _reordered(model: Any, parameters: list[Any]) -> Any:
    import openvino

    return openvino.Model(model.get_results(), parameters, model.get_friendly_name())


def _check_float(model: Any) -> None:
    """8-bit weights, or steps that round to levels: OpenVINO would compute something else than the file's own runtime does."""
    origins = (constant(value.get_node()) for node in model.get_ordered_ops() if weights(node) for value in node.input_values())
    stored = {origin.get_element_type().get_type_name() for origin in origins if origin is not None and len(origin.get_output_shape(0)) > 1}
    if stored - {*FLOATS} or any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise ValueError("the file is quantized already: OpenVINO would round it in another way; measure it as it is, with tflite")


def _by_tensors(model: Any) -> dict[str, list[Any]]:
    """Each node with weights under the name of the first named tensor from it on; under its place where there is none before the next
    node with weights, whose name it would be."""
    found: dict[str, list[Any]] = {}
    for place, node in enumerate(model.get_ordered_ops()):
        if weights(node):
            found.setdefault(_tensor(node) or f"{node.get_type_name()}@{place}", []).append(node)
    return found


def _tensor(node: Any) -> str | None:
    while node is not None and node.get_type_name() != "Result":
        names = node.output(0).get_names()
        if names:
            return min(names)
        users = [port.get_node() for port in node.output(0).get_target_inputs()]
        node = users[0] if len(users) == 1 and node.get_output_size() == 1 and not weights(users[0]) else None
    return None


def _name(model: Any, found: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """Name the nodes of each layer, and nothing else by these names. Returns layer -> names."""
    named = {layer: [f"{layer}#{n}" if n > 1 else layer for n in range(1, len(nodes) + 1)] for layer, nodes in found.items()}
    pairs = ((node, name) for layer, nodes in found.items() for node, name in zip(nodes, named[layer], strict=True))
    held = {node.get_friendly_name(): name for node, name in pairs}
    taken = set(held.values())
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name in held and weights(node):
            node.set_friendly_name(held[name])
        elif name in taken:
            node.set_friendly_name(f"{name}/{node.get_type_name()}")
    return named


def _weights(source: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(source / "weights.safetensors")
