"""Programs of torch and of Keras in the form that converters take.

torch   what a program is given when it is exported, and the exported one as a module that TorchScript compiles and traces. Its graph calls
        ATen overloads (aten.linear.default), which TorchScript has without the name of the overload.
Keras   a model with numbered inputs and outputs, whatever structure of lists and dicts it takes and gives: input_00, output_00 ...
        Converters give inputs and outputs back in an order of their own; the numbers are that of model.inputs and model.outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edgewise.agent.ports import from_samples_first

Entry = Mapping[str, Any]
CHECKS = ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_constrain_range", "sym_constrain_range_for_size")


def to_graph_module(program: Any, inputs: Sequence[str]) -> Any:
    """An ExportedProgram as a GraphModule with plain ATen calls, arguments by the names in `inputs`, and one tensor (or a tuple
    where there are several) as its result."""
    import torch

    module = program.module(check_guards=False)
    graph = module.graph
    for node in list(graph.nodes):
        if isinstance(node.target, torch._ops.OpOverload):
            node.target = node.target.overloadpacket
            if node.target.__name__ in CHECKS:
                graph.erase_node(node)
    for node, name in zip(graph.find_nodes(op="placeholder"), inputs, strict=True):
        node.target = name
    (output,) = graph.find_nodes(op="output")
    if len(output.args[0]) == 1:
        output.args = tuple(output.args[0])
    graph.eliminate_dead_code()
    graph.set_codegen(torch.fx.graph.CodeGen())  # the exported one packs and checks arguments in Python
    return torch.fx.GraphModule(module, graph).eval()


def make_example(entry: Entry, probe: Mapping[str, np.ndarray], inputs: Sequence[Entry]) -> np.ndarray:
    """What one input of the source takes first: of one sample (or of as many as the source is fixed to), or its constant, or zeros as its
    state.

    entry: one of `inputs`, those of the source's manifest. probe: the content of probe.npz.
    """
    if entry.get("value") is not None:
        return np.array(entry["value"], entry["dtype"])
    if entry.get("state"):
        return np.zeros([1 if size is None else size for size in entry["shape"]], entry["dtype"])
    axis = entry.get("sample_axis", 0)
    count = 1 if axis is None else entry["shape"][axis] or 1
    samples = probe[f"in:{entry['name']}"][:count]
    step = samples[:, 0] if any(each.get("state") for each in inputs) else samples
    return np.array(from_samples_first(step, axis), entry["dtype"], order="C")


def flatten_keras(model: Any, shapes: Sequence[Sequence[int | None]] | None = None, kept: Sequence[int] | None = None) -> Any:
    """shapes: of the inputs, batch first; None: those of the model, with an open batch. kept: positions of outputs; None: all of them."""
    import keras

    sides = shapes or [(None, *tensor.shape[1:]) for tensor in model.inputs]
    ports = list(zip(model.inputs, sides, strict=True))
    inputs = [keras.Input(batch_shape=tuple(shape), dtype=port.dtype, name=f"input_{i:02}") for i, (port, shape) in enumerate(ports)]
    outputs = keras.tree.flatten(call_keras(model, inputs))
    return keras.Model(inputs, {f"output_{i:02}": tensor for i, tensor in enumerate(outputs) if kept is None or i in kept})


def call_keras(model: Any, tensors: Sequence[Any]) -> Any:
    """What the model gives for tensors in the order of model.inputs, in its own structure."""
    import keras

    structure = getattr(model, "input", model.inputs)  # a Sequential has none until it is called
    if len(tensors) == 1 and not isinstance(structure, dict):
        return model(tensors[0])
    return model(keras.tree.pack_sequence_as(structure, list(tensors)))
