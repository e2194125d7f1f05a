"""What a torch program is given when it is exported, and the exported one as a module that TorchScript compiles and traces.

The graph of an exported program calls ATen overloads (aten.linear.default), which TorchScript has without the name of the overload.
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
