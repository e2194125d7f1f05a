"""Compute beforehand what an ONNX graph would compute anew in each run: constants, and the branches that they decide."""

from math import prod
from typing import Any

import numpy as np

from edgewise.sources.onnx_reading import read_shapes

MOVING = ("Cast", "Concat", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
STORED = ("DequantizeLinear", "QuantizeLinear")  # of constants: weights in a float graph that are stored as integers
MOST_FILLED = 4096  # elements of a ConstantOfShape that is folded: lists of paddings and the like, no tables
ROUNDS = 4  # a branch that is decided may decide another one inside it
UNLIMITED = 1 << 62


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
