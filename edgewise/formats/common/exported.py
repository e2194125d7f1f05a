"""A program of torch.export as a module that TorchScript compiles and traces.

The program's graph calls ATen overloads (aten.linear.default), which TorchScript has without the name of the overload.
"""

from collections.abc import Sequence
from typing import Any

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
