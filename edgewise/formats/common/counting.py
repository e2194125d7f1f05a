"""What a file holds, from its nodes with weights: how many each has, in which types they are stored."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import ceil
from typing import Any, Protocol, TypeVar


class Weight(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def elements(self) -> int: ...


N = TypeVar("N")
W = TypeVar("W", bound=Weight)


def count_elements(nodes: Iterable[Sequence[Weight]]) -> list[int]:
    """Elements of the weights of each node, in order; a weight that several nodes share counts at the first of them."""
    seen: set[str] = set()
    counts = []
    for weights in nodes:
        new = {weight.name: weight.elements for weight in weights if weight.name not in seen}
        seen |= new.keys()
        counts.append(sum(new.values()))
    return counts


def collect_facts(
    nodes: Sequence[tuple[N, list[W]]],
    describe: Callable[[N, list[W], int], dict[str, Any]],
    stored: Callable[[W], tuple[str, int]],
    conversions: Iterable[str] = (),
) -> dict[str, Any]:
    """plugins.Facts of a file. nodes: those with weights, and these.

    describe: a node, its weights, and how many elements count at it -> its entry of "nodes". stored: the type of a weight in the file, and
    its bits. conversions: the operator of each node that only converts between types.
    """
    unique = {weight.name: weight for _, weights in nodes for weight in weights}.values()
    sizes: Counter[str] = Counter()
    for weight in unique:
        dtype, bits = stored(weight)
        sizes[dtype] += ceil(weight.elements * bits / 8)
    counts = count_elements(weights for _, weights in nodes)
    described = [describe(node, weights, count) for (node, weights), count in zip(nodes, counts, strict=True)]
    return {
        "operators": dict(Counter(f"{entry['operator']}[{entry['weights_dtype']}]" for entry in described)),
        "weights_bytes_by_dtype": dict(sizes),
        "weights_elements": sum(weight.elements for weight in unique),
        "nodes": described,
        "conversions": dict(Counter(conversions)),
    }
