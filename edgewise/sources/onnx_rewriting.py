"""Rewrite an ONNX graph so that its readers take it; what it computes stays the same.

`repair` rewrites what is allowed in a file and troubles its readers:

sizes written as -1 or 0               open, as paddle2onnx means them
functions of the file's own            their nodes in its graph, where tools look for weights
nodes before those that they read      in the order of computation
two nodes of one name                  another name for the second; newer runtimes refuse the file
outputs that are inputs themselves     copies, NAME_out
outputs that are listed twice          copies, NAME_out
sparse weights                         dense ones, which converters read
initializers that are no inputs        an IR version in which they need not be

`fold` computes beforehand what the graph would compute anew in each run: constants, and the branches that they decide.
"""

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np

from edgewise.onnx_reading import iterate_graphs, make_names, read_shapes

PASSED = "_out"  # behind the name of an input that is given back
PLAIN_INITIALIZERS = 4  # the first IR version whose initializers need not be listed among the inputs
MOVING = ("Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
STORED = ("DequantizeLinear", "QuantizeLinear")  # of constants: weights in a float graph that are stored as integers
MOST_FILLED = 4096  # elements of a ConstantOfShape that is folded: lists of paddings and the like, no tables
ROUNDS = 4  # a branch that is decided may decide another one inside it
UNLIMITED = 1 << 62


def repair(model: Any) -> tuple[Any, bool]:
    """The model, changed in place where it had no functions, and whether anything was changed."""
    from onnx import inliner

    inlined = bool(model.functions)
    model = inliner.inline_local_functions(model) if inlined else model
    steps = (fill_sparse, open_axes, sort_nodes, rename_nodes, copy_passed, raise_version)
    changed = [inlined, *(step(model) for step in steps)]
    return model, any(changed)


def open_axes(model: Any) -> bool:
    """Make dynamic dimensions of those that are written as -1 or 0, as paddle2onnx does. Whether there were any."""
    found = False
    for graph in iterate_graphs(model.graph):
        for tensor in (*graph.input, *graph.output, *graph.value_info):
            for dim in tensor.type.tensor_type.shape.dim:
                if dim.HasField("dim_value") and dim.dim_value <= 0:
                    dim.ClearField("dim_value")
                    found = True
    return found


def sort_nodes(model: Any) -> bool:
    """Put each node behind those whose results it reads. Whether one stood before them."""
    moved = [_sort_graph(graph) for graph in iterate_graphs(model.graph)]
    return any(moved)


def _sort_graph(graph: Any) -> bool:
    left, placed = list(graph.node), list[Any]()
    missing = {name for node in left for name in node.output}
    while left:
        waiting = []
        for node in left:
            if missing.intersection(_list_reads(node)):
                waiting.append(node)
            else:
                placed.append(node)
                missing.difference_update(node.output)
        if len(waiting) == len(left):  # a circle, which every runtime refuses
            return False
        left = waiting
    if all(a is b for a, b in zip(placed, graph.node, strict=True)):
        return False
    replace_nodes(graph, placed)
    return True


def _list_reads(node: Any) -> set[str]:
    """What a node reads, and the bodies in it."""
    bodies = (inner for a in node.attribute for body in (*a.graphs, *([a.g] if a.HasField("g") else [])) for inner in iterate_graphs(body))
    read = {name for body in bodies for each in (*body.node, *body.output) for name in getattr(each, "input", [getattr(each, "name", "")])}
    return {*node.input, *read} - {""}


def replace_nodes(graph: Any, nodes: Sequence[Any]) -> None:
    copies = [type(node).FromString(node.SerializeToString()) for node in nodes]
    graph.ClearField("node")
    graph.node.extend(copies)


def rename_nodes(model: Any) -> bool:
    """Give another name to nodes that have the same as one before them; nodes without a name keep none. Whether there were any."""
    taken: set[str] = set()
    found = False
    for graph in iterate_graphs(model.graph):
        for place, node in enumerate(graph.node):
            if node.name and node.name in taken:
                node.name = next(name for name in make_names(node.op_type, place) if name not in taken)
                found = True
            taken.add(node.name)
    return found


def copy_passed(model: Any) -> bool:
    """Give back a copy, under a name of its own, of an input that is an output and of an output that is listed before. Whether there is
    such an output."""
    from onnx import helper

    graph = model.graph
    given = {tensor.name for tensor in graph.input}
    taken = {*given, *(name for node in graph.node for name in node.output), *(tensor.name for tensor in graph.initializer)}
    found = False
    for tensor in graph.output:
        if tensor.name in given:
            name = next(name for name in _copy_names(tensor.name) if name not in taken)
            graph.node.append(helper.make_node("Identity", [tensor.name], [name]))
            tensor.name = name
            taken.add(name)
            found = True
        given.add(tensor.name)
    return found


def _copy_names(name: str) -> Iterator[str]:
    """NAME_out, NAME_out_out ..."""
    while True:
        name = f"{name}{PASSED}"
        yield name


def fill_sparse(model: Any) -> bool:
    """Store sparse weights as dense ones. Whether there were any."""
    from onnx import helper, numpy_helper

    graphs = [*iterate_graphs(model.graph)]
    held = [(graph, tensor) for graph in graphs for tensor in graph.sparse_initializer]
    for graph, tensor in held:
        graph.initializer.append(numpy_helper.from_array(_to_dense(tensor), tensor.values.name))
    for graph in graphs:
        graph.ClearField("sparse_initializer")
    constants = [node for graph in graphs for node in graph.node if [each.name for each in node.attribute] == ["sparse_value"]]
    for node in constants:
        dense = numpy_helper.from_array(_to_dense(node.attribute[0].sparse_tensor), node.output[0])
        node.attribute[0].CopyFrom(helper.make_attribute("value", dense))
    return bool(held or constants)


def _to_dense(tensor: Any) -> np.ndarray:
    """A sparse tensor with all its zeros. Its indices count in the flat tensor, or stand as [values, axes]."""
    from onnx import numpy_helper

    values, indices = numpy_helper.to_array(tensor.values), numpy_helper.to_array(tensor.indices)
    dense = np.zeros(list(tensor.dims), values.dtype)
    dense[np.unravel_index(indices, dense.shape) if indices.ndim == 1 else tuple(indices.T)] = values
    return dense


def raise_version(model: Any) -> bool:
    """Whether initializers are missing among the inputs of a file whose IR version wants them there; it gets a later one."""
    given = {tensor.name for tensor in model.graph.input}
    wrong = 0 < model.ir_version < PLAIN_INITIALIZERS and any(tensor.name not in given for tensor in model.graph.initializer)
    if wrong:
        model.ir_version = PLAIN_INITIALIZERS
    return bool(wrong)


def fold(model: Any) -> Any:
    """The model with constants folded, batch norms fused, and branches inlined whose condition is constant.

    What only moves values (slices of the weights of an LSTM, say) is folded at any size: it does not grow, and quantizers see no weights
    behind it. Anything else keeps the limits of the optimizer, since an Expand may make a large constant of a small one.
    """
    from onnxscript import optimizer

    for _ in range(ROUNDS):
        model = optimizer.optimize(model)
        settled = _settle_sizes(model)
        if not (_fold_constants(model, _only_moves) or settled):
            break
    model.graph.ClearField("value_info")  # quantizers infer shapes again, and differently
    return model


def _settle_sizes(model: Any) -> bool:
    """Make constants of sizes that are read from a shape and known, beside others that are open: the optimizer takes only whole shapes.
    Whether there were any."""
    from onnx import numpy_helper

    shapes = read_shapes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    read = {node.output[0]: shapes.get(node.input[0]) for node in model.graph.node if node.op_type == "Shape" and not node.attribute}
    known = {}
    for node in model.graph.node:
        sizes = read.get(node.input[0]) if node.op_type == "Gather" else None
        if sizes is None or node.input[1] not in constants:
            continue
        taken = np.array(sizes, object)[numpy_helper.to_array(constants[node.input[1]])]
        if None not in np.ravel(taken).tolist():
            known[node.output[0]] = numpy_helper.from_array(np.array(taken, np.int64), node.output[0])
    left = [type(node).FromString(node.SerializeToString()) for node in model.graph.node if node.output[0] not in known]
    if known:
        model.graph.ClearField("node")
        model.graph.node.extend(left)
        model.graph.initializer.extend(known.values())
    return bool(known)


def round_weights(model: Any) -> None:
    """Store float weights as the integers that a QuantizeLinear makes of them each time the file is loaded."""
    _fold_constants(model, lambda node: node.op_type == "QuantizeLinear")


def _fold_constants(model: Any, chosen: Any) -> bool:
    """Fold the nodes that `chosen` accepts, in place. Whether any was."""
    from onnxscript import optimizer

    limits = {"input_size_limit": UNLIMITED, "output_size_limit": UNLIMITED}
    return bool(optimizer.fold_constants(model, onnx_shape_inference=True, should_fold=chosen, **limits).modified)


def _only_moves(node: Any) -> bool:
    if node.op_type == "ConstantOfShape":
        return bool(prod(node.inputs[0].const_value.numpy().tolist()) <= MOST_FILLED)
    return node.op_type in (*MOVING, *STORED)
