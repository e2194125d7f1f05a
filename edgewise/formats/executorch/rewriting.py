"""Rewrite a graph so that XNNPACK's delegate takes more of it; the values stay the same.

XNNPACK takes a mean over both axes of a picture only if it keeps them, and its quantizer knows a product with a constant matrix only as
`linear`.
"""

from typing import Any

TRANSPOSED = "_transposed"  # suffix of the attribute with a transposed weight
PICTURE_AXES = ([2, 3], [3, 2], [-1, -2], [-2, -1])


def rewrite(module: Any) -> None:
    """Rewrite a GraphModule of an exported program in place."""
    import torch

    aten = torch.ops.aten
    rules = {aten.mean.dim: _keep_axes, aten.addmm.default: _make_linear, aten.mm.default: _make_linear, aten.matmul.default: _make_linear}
    for node in list(module.graph.nodes):
        rule = rules.get(node.target) if node.op == "call_function" else None
        if rule is not None:
            rule(module, node)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()


def _keep_axes(module: Any, node: Any) -> None:
    """mean(x, [2, 3]) as mean(x, [2, 3], keepdim=True) and a view."""
    import torch

    axes, keeps = list(node.args[1] or ()), len(node.args) > 2 and node.args[2]
    size = node.args[0].meta["val"].shape
    if keeps or node.kwargs or len(size) != 4 or axes not in PICTURE_AXES:
        return
    with module.graph.inserting_before(node):
        mean = module.graph.call_function(torch.ops.aten.mean.dim, (node.args[0], [-1, -2], True))
        flat = module.graph.call_function(torch.ops.aten.view.default, (mean, [int(size[0]), int(size[1])]))
    mean.meta, flat.meta = {**node.meta, "val": node.meta["val"][:, :, None, None]}, dict(node.meta)
    _replace(module, node, flat)


def _make_linear(module: Any, node: Any) -> None:
    """x @ W, and b + x @ W, with a constant matrix W as linear(x, W.T, b)."""
    import torch

    bias, data, weight = (None, *node.args[:2]) if node.target != torch.ops.aten.addmm.default else node.args[:3]
    matrix = _constant(module, weight)
    vector = None if bias is None else _constant(module, bias)
    if node.kwargs or matrix is None or matrix.ndim != 2 or (bias is not None and (vector is None or vector.ndim != 1)):
        return
    name = f"{weight.target}{TRANSPOSED}"
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, torch.nn.Parameter(matrix.detach().t().contiguous(), requires_grad=False))
    with module.graph.inserting_before(node):
        turned = module.graph.get_attr(name)
        product = module.graph.call_function(torch.ops.aten.linear.default, (data, turned, *([bias] if bias is not None else ())))
    turned.meta, product.meta = {**weight.meta, "val": weight.meta["val"].t()}, dict(node.meta)
    _replace(module, node, product)


def _constant(module: Any, node: Any) -> Any | None:
    """The tensor that a node reads from the module; None for a computed one."""
    if getattr(node, "op", None) != "get_attr":
        return None
    owner, _, leaf = node.target.rpartition(".")
    return getattr(module.get_submodule(owner), leaf)


def _replace(module: Any, node: Any, new: Any) -> None:
    node.replace_all_uses_with(new)
    module.graph.erase_node(node)
