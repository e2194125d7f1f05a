"""Normalize an ONNX graph, so that every quantizer and converter accepts it.

One opset, float32, unique names of nodes, inputs and outputs named as in the data, constants folded (see onnx_rewriting), batch norms
fused. Notes tell the user what was changed. A graph that is quantized already (see onnx_numbers) only gets the names and shapes of its
ports: whatever else were done to it, its runtime would round in another way.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import Port
from edgewise.onnx_reading import iterate_graphs, make_names
from edgewise.sources import onnx_numbers, onnx_rewriting
from edgewise.sources.onnx_rewriting import replace_nodes
from edgewise.sources.oracle import Fit

OPSET = 20  # older files are converted to it; see conf/format/onnx.yaml
QUANTIZABLE = 13  # the first opset with scales per channel
OLDEST = 7
DOMAINS = ("", "ai.onnx", "com.microsoft")
UNPACKING = ("Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
PRODUCTS = ("Conv", "ConvTranspose", "GRU", "Gather", "Gemm", "LSTM", "MatMul", "RNN", *onnx_numbers.STATIC, *onnx_numbers.DYNAMIC)
BATCH = "batch"


def find_unsupported(model: Any) -> str | None:
    """What in the model no runtime here can execute, and the next step; or None."""
    opset = _opset(model)
    if opset < OLDEST:
        return f"opset {opset} is too old; export it again with opset {OLDEST} or later"
    foreign = next((node for graph in iterate_graphs(model.graph) for node in graph.node if node.domain not in DOMAINS), None)
    if foreign is not None and foreign.domain not in {function.domain for function in model.functions}:
        return f"node {foreign.name or foreign.output[0]} is {foreign.domain}.{foreign.op_type}, a custom operator; export without it"
    unknown = None if foreign is not None else _find_unknown_operator(model, opset)
    if unknown is not None:
        return unknown
    if not list_inputs(model):
        return "it has no inputs; export it with its inputs"
    strange = next((tensor.name for tensor in list_inputs(model) if not tensor.type.HasField("tensor_type")), None)
    return f"input {strange} is not a tensor; export it with tensors as inputs" if strange is not None else None


def _find_unknown_operator(model: Any, opset: int) -> str | None:
    """The first node with an operator that the model's opset does not have; or None."""
    import onnx

    for graph in iterate_graphs(model.graph):
        for node in graph.node:
            if node.domain in ("", "ai.onnx") and not _is_known(node.op_type, min(opset, onnx.defs.onnx_opset_version())):
                return f"node {node.name or node.output[0]} is {node.op_type}, which ONNX opset {opset} does not have; export it again"
    return None


def _is_known(operator: str, opset: int) -> bool:
    import onnx

    try:
        onnx.defs.get_schema(operator, max_inclusive_version=opset, domain="")
    except onnx.defs.SchemaError:
        return False
    return True


def list_inputs(model: Any) -> list[Any]:
    """Inputs without weights, which old files list among them."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [tensor for tensor in model.graph.input if tensor.name not in held]


def describe_tensor(tensor: Any) -> dict[str, Any]:
    """Name, shape (None for a dynamic dimension) and dtype as numpy spells it."""
    import onnx

    kind = tensor.type.tensor_type
    shape = [dim.dim_value if dim.dim_value > 0 else None for dim in kind.shape.dim]
    return {"name": tensor.name, "shape": shape, "dtype": onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name}


def normalize(model: Any, fit: Fit, sizes: Mapping[str, Sequence[int | None]]) -> tuple[Any, list[str]]:
    """The normalized model and notes on what was changed.

    fit: what each port of the file is; outputs that it does not name are removed, constant inputs become part of the graph. sizes: name of
    an input in the file -> the data's sizes of one sample, None for one that stays open.
    """
    found = onnx_numbers.recognize_quantized(model)
    if found:
        onnx_rewriting.round_weights(model)
        return model, [f"it is {found.described}, and stays as it is", *_fit_ports(model, fit, sizes)]
    changed = [*_convert_opset(model), *onnx_numbers.to_float32(model)]
    notes = [*changed, *_fit_ports(model, fit, sizes)]
    lift_out_of_bodies(model)
    return _fold(model), notes


def keep_float16(model: Any, fit: Fit, sizes: Mapping[str, Sequence[int | None]]) -> Any | None:
    """A float16 graph as it is, but for its ports, which are those of the normalized one; None for any other graph."""
    if onnx_numbers.find_precision(model) != "float16":
        return None
    kept = type(model).FromString(model.SerializeToString())
    _fit_ports(kept, fit, sizes)
    kept.graph.ClearField("value_info")
    onnx_numbers.widen_ports(kept.graph)
    return kept


def _fit_ports(model: Any, fit: Fit, sizes: Mapping[str, Sequence[int | None]]) -> list[str]:
    """Names, sizes and constant inputs as the pipeline has them; names for all nodes, and all constants as initializers. Returns notes."""
    notes = [*_freeze(model, fit.inputs), *_choose_ports(model, fit.made)]
    _name_nodes(model)
    lift_constants(model)
    notes += _fix_sizes(model, fit, sizes)
    _rename(model.graph, {**fit.given, **fit.made})
    return notes


def _freeze(model: Any, ports: Sequence[Port]) -> list[str]:
    """Make initializers of inputs that always have the same value, which settles the branches that depend on them."""
    from onnx import helper, numpy_helper

    values = {port.name: port.value for port in ports if port.value is not None}
    frozen = [tensor for tensor in list_inputs(model) if tensor.name in values]
    for tensor in frozen:
        value = np.array(values[tensor.name], helper.tensor_dtype_to_np_dtype(tensor.type.tensor_type.elem_type))
        model.graph.initializer.append(numpy_helper.from_array(value, tensor.name))
        model.graph.input.remove(tensor)
    return [f"input {tensor.name} is the constant {values[tensor.name]} (model.inputs)" for tensor in frozen]


def _choose_ports(model: Any, names: Mapping[str, str]) -> list[str]:
    """Leave only real inputs, and the outputs that have a name. Returns a note for each output that is removed."""
    graph, real = model.graph, list_inputs(model)
    graph.ClearField("input")
    graph.input.extend(real)
    kept = [tensor for tensor in graph.output if tensor.name in names]
    notes = [f"output {tensor.name} is removed" for tensor in graph.output if tensor.name not in names]
    graph.ClearField("output")
    graph.output.extend(kept)
    return notes


def _fold(model: Any) -> Any:
    """The model without what can be computed beforehand. Nodes and weights keep their names: fusions and inlined branches change them."""
    named = {node.name for graph in iterate_graphs(model.graph) for node in graph.node}
    held = {tensor.name for graph in iterate_graphs(model.graph) for tensor in graph.initializer}
    owners = _find_owners(model)
    model = onnx_rewriting.fold(model)
    _rename(model.graph, _restored((tensor.name for tensor in model.graph.initializer), held))
    restored = _restored((node.name for node in model.graph.node), named)
    for node in model.graph.node:
        node.name = restored.get(node.name, node.name)
    for node, weight, _ in _nodes_with_weights(model):
        node.name = owners.get(weight, node.name)
    _compute_constants(model.graph)
    _name_nodes(model)
    return model


def _compute_constants(graph: Any) -> None:
    """Let a node give each output that is a constant: the tools that narrow types look for the node behind an output."""
    from onnx import helper

    ends = {tensor.name for tensor in graph.output}
    names = {tensor.name: f"{tensor.name}/constant" for tensor in graph.initializer if tensor.name in ends}
    for tensor in graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
    graph.node.extend(helper.make_node("Identity", [held], [name]) for name, held in names.items())


def _restored(names: Iterable[str], originals: Set[str]) -> dict[str, str]:
    """Name that was made by putting something in front of an original one -> the original, where no other value has it."""
    given = [*names]
    found = {}
    for name in given:
        original = next((name[start:] for start in range(1, len(name)) if name[start:] in originals), None)
        if name not in originals and original is not None and original not in given:
            found[name] = original
            given.append(original)
    return found


def lift_constants(model: Any) -> None:
    """Make initializers of the tensors in Constant nodes, where some exporters keep all weights: fusions and quantizers look for
    initializers."""
    for graph in iterate_graphs(model.graph):
        kept = []
        for node in graph.node:
            if node.op_type == "Constant" and node.domain in DOMAINS and node.attribute[0].name == "value":
                lifted = graph.initializer.add()
                lifted.CopyFrom(node.attribute[0].t)
                lifted.name = node.output[0]
            else:
                kept.append(node)
        if len(kept) < len(graph.node):
            replace_nodes(graph, kept)


def lift_out_of_bodies(model: Any) -> None:
    """Keep the weights of the bodies of If, Loop and Scan in the graph around them, where quantizers look for weights. Those whose name
    another value has stay, and those that a body gives back."""
    main, *bodies = iterate_graphs(model.graph)
    names = Counter(
        name for graph in (main, *bodies) for name in (*_names(graph.initializer), *_names(graph.input), *_list_made(graph.node))
    )
    for body in bodies:
        ends = set(_names(body.output))
        copies = [type(tensor).FromString(tensor.SerializeToString()) for tensor in body.initializer]
        body.ClearField("initializer")
        for tensor in copies:
            (main if names[tensor.name] == 1 and tensor.name not in ends else body).initializer.append(tensor)


def _names(tensors: Iterable[Any]) -> list[str]:
    return [tensor.name for tensor in tensors]


def _list_made(nodes: Iterable[Any]) -> list[str]:
    return [name for node in nodes for name in node.output]


def _find_owners(model: Any) -> dict[str, str]:
    """Weight -> name of the one node that uses it. Those of a shared weight keep their own names: no fusion changes them."""
    users = [(weight, node.name) for node, weight, _ in _nodes_with_weights(model)]
    count = Counter(weight for weight, _ in users)
    return {weight: name for weight, name in users if count[weight] == 1}


def list_layers(model: Any) -> dict[str, dict[str, Any]]:
    """All nodes with a weight matrix, by name: type, name of the weight, shape."""
    return {node.name: {"type": node.op_type, "weight": weight, "shape": shape} for node, weight, shape in _nodes_with_weights(model)}


def _opset(model: Any) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _convert_opset(model: Any) -> list[str]:
    """Convert to OPSET if quantizers need it. An opset that onnx cannot convert stays; quantizers may then reject it."""
    from onnx import version_converter

    opset = _opset(model)
    if opset > OPSET:
        return [f"opset {opset} is newer than {OPSET}: runtimes that are two years old may reject it"]
    if opset >= QUANTIZABLE:
        return []
    try:
        raised = version_converter.convert_version(model, OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        return [f"opset {opset} is kept, onnx cannot convert it to {OPSET}: {' '.join(str(error).split())[:160]}"]
    model.CopyFrom(raised)
    return [f"opset {opset} was converted to {OPSET}, since quantizers need {QUANTIZABLE} or later"]


def _name_nodes(model: Any) -> None:
    """Give a unique name to nodes that have none, or the same as another."""
    taken: set[str] = set()
    for graph in iterate_graphs(model.graph):
        for place, node in enumerate(graph.node):
            if not node.name or node.name in taken:
                node.name = next(name for name in make_names(node.op_type, place) if name not in taken)
            taken.add(node.name)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Rename values everywhere; other values that already have a new name are renamed too."""
    changed = {new: f"{new}/inner" for new in names.values()} | dict(names)
    for inner in iterate_graphs(graph):
        for tensor in (*inner.input, *inner.output, *inner.initializer):
            tensor.name = changed.get(tensor.name, tensor.name)
        for node in inner.node:
            for values in (node.input, node.output):
                values[:] = [changed.get(name, name) for name in values]


def _fix_sizes(model: Any, fit: Fit, sizes: Mapping[str, Sequence[int | None]]) -> list[str]:
    """Set dynamic dimensions to the sizes that the data has, except the sample axis, which gets one name in all ports. Returns a note for
    each fixed batch size, and for each input whose sizes were open."""
    axes, made = ({port.name: port.sample_axis for port in side} for side in (fit.inputs, fit.outputs))
    samples = {port.name: None if port.sample_axis is None else port.shape[port.sample_axis] for port in fit.inputs}
    pictures = {port.name for port in fit.inputs if port.meaning == "image"}
    notes = []
    for tensor in model.graph.input:
        dims, axis = tensor.type.tensor_type.shape.dim, axes[tensor.name]
        taken = None if axis is None else samples[tensor.name]
        if taken is not None and not dims[axis].HasField("dim_value"):
            dims[axis].dim_value = taken
            notes.append(
                f"input {tensor.name} leaves the number of samples open; it is fixed to {taken}: with more, the file fails or mixes them"
            )
        elif taken is not None:
            notes.append(f"input {tensor.name} has the fixed batch size {dims[axis].dim_value}")
        rest = [dim for place, dim in enumerate(dims) if place != axis]
        wanted = sizes.get(tensor.name, [None] * len(rest))
        opened = [(dim, size) for dim, size in zip(rest, wanted, strict=True) if size and not dim.HasField("dim_value")]
        for dim, size in opened:
            dim.dim_value = size
        if opened:
            given = " x ".join("any" if size is None else str(size) for size in wanted)
            more = "; with data.resize=as_is pictures keep their own sizes" if tensor.name in pictures else ""
            notes.append(f"input {tensor.name} had open sizes; they are fixed to those of the data, {given}{more}")
    for tensor, axis in (*((t, axes[t.name]) for t in model.graph.input), *((t, made[t.name]) for t in model.graph.output)):
        dims = tensor.type.tensor_type.shape.dim
        if axis is not None and axis < len(dims) and not dims[axis].HasField("dim_value"):
            dims[axis].dim_param = BATCH
    return notes


def _nodes_with_weights(model: Any) -> list[tuple[Any, str, list[int]]]:
    """(node, name of its weight, shape) of every product with a constant, also through nodes that only unpack the constant, and in the
    bodies of If and Loop."""
    graphs = [*iterate_graphs(model.graph)]
    constants = {tensor.name: list(tensor.dims) for graph in graphs for tensor in graph.initializer}
    nodes = [node for graph in graphs for node in graph.node]
    producers = {name: node for node in nodes for name in node.output}

    def find_constant(name: str) -> str:
        producer = producers.get(name)
        return find_constant(producer.input[0]) if producer is not None and producer.op_type in UNPACKING else name

    found = []
    for node in nodes:
        weight = (
            next((w for w in map(find_constant, node.input) if len(constants.get(w, ())) >= 2), None) if node.op_type in PRODUCTS else None
        )
        if weight is not None:
            found.append((node, weight, constants[weight]))
    return found
