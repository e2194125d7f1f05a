"""What a model.pte really holds, and how much of it XNNPACK runs."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.formats.common.counting import count_elements
from edgewise.formats.executorch.reading import File, Node, read
from edgewise.formats.executorch.run import MODEL


def facts(folder: Path) -> Mapping[str, Any]:
    """plugins.Facts of model.pte. Operators have XNNPACK's names, those outside of it the names of ATen.

    delegation: {"delegate", "operators": how many the file has, "delegated": how many of them XNNPACK runs, "calls" of XNNPACK, "left":
    {operator: count} of the others}. Neither conversions between float and integer nor changes of a layout that the lowering added count
    there.
    """
    file = read(Path(folder) / MODEL)
    weighted = [node for node in file.nodes if node.weights]
    unique = {weight.name: weight for node in weighted for weight in node.weights}.values()
    sizes = Counter[str]()
    for weight in unique:
        sizes[weight.dtype] += weight.bytes
    counts = count_elements([node.weights for node in weighted])
    return {
        "operators": dict(sorted(Counter(f"{n.operator}[{n.activations}]" if n.weights else n.operator for n in file.nodes).items())),
        "weights_bytes_by_dtype": dict(sorted(sizes.items())),
        "weights_elements": sum(weight.elements for weight in unique),
        "nodes": [_describe(node, count) for node, count in zip(weighted, counts, strict=True)],
        "conversions": dict(sorted(Counter(node.operator for node in file.nodes if node.converts).items())),
        "delegation": describe_delegation(file),
    }


def describe_delegation(file: File) -> dict[str, Any]:
    counted = [node for node in file.nodes if not node.added and not node.converts]
    left = Counter(node.operator for node in counted if not node.delegated)
    return {
        "delegate": "XNNPACK",
        "operators": len(counted),
        "delegated": len(counted) - left.total(),
        "calls": file.delegates,
        "left": dict(sorted(left.items())),
    }


def _describe(node: Node, elements: int) -> dict[str, Any]:
    main = max(node.weights, key=lambda weight: weight.elements)
    return {
        "name": node.name,
        "operator": node.operator,
        "weights_dtype": main.dtype,
        "activations_dtype": node.activations,
        "elements": elements,
    }
