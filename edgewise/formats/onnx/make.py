"""Make model.onnx: convert the source, and quantize with ONNX Runtime's own tools.

A torch program is exported with the names of its weights kept and repeatable bytes; an ONNX file stays as it is.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import BATCH, WAYS_TO_ONNX, describe_port, find_integer_operator
from edgewise.formats.common.quiet import suppress_warnings
from edgewise.formats.onnx import channels, facts, qdq, ranges, recipes

SOURCES = ("torch", "onnx")
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"onnx": "onnx", "onnxruntime": "onnx", "onnxscript": "onnx", "torch": "train", "nncf": "openvino"}
OPEN_SIZES = True

PRODUCTS = qdq.PRODUCTS
INT8 = {"weights": "int8", "activations": "int8", "covers": PRODUCTS}
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": PRODUCTS},
    "fp16": {"weights": "float16", "activations": "float16", "covers": PRODUCTS},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": ("Conv", "Gemm", "LSTM", "MatMul")},
    "int8-static": INT8,
    "int8-mixed": INT8,
    "int8-qat": INT8,
    "int4-weight": {"weights": "int4", "activations": "float32", "covers": ("Gemm", "MatMul")},
}
STATIC = {"calibration.method": tuple(ranges.METHODS), "per_channel": (False, True), "symmetric": (False, True)}
STATIC |= {"reduce_range": (False, True), "tail": ("float", "int8"), "tool": ("onnxruntime", "nncf")}
SETTINGS = {
    "int8-dynamic": {"per_channel": (False, True), "reduce_range": (False, True)},
    "int8-static": {**STATIC, "spread": ("float", "int8")},
    "int8-mixed": {**STATIC, "spread": ("float", "int8")},
    "int8-qat": STATIC,
    "int4-weight": {"block_size": (16, 32, 64, 128, 256), "symmetric": (False, True)},
}
MODEL = "model.onnx"
FLOAT16 = "model.float16.onnx"  # beside it in the source, if the user's file is float16
DERIVED = "/"  # a constant computed from weight W is named W/Transpose, W/Gather ...
SHAPE_OPERATORS = ("Shape", "Size")  # their results are not values of the weight


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. settings: opset (of an export; an ONNX file keeps its own), ir_version. ValueError names a lost layer."""
    import onnx

    kind = json.loads((source / "manifest.json").read_text(encoding="utf-8"))["format"]
    model, layers = READERS[kind](source, settings["opset"])
    model.ir_version = settings["ir_version"]
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, folder / MODEL)
    graph = model.graph
    return {"inputs": [describe_port(t) for t in graph.input], "outputs": [describe_port(t) for t in graph.output], "layers": layers}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> Sequence[str]:
    """plugins.Maker.quantize. A file that is quantized already stays unchanged: it is the one scheme that it is."""
    import onnx

    model = onnx.load(parent / MODEL)
    if find_integer_operator(model):
        _check_own_scheme(parent, scheme)
        shutil.copyfile(parent / MODEL, folder / MODEL)
        return ()
    version, own = model.ir_version, source / FLOAT16
    with suppress_warnings():
        float16 = scheme == "fp16" and own.exists() and not keep_nodes
        left = channels.find_spread(model, calibration) if settings.get("spread") == "float" else ()
        kept = [*keep_nodes, *left, *(facts.find_tail(parent).operators if settings.get("tail") == "float" else ())]
        quantized = onnx.load(own) if float16 else recipes.RECIPES[scheme](model, settings, calibration, kept)
    quantized.ir_version = version
    onnx.save(quantized, folder / MODEL)
    return left


def _check_own_scheme(parent: Path, scheme: str) -> None:
    """ValueError if a file that is quantized already is to be something else than it is."""
    nodes = facts.facts(parent)["nodes"]
    integer = [node for node in nodes if "float" not in node["weights_dtype"]]
    largest = max(integer or nodes, key=lambda node: node["elements"], default={"weights_dtype": "no", "activations_dtype": "no"})
    kind = [largest[key].removeprefix("u") for key in ("weights_dtype", "activations_dtype")]
    own = [name for name, declared in SCHEMES.items() if [declared["weights"], declared["activations"]] == kind]
    if scheme not in own:
        what = f"measured as {', '.join(own)}" if own else f"none of the schemes here: it has {kind[0]} weights with {kind[1]} activations"
        raise ValueError(f"the file is quantized already and stays as it is: it can be {what}, not {'as ' if own else ''}{scheme}")


def from_onnx(source: Path, opset: int) -> tuple[Any, dict[str, list[str]]]:
    """source/model.onnx unchanged; its layers are its nodes."""
    import onnx

    return onnx.load(source / "model.onnx"), json.loads((source / "layers.json").read_text(encoding="utf-8"))


def from_torch(source: Path, opset: int) -> tuple[Any, dict[str, list[str]]]:
    """source/program.pt2 as a ModelProto, and the nodes of each source layer.

    ValueError names the layers whose weights are in no node of the graph.
    """
    import torch

    manifest = json.loads((source / "manifest.json").read_text(encoding="utf-8"))
    with suppress_warnings():
        program = torch.export.load(source / "program.pt2")
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            verbose=False,
            optimize=False,  # weights are named first: folding a constant would lose the name
            input_names=[tensor["name"] for tensor in manifest["inputs"]],
            output_names=[tensor["name"] for tensor in manifest["outputs"]],
            opset_version=opset,
        )
        _name_derived_weights(exported.model.graph)
        exported.optimize()
        model = exported.model_proto
    _strip_metadata(model)
    return model, find_layer_nodes(model, _weight_names(program, manifest["details"]["layers"]))


def _name_derived_weights(graph: Any) -> None:
    """Name each value that is computed from one weight and constants after that weight."""
    weights = {id(value): name for name, value in graph.initializers.items()}
    constants = set(weights)
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if not all(id(value) in constants for value in inputs):
            continue
        constants.update(id(value) for value in node.outputs)
        weight = next((weights[id(value)] for value in inputs if id(value) in weights), None)
        if weight is not None and node.op_type not in SHAPE_OPERATORS:
            node.outputs[0].name = f"{weight}{DERIVED}{node.op_type}"
            weights[id(node.outputs[0])] = node.outputs[0].name


def _strip_metadata(model: Any) -> None:
    """Remove stack traces, paths, and inferred shapes, which quantizers infer again and differently."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    for tensor in (*graph.input, *graph.output):
        for dim in tensor.type.tensor_type.shape.dim[:1]:
            if dim.dim_param:
                dim.dim_param = BATCH


def _weight_names(program: Any, layers: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Source layer -> possible names of its weight: its own, and those of equal weights, with which it may have been merged."""
    import torch

    tensors = program.state_dict

    def names(weight: str) -> list[str]:
        own = tensors[weight]
        equal = [name for name, other in tensors.items() if other.shape == own.shape and torch.equal(other, own)]
        return [weight, *equal]

    return {layer: names(entry["weight"]) for layer, entry in layers.items()}


def find_layer_nodes(model: Any, weights: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Source layer -> names of the nodes that use its weight. weights: source layer -> names of its weight, best first.

    ValueError names the layers without a node.
    """
    users: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            users.setdefault(name.partition(DERIVED)[0], []).append(node.name)
    found = {layer: next((users[n] for n in names if n in users), []) for layer, names in weights.items()}
    lost = [layer for layer, nodes in found.items() if not nodes]
    if lost:
        raise ValueError(f"no node of the ONNX graph uses the weights of layer {', '.join(lost)}: keep_float could not reach it")
    return found


READERS = {"torch": from_torch, "onnx": from_onnx}
