"""From a source to an ncnn net, by pnnx, a program that reads TorchScript and ONNX and writes the files of ncnn.

Its nets take one sample. It takes the axis of samples away from each blob, since those of ncnn have four axes at most, and writes a script
that says where that axis was. It numbers its layers; they get the names of the source's, found by their weights.
"""

import importlib.util
import json
import re
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import find_integer_operator
from edgewise.formats.common.programs import make_example, to_graph_module
from edgewise.formats.common.quiet import suppress_warnings
from edgewise.formats.common.weighted_nodes import is_part_of_table, match_layers, number_names
from edgewise.formats.ncnn import net_files, pnnx_repairs
from edgewise.formats.ncnn.net_files import Layer, plain_name
from edgewise.formats.ncnn.pnnx_repairs import widen_masks

AXES = re.compile(r"\b(in\d+|out\d+)\.numpy\((?:batch_index=(\d+))?\)(?:, batch_index=(\d+))?")
NO_AXIS = "233"  # pnnx's number for a blob without an axis of samples
CODES = {  # numpy's types in the words of pnnx
    **{"float16": "f16", "float32": "f32", "float64": "f64", "bool": "bool"},
    **{f"{sign}int{bits}": f"{'u' if sign else 'i'}{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
RECURRENT = ("LSTM", "GRU", "RNN")  # of an ONNX file pnnx writes neither their sizes nor their weights
Entry = Mapping[str, Any]
TABLE = "Embedding"


@dataclass(frozen=True)
class Converted:
    """axes: blob (in0, out0 ...) -> the axis of samples that it lacks; None: it lacks none."""

    layers: list[Layer]
    axes: Mapping[str, int | None]


def convert(source: Path, manifest: Mapping[str, Any]) -> Converted:
    """The net of models/source. ValueError in one line where pnnx cannot make it, or ncnn lacks an operator, which is named."""
    check_single(manifest["inputs"])
    with np.load(source / "probe.npz") as probe:
        given = {entry["name"]: make_example(entry, probe, manifest["inputs"]) for entry in manifest["inputs"]}
    fixed = {entry["name"] for entry in manifest["inputs"] if entry.get("value") is not None}
    with tempfile.TemporaryDirectory() as place:
        file = WRITERS[manifest["format"]](source, Path(place), given, fixed)
        run_pnnx(file, [array for name, array in given.items() if name not in fixed])
        return read_converted(Path(place))


def check_single(inputs: Sequence[Entry]) -> None:
    """ValueError for a source that is fixed to more than one sample a run."""
    for entry in inputs:
        axis = entry.get("sample_axis", 0)
        size = None if axis is None or entry.get("state") else entry["shape"][axis]
        if entry.get("value") is None and size not in (None, 1):
            raise ValueError(f"input {entry['name']} is fixed to {size} samples a run, a net of ncnn takes one: export it for one")


def write_torch(source: Path, place: Path, given: Mapping[str, np.ndarray], fixed: set[str]) -> Path:
    """The program as a trace of TorchScript; inputs of `fixed` become constants in it."""
    import torch

    program = torch.export.load(source / "program.pt2")
    tensors = {name: torch.from_numpy(array) for name, array in given.items()}
    with suppress_warnings():
        module = hold_constants(to_graph_module(program, list(given)), tensors, fixed)
        traced = torch.jit.trace(module, tuple(t for name, t in tensors.items() if name not in fixed), check_trace=False)
        traced.save(str(place / "net.pt"))
    return place / "net.pt"


def hold_constants(module: Any, tensors: Mapping[str, Any], fixed: set[str]) -> Any:
    """A module that takes the inputs that are not in `fixed`."""
    import torch

    class Holder(torch.nn.Module):  # type: ignore[misc]  # torch is Any to mypy, see pyproject.toml
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *given: Any) -> Any:
            fed = iter(given)
            return self.module(*(tensor if name in fixed else next(fed) for name, tensor in tensors.items()))

    return Holder().eval() if fixed else module


def write_onnx(source: Path, place: Path, given: Mapping[str, np.ndarray], fixed: set[str]) -> Path:
    """The file with the inputs of `fixed` as initializers. ValueError if it is quantized already."""
    import onnx

    model = onnx.load(source / "model.onnx")
    quantized = find_integer_operator(model)
    if quantized:
        raise ValueError(f"the file is quantized already ({quantized}), which pnnx does not read; measure it as it is, with onnx")
    kept = [value for value in model.graph.input if value.name not in fixed]
    model.graph.ClearField("input")
    model.graph.input.extend(kept)
    model.graph.initializer.extend(onnx.numpy_helper.from_array(given[name], name) for name in sorted(fixed))
    onnx.save(model, place / "net.onnx")
    return place / "net.onnx"


WRITERS = {"torch": write_torch, "onnx": write_onnx}


def run_pnnx(file: Path, examples: Sequence[np.ndarray]) -> None:
    """Write net.ncnn.param, net.ncnn.bin and what else pnnx writes beside the file. ValueError where it fails; ChildProcessError if it was
    killed."""
    shapes = ",".join(f"[{','.join(map(str, array.shape))}]{CODES[array.dtype.name]}" for array in examples)
    command = [str(find_program()), file.name, f"inputshape={shapes}", "fp16=0"]
    done = subprocess.run(command, cwd=file.parent, capture_output=True, text=True, errors="replace", check=False)
    if -done.returncode in (signal.SIGKILL, signal.SIGTERM):
        raise ChildProcessError("pnnx was killed while it converted the model; free some memory, then run the same command again")
    if done.returncode or not file.with_name("net.ncnn.param").exists():
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        raise ValueError(f"pnnx cannot convert this source ({how}): {lines[-1][:300] if lines else 'it says nothing'}; use another format")


def find_program() -> Path:
    """The program in the wheel; importing the wheel would load torch."""
    spec = importlib.util.find_spec("pnnx")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pnnx is not installed", name="pnnx")
    folder = Path(spec.submodule_search_locations[0])
    return next(path for name in ("pnnx", "pnnx.exe") if (path := folder / name).exists())


def read_converted(place: Path) -> Converted:
    """The net that pnnx wrote. ValueError names the operators that ncnn lacks."""
    layers = net_files.read_param((place / "net.ncnn.param").read_text(encoding="utf-8"))
    described = (place / "net.pnnx.param").read_text(encoding="utf-8")
    layers = pnnx_repairs.restore_axes(pnnx_repairs.replace_slices(layers, described), described)
    check_operators(layers)
    script = (place / "net_ncnn.py").read_text(encoding="utf-8")
    found = {blob: made or taken for blob, made, taken in AXES.findall(script)}
    axes = {blob: int(axis) if axis and axis != NO_AXIS else None for blob, axis in found.items()}
    return Converted(widen_masks(net_files.read_arrays(layers, (place / "net.ncnn.bin").read_bytes())), axes)


def check_operators(layers: Sequence[Layer]) -> None:
    import ncnn

    lacking = sorted({layer.kind for layer in layers if ncnn.layer_to_index(layer.kind) < 0})
    if lacking:
        raise ValueError(f"ncnn has no operator for {', '.join(lacking)}; write the model without it, or use another format for it")
    left = sorted({layer.kind for layer in layers if layer.kind in RECURRENT and not layer.integer(0)})
    if left:
        raise ValueError(
            f"pnnx does not translate {', '.join(left)} of an ONNX file; bring the model as a torch program, or use onnx for it"
        )


def name_layers(layers: Sequence[Layer], source: Path, manifest: Mapping[str, Any]) -> tuple[list[Layer], dict[str, list[str]]]:
    """The layers with their names, and the names for each source layer. A layer of the source that is in none keeps its own name, which is
    that of no layer: only a setting that keeps it float has to fail then."""
    known = READERS[manifest["format"]](source, manifest)
    rows = {place: found for place, layer in enumerate(layers) if (found := node_rows(layer))}
    matched = match_layers(known, lambda layer: layer["rows"], rows, is_part_of_table)
    names: dict[int, str] = {}
    for path, places in matched.items():
        for place, name in zip(places, number_names(plain_name(path), len(places)), strict=True):
            names.setdefault(place, name)
    taken = set(names.values())
    others = {layer.name: f"{layer.name}/{layer.kind}" for layer in layers if layer.name in taken}
    named = [replace(layer, name=names.get(i, others.get(layer.name, layer.name))) for i, layer in enumerate(layers)]
    return named, {path: [names[place] for place in places] or [plain_name(path)] for path, places in matched.items()}


def node_rows(layer: Layer) -> list[np.ndarray]:
    """The layouts in which a layer may hold [output channels, rest]."""
    held = [array for name, array in layer.arrays.items() if name.startswith(("weight", "constant")) and array.ndim == 2]
    joined = [np.concatenate([layer.arrays[f"weight_{part}"] for part in ("query", "key", "value")])] if joins_inputs(layer) else []
    return [view for array in (*held, *joined) for view in (array, array.T)]


def joins_inputs(layer: Layer) -> bool:
    """Whether queries, keys and values have inputs of one size, as in torch's in_proj_weight."""
    shapes = {array.shape for name, array in layer.arrays.items() if name in ("weight_query", "weight_key", "weight_value")}
    return layer.kind == "MultiHeadAttention" and len(shapes) == 1


def read_torch_layers(source: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    from safetensors.numpy import load_file

    weights = load_file(source / "weights.safetensors")
    return {
        path: {"type": layer["type"], "rows": to_rows(weights[layer["weight"]], layer["type"].startswith("ConvTranspose"))}
        for path, layer in manifest["details"]["layers"].items()
    }


def to_rows(weight: np.ndarray, transposed: bool) -> np.ndarray:
    """[output channels, rest], float32. transposed: the weight of a transposed convolution, whose input channels come first."""
    weight = np.swapaxes(weight, 0, 1) if transposed else weight
    return np.ascontiguousarray(weight.reshape(len(weight), -1), np.float32)


def read_onnx_layers(source: Path, manifest: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The layers whose node reads its weight from the file itself."""
    import onnx

    graph = onnx.load(source / "model.onnx").graph
    held = {tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) >= 2}
    nodes = {node.name: node for node in graph.node}
    layers: dict[str, list[str]] = json.loads((source / "layers.json").read_text(encoding="utf-8"))
    found: dict[str, dict[str, Any]] = {}
    for path, names in layers.items():
        node = nodes.get(next(iter(names), ""))
        weight = next((held[name] for name in node.input if name in held), None) if node is not None else None
        values = np.zeros((1, 0), np.float32) if weight is None or node is None else read_onnx_rows(node, weight)
        found[path] = {"type": TABLE if node is not None and node.op_type == "Gather" else "", "rows": values}
    return found


def read_onnx_rows(node: Any, weight: Any) -> np.ndarray:
    """The weight of a node as [output channels, rest]; of a product also the other way round would do, see `node_rows`."""
    import onnx

    values = to_rows(onnx.numpy_helper.to_array(weight), node.op_type == "ConvTranspose")
    return values.T if node.op_type == "MatMul" else values


READERS = {"torch": read_torch_layers, "onnx": read_onnx_layers}
