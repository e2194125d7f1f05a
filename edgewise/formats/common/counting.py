"""How many weights each node of a file has."""

from collections.abc import Iterable, Sequence
from typing import Protocol


class Weight(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def elements(self) -> int: ...


def count_elements(nodes: Iterable[Sequence[Weight]]) -> list[int]:
    """Elements of the weights of each node, in order; a weight that several nodes share counts at the first of them."""
    seen: set[str] = set()
    counts = []
    for weights in nodes:
        new = {weight.name: weight.elements for weight in weights if weight.name not in seen}
        seen |= new.keys()
        counts.append(sum(new.values()))
    return counts
