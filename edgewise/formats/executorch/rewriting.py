"""Rewrite a graph so that XNNPACK's delegate takes more of it; the values stay the same.

XNNPACK takes weights only as constants of the file, and a mean over both axes of a picture only if it keeps them; its quantizer knows a
product with a constant matrix only as `linear`. ATen's matmul of more than two axes becomes copies around a product that it does not take.
"""

from typing import Any

DERIVED = "_edgewise_"  # WEIGHT_edgewise_1 is computed of WEIGHT
PICTURE_AXES = ([2, 3], [3, 2], [-1, -2], [-2, -1])


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
