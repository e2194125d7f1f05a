"""What a TorchScript file really holds, read from its code and its constants."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.formats.torch.run import MODEL, import_torch

PACKED = "_prepacked"  # suffix of the name under which make.py stores an int8 weight
HOLDER = re.compile(rf"(\.weight)?({PACKED})?$")
CONVERSIONS = ("quantize_per_tensor", "quantize_per_channel", "dequantize")
WEIGHT_DTYPES = {"float64", "float32", "float16", "bfloat16", "int8", "uint8"}


@dataclass(frozen=True)
class Holder:
    """A node and a constant of two or more dimensions that it reads; `attribute` is the constant's path in the file."""

    attribute: str
    operator: str
    dtype: str
    elements: int
    dynamic: bool

    @property
    def activations(self) -> str:
        return "dynamic" if self.dynamic else self.dtype


def layer_of(attribute: str) -> str:
    """Path of the module that holds a weight, from the path of the weight or its packed form; other parameters keep their path."""
    return HOLDER.sub("", attribute)


def facts(folder: Path) -> Mapping[str, Any]:
    """plugins.Facts of model.pt. Operators have ATen's names; `dynamic`: activations are quantized at run time."""
    module = import_torch().jit.load(str(Path(folder) / MODEL), map_location="cpu")
    names, holders = Counter[str](), dict[tuple[str, str], Holder]()
    for node in _nodes(module.inlined_graph):
        operator = node.kind().split("::")[1].removesuffix("_dynamic")
        found = [holder for holder in (_holder(module, operator, node, value) for value in node.inputs()) if holder]
        if not found and not node.kind().startswith(("prim::", "quantized::")):
            names[operator] += 1
        holders.update({(holder.attribute, operator): holder for holder in found})
    names.update(f"{holder.operator}[{holder.activations}]" for holder in holders.values())
    unique = {holder.attribute: holder for holder in reversed(holders.values())}
    bytes_by_dtype = Counter[str]()
    for holder in unique.values():
        bytes_by_dtype[holder.dtype] += holder.elements * int(re.sub(r"\D", "", holder.dtype)) // 8
    return {
        "operators": dict(sorted(names.items())),
        "weights_bytes_by_dtype": dict(sorted(bytes_by_dtype.items())),
        "weights_elements": sum(holder.elements for holder in unique.values()),
        "nodes": [_describe(holder, unique[holder.attribute] is holder) for holder in holders.values()],
        "conversions": {name: count for name, count in names.items() if name in CONVERSIONS},
    }


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


def _holder(module: Any, operator: str, node: Any, value: Any) -> Holder | None:
    import torch

    path = _path(value)
    if path is None or node.kind() == "prim::GetAttr":
        return None
    held = _attribute(module, path)
    dynamic = isinstance(held, torch.ScriptObject) and node.kind().startswith("quantized::linear_dynamic")
    weight = unpack_weight(held) if dynamic else held
    if not isinstance(weight, torch.Tensor) or weight.dim() < 2:
        return None
    dtype = str(weight.dtype).removeprefix("torch.").removeprefix("q")
    return Holder(path, operator, dtype, weight.numel(), dynamic) if dtype in WEIGHT_DTYPES else None


def unpack_weight(held: Any) -> Any:
    """The weight, qint8 [outputs, inputs], of an object made by quantized.linear_prepack."""
    import torch

    return torch.ops.quantized.linear_unpack(held)[0]


def _path(value: Any) -> str | None:
    """Dotted path of a value that is read from the module, None for any other value."""
    parts: list[str] = []
    node = value.node()
    while node.kind() == "prim::GetAttr":
        parts.insert(0, node.s("name"))
        node = next(node.inputs()).node()
    return ".".join(parts) if parts and node.kind() == "prim::Param" else None


def _attribute(module: Any, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _describe(holder: Holder, first: bool) -> dict[str, Any]:
    """A weight that several nodes share counts at the first of them."""
    return {
        "name": layer_of(holder.attribute),
        "operator": holder.operator,
        "weights_dtype": holder.dtype,
        "activations_dtype": holder.activations,
        "elements": holder.elements if first else 0,
    }
