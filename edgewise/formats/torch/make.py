"""Make TorchScript files of a torch program; int8 by torch's operators for dynamic quantization.

The graph is compiled, not traced, so that the batch stays dynamic: a trace would contain the batch size of the example, or fail.
"""

import io
import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.programs import to_graph_module
from edgewise.formats.torch.facts import PACKED, layer_of
from edgewise.formats.torch.run import MODEL, TENSORS, import_torch

SOURCES = ("torch",)
ELSEWHERE: Mapping[str, str] = {}  # no maintained tool reads other formats into torch
REQUIRES = {"torch": "torch"}
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": ("linear", "conv1d", "conv2d", "conv3d", "embedding")},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": ("linear",)},  # torch has no dynamic convolutions
}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {"fp32": {}, "int8-dynamic": {"per_channel": (True, False)}}
Arrays = dict[str, np.ndarray]
MANGLED_NAME = re.compile(rb"___torch_mangle_\d+")


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """plugins.Maker.convert. Nodes are named after the module that holds their weight, by its path in the program."""
    manifest, program = read_source(source)
    graph = to_graph_module(program, [entry["name"] for entry in manifest["inputs"]])
    compile_graph(folder / MODEL, graph, describe_tensors(manifest))
    used = {node.target for node in graph.graph.find_nodes(op="get_attr")}
    return {
        "inputs": manifest["inputs"],
        "outputs": manifest["outputs"],
        "layers": find_layers(manifest["details"]["layers"], program.state_dict, used),
    }


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[Arrays],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize, from the source's program: a compiled module cannot be quantized. settings: `per_channel`."""
    module, tensors = build(source, scheme, settings, keep_nodes)
    compile_graph(folder / MODEL, module, tensors)


def build(source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> tuple[Any, Mapping[str, Any]]:
    """The variant as a GraphModule, not yet compiled, and its {"inputs", "outputs"} as in a manifest."""
    manifest, program = read_source(source)
    graph = to_graph_module(program, [entry["name"] for entry in manifest["inputs"]])
    if scheme == "int8-dynamic":
        graph = quantize_linear(graph, keep_nodes, settings["per_channel"])
    return graph, describe_tensors(manifest)


def describe_tensors(manifest: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What the file says of its inputs and outputs; ports.json beside it says the rest."""
    kept = ("name", "shape", "dtype", "layout", "meaning")
    return {side: [{key: entry.get(key) for key in kept} for entry in manifest[side]] for side in ("inputs", "outputs")}


def find_layers(layers: Mapping[str, Mapping[str, Any]], weights: Mapping[str, Any], used: set[str]) -> dict[str, list[str]]:
    """The node of each layer; none for a layer that the program never calls. A tied weight is used under one of its names."""
    by_storage = {weights[name].data_ptr(): layer_of(name) for name in used if name in weights}
    places = {path: weights[layer["weight"]].data_ptr() for path, layer in layers.items()}
    return {path: [by_storage[place]] if place in by_storage else [] for path, place in places.items()}


def quantize_linear(module: Any, keep_nodes: Sequence[str], per_channel: bool) -> Any:
    """Dynamic int8 of the linear layers: the same file as torch's quantize_dynamic({Linear}), without torch.ao.quantization, which torch is
    about to remove. aten.linear on a stored weight becomes quantized.linear_dynamic on a packed one.

    torchao cannot do it (0.18, torch 2.13): a module after quantize_ cannot be traced, and fails when run as TorchScript; its exported
    form and that of pt2e call operators written in Python, "Unknown builtin op" to a device with torch alone. Decomposed to ATen it loads,
    but takes 1.4 to 4 times as long. torch deprecates the dtype qint8 of packed weights too (pytorch/pytorch issue 184982)."""
    import torch

    biases: dict[str, str | None] = {}
    for call in module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear):
        weight, bias = call.args[1], call.args[2] if len(call.args) > 2 else None
        if weight.op != "get_attr" or (bias and bias.op != "get_attr") or layer_of(weight.target) in keep_nodes:
            continue
        path, bias_name = weight.target + PACKED, bias.target if bias else None
        if path not in biases:
            owner, _, name = path.rpartition(".")
            packed = pack_weight(module.get_parameter(weight.target), module.get_parameter(bias_name) if bias_name else None, per_channel)
            setattr(module.get_submodule(owner), name, packed)
        if biases.setdefault(path, bias_name) == bias_name:  # one weight under two biases: the second call stays float, facts() says so
            _replace_linear(module.graph, call, path)
    module.graph.eliminate_dead_code()
    return torch.fx.GraphModule(module, module.graph)  # copies only the attributes that the graph still reads


def pack_weight(weight: Any, bias: Any, per_channel: bool) -> Any:
    """weight [outputs, inputs] and bias [outputs] or None, float32, as one object for quantized.linear_dynamic.

    Symmetric int8 with scale max|w| / 127.5, per output channel or per tensor (torchao's choose_qparams_affine, SYMMETRIC).
    """
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor, ", UserWarning)  # deprecated, but linear_prepack accepts nothing else
        bound = weight.abs().amax(dim=1) if per_channel else weight.abs().max()
        scale = (bound / 127.5).clamp(min=torch.finfo(torch.float32).eps)
        if per_channel:
            integers = torch.quantize_per_channel(weight, scale, torch.zeros_like(scale, dtype=torch.int64), 0, torch.qint8)
        else:
            integers = torch.quantize_per_tensor(weight, scale.item(), 0, torch.qint8)
        return torch.ops.quantized.linear_prepack(integers, bias)


def _replace_linear(graph: Any, call: Any, packed: str) -> None:
    """Activations get 7 bits, as in quantize_dynamic: on x86 without VNNI int8 dot products overflow their 16-bit accumulators."""
    import torch

    with graph.inserting_before(call):
        arguments = (call.args[0], graph.create_node("get_attr", packed))  # graph.get_attr expects a tensor
        quantized = graph.call_function(torch.ops.quantized.linear_dynamic, arguments, {"reduce_range": True})
    quantized.meta = dict(call.meta)
    call.replace_all_uses_with(quantized)
    graph.erase_node(call)


def read_source(source: Path) -> tuple[dict[str, Any], Any]:
    """Manifest and program of a source."""
    torch = import_torch()
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        return json.loads((source / "manifest.json").read_text(encoding="utf-8")), torch.export.load(source / "program.pt2")


def compile_graph(path: Path, module: Any, tensors: Mapping[str, Any]) -> None:
    """Compile a GraphModule and write it to `path`; tensors: {"inputs", "outputs"} as in a manifest. ValueError if TorchScript cannot."""
    import torch

    _reset_class_names()
    try:
        with warnings.catch_warnings(action="ignore"):  # that torch.jit is deprecated
            scripted = torch.jit.script(module)
    except (RuntimeError, NotImplementedError, TypeError) as error:
        line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise ValueError(f"TorchScript cannot compile this program: {type(error).__name__}: {line}") from error
    archive = io.BytesIO()
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        torch.jit.save(scripted, archive, _extra_files={TENSORS: json.dumps(tensors, sort_keys=True)})
    archive.seek(0)
    _write_repeatable(archive, path)


def _reset_class_names() -> None:
    """Let the next compilation name its classes as the first in a process does; torch's own tests do the same."""
    import torch

    torch._C._jit_clear_class_registry()
    torch.jit._recursive.concrete_type_store = torch.jit._recursive.ConcreteTypeStore()
    torch.jit._state._clear_class_state()


def _write_repeatable(archive: io.BytesIO, path: Path) -> None:
    """Write an archive without what differs between runs: debug records contain paths of source files, and class names a counter of the
    process."""
    import torch

    reader = torch._C.PyTorchFileReader(archive)
    names = [name for name in reader.get_all_records() if not name.endswith(".debug_pkl") and not name.startswith(".data/")]
    numbers: dict[bytes, bytes] = {}

    def renumber(text: bytes) -> bytes:
        return MANGLED_NAME.sub(lambda found: numbers.setdefault(found[0], b"___torch_mangle_%d" % len(numbers)), text)

    writer = torch._C.PyTorchFileWriter(str(path))
    for name in sorted(names, key=lambda name: (name != "data.pkl", names.index(name))):
        content = reader.get_record(name)
        if name == "data.pkl" or name.startswith("code/"):
            name, content = renumber(name.encode()).decode(), renumber(content)
        writer.write_record(name, content, len(content))
    writer.write_end_of_file()
