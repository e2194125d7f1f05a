"""Sources in the graphs that OpenVINO makes of them: which nodes hold the weights of which layer.

An ONNX file is converted by OpenVINO's own frontend, and its nodes are found again by name, by the name of their output, or by their
weights. A Keras model, by way of a SavedModel, and a float TFLite file are read here. Names in the graphs that OpenVINO makes of these
contain counters of the process. So nodes with weights are renamed: after the layer whose weights they hold, if the source has layers, else
after the first named tensor that is computed from them.

Keras and TensorFlow take 800 MB and may abort, so the SavedModel is written in a process of its own:

    python -m edgewise.formats.openvino.readers MODEL FOLDER
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import read_rows
from edgewise.formats.common.weighted_nodes import match_layers, number_names
from edgewise.formats.openvino.facts import constant, list_operators, weights
from edgewise.onnx_reading import iterate_graphs

FOLDED = ("BatchNormalization", "Div", "Mul")  # OpenVINO folds a constant scale behind a product into its weights
MAX_STEPS_BACK = 2  # from the output of an ONNX node to the product inside it: bias, product
RECURRENT = {"GRU": "GRUSequence", "LSTM": "LSTMSequence", "RNN": "RNNSequence"}
FLOATS = ("f16", "f32", "f64")


class NodeFinder:
    """names: of the nodes of the ONNX file."""

    def __init__(self, path: Path, model: Any):
        import onnx

        graphs = [*iterate_graphs(onnx.load(path).graph)]
        self.written = {node.name: node for graph in graphs for node in graph.node}
        self.tensors = {tensor.name: tensor for graph in graphs for tensor in graph.initializer}
        self.scaled = {node.input[0]: node.output[0] for node in self.written.values() if node.op_type in FOLDED}
        nodes = [node for node in list_operators(model) if node.get_type_name() != "Result"]  # which has the name of what it returns
        self.nodes = [node for node in nodes if weights(node)]
        self.producers = {name: node for node in nodes for port in node.outputs() for name in port.get_names()}

    @property
    def names(self) -> Iterable[str]:
        return self.written.keys()

    def find(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Names of the nodes that hold the weights of each of these ONNX nodes; usually one. If the graph has lost them it is the name
        itself, which is in no graph: only a setting that keeps this node float has to fail then."""
        weighted = {node.get_friendly_name(): node for node in self.nodes}
        found = {name: self._find_by_name(name, weighted) for name in names}
        claimed = {name for nodes in found.values() for name in nodes}
        free = [node for name, node in weighted.items() if name not in claimed]
        lost = [name for name, nodes in found.items() if not nodes]
        return {**found, **{name: [name] for name in lost}, **self._match_recurrent(lost, free), **self._match_weights(lost, free)}

    def _find_by_name(self, name: str, weighted: dict[str, Any]) -> list[str]:
        for candidate in (name, f"{name}/WithoutBiases"):
            if candidate in weighted:
                return [candidate]
        result = self.written[name].output[0]
        node = self.producers.get(result)
        if node is None and result in self.scaled:  # the result has no name of its own once its scale is folded
            node = self.producers.get(self.scaled[result])
        if node is not None and node.get_type_name() == "Constant":  # a table that is read at constant positions is folded into its readers
            readers_of_table = [port.get_node() for port in node.output(0).get_target_inputs()]
            return [reader.get_friendly_name() for reader in readers_of_table if weights(reader)]
        for _ in range(MAX_STEPS_BACK):
            if node is not None and weights(node):
                return [node.get_friendly_name()]
            node = node.input_value(0).get_node() if node is not None and node.get_input_size() else None
        return []

    def _match_recurrent(self, names: Sequence[str], free: Sequence[Any]) -> dict[str, list[str]]:
        """Recurrent layers by their order, if none of them is missing: OpenVINO has the gates in another order."""
        found = {}
        for kind, theirs in RECURRENT.items():
            layers = [name for name in names if self.written[name].op_type == kind]
            nodes = [node.get_friendly_name() for node in free if node.get_type_name() == theirs]
            found.update({name: [node] for name, node in zip(layers, nodes, strict=False)} if len(layers) == len(nodes) else {})
        return found

    def _match_weights(self, names: Sequence[str], free: Sequence[Any]) -> dict[str, list[str]]:
        """Products whose scale, and then the sum behind it, was folded: no output has its own name any more."""
        tables = {name: rows for name in names if (rows := read_rows(self.written[name], self.tensors)) is not None}
        theirs = {place: node_rows(node) for place, node in enumerate(free)}
        layers = {name: {"type": self.written[name].op_type, "name": name} for name in tables}
        matched = match_layers(layers, lambda layer: tables[layer["name"]], theirs, same_table)
        return {name: [free[place].get_friendly_name() for place in places] for name, places in matched.items() if places}


def read_source(source: Path) -> tuple[Any, dict[str, list[str]]]:
    """The model with the names of the source, and the nodes of each layer. source: models/source of a format in READERS.
    ValueError if OpenVINO cannot read it, or it is already quantized."""
    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    model = _separate(READERS[manifest["format"]](source / manifest["details"]["file"], manifest))
    _check_float(model)
    layers = manifest["details"]["layers"]
    found = _match_nodes(layers, _load_weights(source), model) if layers else _group_by_tensor(model)  # before the ports are renamed
    for ports, side in ((model.inputs, "inputs"), (model.outputs, "outputs")):
        if len(ports) != len(manifest[side]):
            raise ValueError(f"OpenVINO sees {len(ports)} {side} in the source, which has {len(manifest[side])}")
        for port, entry in zip(ports, manifest[side], strict=True):
            port.get_tensor().set_names({entry["name"]})
    return model, _rename_nodes(model, found)


def read_keras(path: Path, manifest: Mapping[str, Any]) -> Any:
    """The inputs and outputs are sorted by name, as in `write_saved_model` and in edgewise.sources.keras_file."""
    with tempfile.TemporaryDirectory() as place:
        model = _convert_model(path if path.is_dir() else write_saved_model(path, Path(place, "saved")))
    return _sort_ports(model, manifest["details"].get("kept"))


def read_tflite(path: Path, manifest: Mapping[str, Any]) -> Any:
    return _convert_model(path)


READERS = {"keras": read_keras, "tflite": read_tflite}


def write_saved_model(model: Path, folder: Path) -> Path:
    """Write a .keras or .h5 file as a SavedModel and return its folder. Its inputs are named input_00, input_01 ..., its outputs
    output_00 ..., in the model's order.
    ValueError if Keras fails or aborts; ChildProcessError if it was killed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError("tensorflow is not installed", name="tensorflow")
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "edgewise.formats.openvino.readers", str(model.resolve()), str(folder)]
    place = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env={**os.environ, **quiet})
    if -done.returncode in (signal.SIGKILL, signal.SIGTERM):
        raise ChildProcessError("Keras was killed while it exported the model; free some memory, then run the same command again")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(f"Keras cannot export the model as a SavedModel: {lines[-1][:300] if lines else 'it says nothing'}")
    return folder


def _convert_model(path: Path) -> Any:
    import openvino

    try:
        return openvino.convert_model(path)
    except Exception as error:  # OpenVINO's frontends have no other common base class
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ValueError(f"OpenVINO cannot read the source: {' '.join(lines[-2:])[:300]}") from error


def _sort_ports(model: Any, kept: Sequence[int] | None) -> Any:
    """kept: positions of outputs, sorted by name; None: all of them."""
    import openvino

    parameters = sorted(model.get_parameters(), key=lambda node: min(node.output(0).get_names()))
    results = sorted(model.get_results(), key=lambda node: min(node.output(0).get_names()))
    results = results if kept is None else [results[place] for place in kept]
    return openvino.Model(results, parameters, model.get_friendly_name())


def _separate(model: Any) -> Any:
    """The model with a copy for each result that gives back an input, or what a result before it gives: each needs a name of its own."""
    import openvino
    from openvino import opset8

    seen: set[tuple[str, int]] = set()
    results = []
    for result in model.get_results():
        value = result.input_value(0)
        key = value.get_node().get_friendly_name(), value.get_index()
        if key in seen or value.get_node().get_type_name() == "Parameter":
            result = opset8.result(opset8.convert(value, value.get_element_type().get_type_name()))
        seen.add(key)
        results.append(result)
    return openvino.Model(results, model.get_parameters(), model.get_friendly_name())


def _check_float(model: Any) -> None:
    """ValueError for a quantized model: OpenVINO would compute something else than the file's own runtime."""
    origins = (constant(value.get_node()) for node in model.get_ordered_ops() if weights(node) for value in node.input_values())
    stored = {origin.get_element_type().get_type_name() for origin in origins if origin is not None and len(origin.get_output_shape(0)) > 1}
    if stored - {*FLOATS} or any(node.get_type_name() == "FakeQuantize" for node in model.get_ops()):
        raise ValueError("the file is quantized already: OpenVINO would round it in another way; measure it as it is, with tflite")


def _group_by_tensor(model: Any) -> dict[str, list[Any]]:
    """Nodes with weights by the name of the first named tensor computed from them, or by position if the next node with weights comes
    first."""
    found: dict[str, list[Any]] = {}
    for place, node in enumerate(model.get_ordered_ops()):
        if weights(node):
            found.setdefault(_first_tensor_name(node) or f"{node.get_type_name()}@{place}", []).append(node)
    return found


def _first_tensor_name(node: Any) -> str | None:
    while node is not None and node.get_type_name() != "Result":
        names: set[str] = node.output(0).get_names()
        if names:
            return min(names)
        users = [port.get_node() for port in node.output(0).get_target_inputs()]
        node = users[0] if len(users) == 1 and node.get_output_size() == 1 and not weights(users[0]) else None
    return None


def _rename_nodes(model: Any, found: Mapping[str, list[Any]]) -> dict[str, list[str]]:
    """Name the nodes of each layer after it, and make sure that no other node has such a name. Returns layer -> names; of a layer without
    nodes its own, which is that of no node: only a setting that keeps it float has to fail then."""
    named = {layer: number_names(layer, len(nodes)) for layer, nodes in found.items()}
    pairs = ((node, name) for layer, nodes in found.items() for node, name in zip(nodes, named[layer], strict=True))
    renamed = {node.get_friendly_name(): name for node, name in pairs}
    told = {layer: names or [layer] for layer, names in named.items()}
    taken = {name for names in told.values() for name in names}
    for node in model.get_ordered_ops():
        name = node.get_friendly_name()
        if name in renamed and weights(node):
            node.set_friendly_name(renamed[name])
        elif name in taken:
            node.set_friendly_name(f"{name}/{node.get_type_name()}")
    return told


def _load_weights(source: Path) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    return load_file(source / "weights.safetensors")


def _match_nodes(layers: Mapping[str, Mapping[str, Any]], values: Mapping[str, np.ndarray], model: Any) -> dict[str, list[Any]]:
    """Nodes of each layer path, in the order of execution; none for a layer that is in no node. layers: {path: {"type", "weight",
    "shape"}}; values: weights by those names, in torch's layout."""
    nodes = [node for node in model.get_ordered_ops() if weights(node)]
    rows = {place: node_rows(node) for place, node in enumerate(nodes)}
    found = match_layers(layers, lambda layer: layer_rows(layer["type"], values[layer["weight"]]), rows, same_table)
    return {path: [nodes[i] for i in places] for path, places in found.items()}


def layer_rows(kind: str, weight: np.ndarray) -> np.ndarray:
    """[output channels, the rest], in torch's order."""
    weight = np.swapaxes(weight, 0, 1) if kind.startswith("ConvTranspose") else weight
    return weight.reshape(len(weight), -1)


def node_rows(node: Any) -> list[np.ndarray]:
    """The layouts in which a node's largest constant may hold the rows of a layer."""
    origins = (constant(value.get_node()) for value in node.input_values())
    held = max((origin.get_data() for origin in origins if origin is not None), key=lambda array: array.size)
    kind = node.get_type_name()
    if kind == "ConvolutionBackpropData":
        held = np.swapaxes(held, 0, 1)
    if kind.startswith("Group"):  # [groups, outputs of each, ...]
        held = held.reshape(-1, *held.shape[2:])
    return [held, held.T] if held.ndim == 2 else [held.reshape(len(held), -1)] if held.ndim else []


def same_table(layer: np.ndarray, node: np.ndarray) -> bool:
    return layer.shape == node.shape and np.array_equal(layer, node)


def main() -> None:
    import keras

    from edgewise.formats.common.programs import flatten_keras

    model = flatten_keras(keras.saving.load_model(sys.argv[1], compile=False))
    shapes = [(None, *tensor.shape[1:]) for tensor in model.inputs]
    signature = [keras.InputSpec(shape=shape, dtype=t.dtype, name=t.name) for shape, t in zip(shapes, model.inputs, strict=True)]
    model.export(sys.argv[2], verbose=False, input_signature=[signature])


if __name__ == "__main__":
    main()
