"""Make TorchScript files of a torch program; quantized by torch's own dynamic quantization."""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.formats.torch import script
from stages.formats.torch.facts import LINEAR, layer_of
from stages.formats.torch.run import MODEL, import_torch

SOURCES = ("torch",)
ELSEWHERE: Mapping[str, str] = {}  # nothing that is kept reads other files into torch
REQUIRES = {"torch": "torch"}
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": ("linear", "conv1d", "conv2d", "conv3d", "embedding")},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": ("linear",)},  # torch has no dynamic convolutions
}
SETTINGS: Mapping[str, Mapping[str, tuple]] = {"fp32": {}, "int8-dynamic": {"per_channel": (True, False)}}
Arrays = dict[str, np.ndarray]


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """plugins.Maker.convert. Nodes bear the path, in the program, of the module that holds their weight."""
    manifest, program = read(source)
    graph = script.graph_of(program, [entry["name"] for entry in manifest["inputs"]])
    sides = {side: manifest[side] for side in ("inputs", "outputs")}
    script.compile_to(folder / MODEL, graph, sides)
    used = {node.target for node in graph.graph.find_nodes(op="get_attr")}
    return {**sides, "layers": find_layers(manifest["details"]["layers"], program.state_dict, used)}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[Arrays],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize, anew from the program: a compiled module cannot be quantized. settings: `per_channel`."""
    module, tensors = build(source, scheme, settings, keep_nodes)
    script.compile_to(folder / MODEL, module, tensors)


def build(source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """The variant as a GraphModule, before it is compiled; {"inputs", "outputs"} as in a manifest."""
    manifest, program = read(source)
    graph = script.graph_of(program, [entry["name"] for entry in manifest["inputs"]])
    if scheme == "int8-dynamic":
        graph = quantize_linear(graph, keep_nodes, settings["per_channel"])
    return graph, {side: manifest[side] for side in ("inputs", "outputs")}


def find_layers(layers: Mapping[str, Mapping[str, Any]], weights: Mapping[str, Any], used: set[str]) -> dict[str, list[str]]:
    """The node of each layer; none for a layer that the program never calls. A tied weight is used under one of its names."""
    by_storage = {weights[name].data_ptr(): layer_of(name) for name in used if name in weights}
    places = {path: weights[layer["weight"]].data_ptr() for path, layer in layers.items()}
    return {path: [by_storage[place]] if place in by_storage else [] for path, place in places.items()}


def quantize_linear(module: Any, keep_nodes: Sequence[str], per_channel: bool) -> Any:
    """torch's quantize_dynamic({Linear}) of a program's graph, in which layers are calls of aten.linear: these become modules first."""
    import torch
    from torch.ao import quantization

    paths = _extract_linear(module, keep_nodes)
    module = torch.fx.GraphModule(module, module.graph)  # takes along only what the graph still reads
    recipe = quantization.per_channel_dynamic_qconfig if per_channel else quantization.default_dynamic_qconfig
    with warnings.catch_warnings(action="ignore"):  # deprecated, and all there is for this in torch 2.13
        return quantization.quantize_dynamic(module, dict.fromkeys(paths, recipe), inplace=True)


def _extract_linear(module: Any, keep_nodes: Sequence[str]) -> list[str]:
    """Turn calls of aten.linear on stored weights into calls of Linear modules; returns the modules' paths."""
    import torch

    biases: dict[str, str | None] = {}
    for call in module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear):
        weight, bias = call.args[1], call.args[2] if len(call.args) > 2 else None
        if weight.op != "get_attr" or (bias and bias.op != "get_attr") or layer_of(weight.target) in keep_nodes:
            continue
        path, bias_name = f"{layer_of(weight.target)}.{LINEAR}", bias.target if bias else None
        if biases.setdefault(path, bias_name) != bias_name:
            continue  # one weight under two biases: the second call stays float, and facts() says so
        module.add_submodule(path, _linear(module.get_parameter(weight.target), module.get_parameter(bias_name) if bias else None))
        with module.graph.inserting_before(call):
            call.replace_all_uses_with(module.graph.call_module(path, (call.args[0],)))
        module.graph.erase_node(call)
    module.graph.eliminate_dead_code()
    return list(biases)


def _linear(weight: Any, bias: Any) -> Any:
    import torch

    linear = torch.nn.Linear(*reversed(weight.shape), bias=bias is not None, device="meta")
    linear.weight, linear.bias = weight, bias
    return linear.eval()


def read(source: Path) -> tuple[dict[str, Any], Any]:
    """Manifest and program of a source."""
    torch = import_torch()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return json.loads((source / "manifest.json").read_text(encoding="utf-8")), torch.export.load(source / "program.pt2")
