"""The nodes of a converted file that have weights: which layers of the source they compute, and how much they hold in which types.

Layers are found by their weights, since converted names are unreliable. Folding a batch norm into a convolution scales each output channel
by its own factor. So rows (one per output channel) are compared by direction only, of either sign. If several layers have equal weights,
the order of execution decides.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import ceil
from typing import Any, Protocol, TypeVar

import numpy as np

MIN_COSINE = 0.999
SameRows = Callable[[np.ndarray, np.ndarray], bool]


def match_layers(
    layers: Mapping[str, Mapping[str, Any]],
    layer_rows: Callable[[Mapping[str, Any]], np.ndarray],
    node_rows: Mapping[int, Sequence[np.ndarray]],
    same_table: SameRows,
) -> dict[str, list[int]]:
    """The nodes of each layer, in the order of execution; none for a layer whose weights no node holds.

    layers: {path: {"type", "weight", "shape"}}. layer_rows(layer): its weight as [output channels, rest]. node_rows: node -> the layouts in
    which its constant may hold such rows. same_table: compares the rows of embeddings.
    """
    sharing: dict[tuple[int, ...], list[str]] = {}
    for path, layer in layers.items():
        same, rows = (same_table if layer["type"] == "Embedding" else same_directions), layer_rows(layer)
        found = tuple(node for node, candidates in node_rows.items() if any(same(rows, candidate) for candidate in candidates))
        sharing.setdefault(found, []).append(path)
    return {path: nodes for found, paths in sharing.items() for path, nodes in _share(paths, found).items()}


def _share(paths: Sequence[str], found: Sequence[int]) -> dict[str, list[int]]:
    """Assign nodes to layers with equal weights, in order; the last layer gets all that are left (a single layer: all its calls). No
    nodes: none for each."""
    if not found:
        return {path: [] for path in paths}
    final = len(found) - 1  # if the converter merged equal weights there are more layers than nodes: the rest share the last node
    shared = {path: [found[min(i, final)]] for i, path in enumerate(paths[:-1])}
    return {**shared, paths[-1]: list(found[min(len(paths) - 1, final) :])}


def same_directions(layer: np.ndarray, node: np.ndarray) -> bool:
    """Whether each row of the node is a multiple of the layer's; a row of zeros (a dead channel) is a multiple of any."""
    return layer.shape == node.shape and _are_parallel(layer[:4], node[:4]) and _are_parallel(layer, node)


def _are_parallel(layer: np.ndarray, node: np.ndarray) -> bool:
    lengths = np.linalg.norm(layer, axis=1) * np.linalg.norm(node, axis=1)
    return bool(np.all(np.abs(np.einsum("ij,ij->i", layer, node)) >= MIN_COSINE * lengths))


def is_part_of_table(layer: np.ndarray, node: np.ndarray) -> bool:
    """Whether all rows of the node are rows of the table: lookups at constant positions are folded into their result."""
    if layer.shape[1] != node.shape[1] or not node.any():
        return False
    table = {row.tobytes() for row in np.ascontiguousarray(layer)}
    return all(row.tobytes() in table for row in np.ascontiguousarray(node))


def number_names(path: str, count: int) -> list[str]:
    """Names of the nodes of one layer: its path, then PATH#2, PATH#3 ... for further calls."""
    return [f"{path}#{number}" if number > 1 else path for number in range(1, count + 1)]


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
