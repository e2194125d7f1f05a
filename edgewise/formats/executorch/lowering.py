"""A torch program as a graph for one sample, and that graph as the bytes of a model.pte with XNNPACK as its delegate.

torch.export     the program, for any number of samples
Prepared.module  the same graph for one sample, rewritten so that XNNPACK takes more of it; each operator that applies a weight is marked
                 with the name of its layer, which quantizers and lowering carry along
lower            the file. It has no names of its own, so a second method returns them

Rewriting leaves the values as they are. XNNPACK takes weights only as constants of the file, and a mean over both axes of a picture only if
it keeps them; its quantizer knows a product with a constant matrix only as `linear`. ATen's matmul of more than two axes becomes copies
around a product that it does not take.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.programs import make_example
from edgewise.formats.common.weighted_nodes import number_names
from edgewise.formats.executorch.run import NAMES, import_runtime

MARK = "edgewise_node"  # in the `custom` metadata of a node: the name of the layer's call
PRODUCTS = ("convolution", "linear", "addmm", "mm", "bmm")  # operators of XNNPACK's delegates that have a weight
DELEGATE = "executorch_call_delegate"
UNEMITTED = ("getitem", "alloc")  # nodes outside of delegates that are no operators of the file
DERIVED = "_edgewise_"  # WEIGHT_edgewise_1 is computed of WEIGHT
PICTURE_AXES = ([2, 3], [3, 2], [-1, -2], [-2, -1])


@dataclass(frozen=True)
class Prepared:
    """A source for one sample. module: a GraphModule with weights as attributes; examples: its inputs; layers: names of the nodes of each
    source layer, none for a layer that the program never calls."""

    module: Any
    examples: tuple[Any, ...]
    manifest: Mapping[str, Any]
    layers: Mapping[str, list[str]]


def prepare(source: Path) -> Prepared:
    """Read models/source. ValueError for a program that changes its own buffers, or that torch cannot export for one sample."""
    import torch

    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    with warnings.catch_warnings(action="ignore"):
        program = torch.export.load(source / "program.pt2")
    with np.load(source / "probe.npz") as probe:
        examples = tuple(torch.from_numpy(make_example(entry, probe, manifest["inputs"])) for entry in manifest["inputs"])
    module = export(program.module(check_guards=False), examples).module(check_guards=False)
    _check_buffers(module)
    rewrite(module)
    return Prepared(module, examples, manifest, mark_layers(module, manifest["details"]["layers"], program.state_dict))


def _check_buffers(module: Any) -> None:
    """ValueError for a program that writes into its own buffers: its answers would depend on the runs before."""
    written = [
        given.target
        for node in module.graph.nodes
        if node.op == "call_function" and getattr(getattr(node.target, "_schema", None), "is_mutable", False)
        for given in node.all_input_nodes[:1]
        if given.op == "get_attr"
    ]
    if written:
        raise ValueError(
            f"the program changes its own buffers ({', '.join(sorted(set(written)))}), so that a run depends on those before it; give its"
            " state as an input and an output (model.state)"
        )


def export(module: Any, examples: tuple[Any, ...]) -> Any:
    """An ExportedProgram for inputs of these sizes alone. ValueError in the words of torch."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            return torch.export.export(module, examples)
    except Exception as error:  # torch.export has no common class for what it cannot trace
        raise ValueError(f"torch.export cannot export the model for one sample: {first_line(error)}") from error


def mark_layers(module: Any, layers: Mapping[str, Mapping[str, Any]], weights: Mapping[str, Any]) -> dict[str, list[str]]:
    """Mark the operators that apply the weights of layers. Returns the marks of each layer; layers that share a weight share them."""
    owners: dict[int, list[str]] = {}
    for path, layer in layers.items():
        owners.setdefault(weights[layer["weight"]].data_ptr(), []).append(path)
    calls: dict[str, list[Any]] = {paths[0]: [] for paths in owners.values()}
    for node in module.graph.find_nodes(op="get_attr"):
        name = node.target.partition(DERIVED)[0]
        paths = owners.get(weights[name].data_ptr(), []) if name in weights else []
        if paths:
            calls[paths[0]] += node.users
    places = {node: place for place, node in enumerate(module.graph.nodes)}
    for path, found in calls.items():
        found = sorted(set(found), key=places.__getitem__)
        for call, name in zip(found, number_names(path, len(found)), strict=True):
            call.meta["custom"] = {**call.meta.get("custom", {}), MARK: name}
    return {path: number_names(paths[0], len(set(calls[paths[0]]))) for paths in owners.values() for path in paths}


def lower(module: Any, prepared: Prepared) -> bytes:
    """The content of model.pte. ValueError names the operators that ExecuTorch lacks."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    program = export(module, prepared.examples)
    try:
        with warnings.catch_warnings(action="ignore"):
            edge = to_edge_transform_and_lower(
                program,
                partitioner=[XnnpackPartitioner()],
                compile_config=EdgeCompileConfig(_check_ir_validity=False),  # also what is not in the core set, as far as there is a kernel
            )
            sides = {side: [entry["name"] for entry in prepared.manifest[side]] for side in ("inputs", "outputs")}
            names = {**sides, **name_nodes(edge.exported_program().graph_module)}
            edge._config_methods = {NAMES: json.dumps(names, sort_keys=True)}
            buffer = bytes(edge.to_executorch().buffer)
    except Exception as error:  # of any class, from torch's decompositions, XNNPACK's passes or the emitter
        raise ValueError(f"ExecuTorch cannot lower this program: {first_line(error)}") from error
    return buffer


def name_nodes(graph_module: Any) -> dict[str, Any]:
    """ "delegates" and "kernels" of run.read_names, from a lowered graph."""
    delegates, kernels = [], {}  # type: list[list[str]], dict[str, list[str | None]]
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        packet = packet_name(node)
        if packet == DELEGATE:
            inner = getattr(graph_module, node.args[0].target).original_module.graph
            delegates.append([mark for each in inner.nodes if (mark := read_mark(each)) and packet_name(each) in PRODUCTS])
        elif packet not in UNEMITTED:
            kernels.setdefault(packet, []).append(read_mark(node))
    return {"delegates": delegates, "kernels": {packet: marks for packet, marks in kernels.items() if any(marks)}}


def packet_name(node: Any) -> str:
    """convolution of aten.convolution.default, whatever dialect the operator is of."""
    if node.op != "call_function":
        return ""
    name = getattr(node.target, "_name", None) or getattr(node.target, "__name__", "")
    name = name() if callable(name) else name
    return str(name).rpartition("::")[2].partition(".")[0]


def read_mark(node: Any) -> str | None:
    """The name of the layer's call that a node is."""
    mark: str | None = (node.meta.get("custom") or {}).get(MARK)
    return mark


def output_sizes(prepared: Prepared) -> list[list[int]]:
    """The shapes of the outputs, in order."""
    (output,) = prepared.module.graph.find_nodes(op="output")
    return [[int(size) for size in node.meta["val"].shape] for node in output.args[0]]


def find_missing_kernels(operators: Sequence[str]) -> list[str]:
    """Those of a file's operators (aten::mean.out) that the runtime has no kernel for."""
    known = set(import_runtime()._get_operator_names())
    return sorted(set(operators) - known)


def first_line(error: Exception) -> str:
    """The first line of an error's message that says something."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def rewrite(module: Any) -> None:
    """Rewrite a GraphModule of an exported program in place."""
    import torch

    aten = torch.ops.aten
    rules = {aten.mean.dim: [_keep_axes], aten.addmm.default: [_make_linear], aten.mm.default: [_make_linear]}
    rules[aten.matmul.default] = [_make_linear, _make_bmm]
    _fold_constants(module)
    for node in list(module.graph.nodes):
        for rule in rules.get(node.target, ()) if node.op == "call_function" else ():
            if rule(module, node):
                break
    _separate_biases(module)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def _fold_constants(module: Any) -> None:
    """Compute what depends on weights alone: normalized weights, transposed ones. Tables stay, whose rows are looked up."""
    import torch

    for node in list(module.graph.nodes):
        given = node.all_input_nodes
        if node.op != "call_function" or not given or any(each.op != "get_attr" for each in given):
            continue
        if not isinstance(node.meta.get("val"), torch.Tensor) or node.target == torch.ops.aten.embedding.default:
            continue
        arguments = torch.fx.node.map_arg((node.args, node.kwargs), lambda each: _constant(module, each))
        with torch.no_grad():
            value = node.target(*arguments[0], **arguments[1])
        origin = next((each for each in given if each.target.endswith("weight")), given[0])
        _replace(module, node, _add_constant(module, node, origin.target, value))


def _add_constant(module: Any, node: Any, origin: str, value: Any) -> Any:
    """A node in front of `node` that reads `value`, which was computed of the attribute `origin`."""
    import torch

    owner, _, leaf = origin.partition(DERIVED)[0].rpartition(".")
    held = module.get_submodule(owner)
    number = sum(
        name.startswith(f"{leaf}{DERIVED}")
        for name in (*dict(held.named_parameters(recurse=False)), *dict(held.named_buffers(recurse=False)))
    )
    name = f"{leaf}{DERIVED}{number + 1}"
    if value.is_floating_point():
        held.register_parameter(name, torch.nn.Parameter(value.detach().contiguous(), requires_grad=False))
    else:
        held.register_buffer(name, value.contiguous())
    with module.graph.inserting_before(node):
        new = module.graph.get_attr(f"{owner}.{name}" if owner else name)
    new.meta = {"val": value}
    return new


def _keep_axes(module: Any, node: Any) -> bool:
    """mean(x, [2, 3]) as mean(x, [2, 3], keepdim=True) and a view."""
    import torch

    axes, keeps = list(node.args[1] or ()), len(node.args) > 2 and node.args[2]
    size = node.args[0].meta["val"].shape
    if keeps or node.kwargs or len(size) != 4 or axes not in PICTURE_AXES:
        return False
    with module.graph.inserting_before(node):
        mean = module.graph.call_function(torch.ops.aten.mean.dim, (node.args[0], [-1, -2], True))
        flat = module.graph.call_function(torch.ops.aten.view.default, (mean, [int(size[0]), int(size[1])]))
    mean.meta, flat.meta = {**node.meta, "val": node.meta["val"][:, :, None, None]}, dict(node.meta)
    return _replace(module, node, flat)


def _make_linear(module: Any, node: Any) -> bool:
    """x @ W, and b + x @ W, with a constant matrix W as linear(x, W.T, b)."""
    import torch

    bias, data, weight = (None, *node.args[:2]) if node.target != torch.ops.aten.addmm.default else node.args[:3]
    matrix = _constant(module, weight)
    vector = None if bias is None else _constant(module, bias)
    if node.kwargs or matrix is None or matrix.ndim != 2 or (bias is not None and (vector is None or vector.ndim != 1)):
        return False
    turned = _add_constant(module, node, weight.target, matrix.t())
    with module.graph.inserting_before(node):
        product = module.graph.call_function(torch.ops.aten.linear.default, (data, turned, *([bias] if bias is not None else ())))
    product.meta = dict(node.meta)
    return _replace(module, node, product)


def _make_bmm(module: Any, node: Any) -> bool:
    """A product of two computed values of equally many axes, three or more, as bmm of three axes."""
    import torch

    left, right = (list(given.meta["val"].shape) for given in node.args)
    if len(left) < 3 or left[:-2] != right[:-2]:
        return False
    view, bmm = torch.ops.aten.reshape.default, torch.ops.aten.bmm.default
    with module.graph.inserting_before(node):
        flat = [module.graph.call_function(view, (given, [-1, *size[-2:]])) for given, size in zip(node.args, (left, right), strict=True)]
        product = module.graph.call_function(bmm, tuple(flat))
        result = module.graph.call_function(view, (product, [*left[:-1], right[-1]]))
    for new in (*flat, product, result):
        new.meta = {key: value for key, value in node.meta.items() if key != "val"}
    result.meta["val"] = node.meta["val"]
    return _replace(module, node, result)


def _separate_biases(module: Any) -> None:
    """Give each call of a layer a bias of its own. XNNPACK rounds a bias by the scale of the inputs, once for all calls that share it
    (1.5: a layer that is called twice then gives -7 dB instead of 21)."""
    import torch

    aten, seen = torch.ops.aten, set()
    layers = (aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.conv_transpose2d.input)
    for node in list(module.graph.nodes):
        if node.target not in layers or len(node.args) < 3:
            continue
        bias = node.args[2]
        held = _constant(module, bias)
        if bias in seen and held is not None:
            node.update_arg(2, _add_constant(module, node, bias.target, held.clone()))
        seen.add(bias)


def _constant(module: Any, node: Any) -> Any | None:
    """The tensor that a node reads from the module; None for a computed one."""
    if getattr(node, "op", None) != "get_attr":
        return None
    owner, _, leaf = node.target.rpartition(".")
    return getattr(module.get_submodule(owner), leaf)


def _replace(module: Any, node: Any, new: Any) -> bool:
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)
    return True
