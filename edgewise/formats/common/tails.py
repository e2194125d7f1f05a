"""The graph of a model seen from its outputs: the tail behind its last layers, and the layers that stand behind an output.

A layer is a product (convolution, matrix product, recurrent layer) with constant weights. What follows the last layers of a classifier is
at most a softmax. In a detector it is arithmetic on values of unlike kinds: boxes in pixels, scores in 0..1, exponentials, bins of a
distribution. Rounded to 8 bits with one scale for all of them, the small ones are lost; in float they cost next to nothing.

    tail = find_tail(graph)
    find_layers_behind(graph, "output", Span(85, 4, 85))   # the layers that give the scores of an output [n, 3549, 85]
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PRODUCT, BIAS, OPAQUE = "product", "bias", "opaque"  # opaque: If, Loop and the like, whose bodies may hold layers
SOFTMAX, JOIN, PART, LAYOUT, SELECT, SHAPE, OTHER = "softmax", "join", "part", "layout", "select", "shape", "other"


@dataclass(frozen=True)
class Operator:
    """One operator. inputs and outputs: names of values, constants included; "" for an input that is left out.

    kind: product; bias (adds a constant for each channel); softmax; join (concatenates); part (takes a part of its first input); layout
    (changes the shape or the type only); select (suppresses boxes); shape (gives sizes, not values); opaque; other. sizes: of a join,
    those of its inputs along the joined axis, where they are known. constant_bytes: of the floating constants that it reads.
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sizes: tuple[int, ...] = ()
    constant_bytes: int = 0


@dataclass(frozen=True)
class Graph:
    """operators: in the order of execution. inputs: the values that the model is given."""

    inputs: tuple[str, ...]
    operators: tuple[Operator, ...]


@dataclass(frozen=True)
class Tail:
    """operators: names, in the order of execution; none where a model has no tail that needs care. bytes: of their floating constants."""

    operators: tuple[str, ...] = ()
    bytes: int = 0


@dataclass(frozen=True)
class Span:
    """Indices start to stop (excluded) of an axis of `total` elements; a total of 0: the whole value."""

    total: int
    start: int
    stop: int


def find_tail(graph: Graph) -> Tail:
    """The operators from which no layer is reached any more, if they do more than one thing with the values of the last layers: join them,
    take them apart, or suppress boxes. Else none: the one thing that a classifier does is quantized as ever.

    A product straight behind a softmax is the expectation of a distribution (DFL's bins) and no layer.
    """
    computed = _computed(graph)
    layers = _layer_names(graph, computed)
    before: set[str] = set()  # values from which a layer is reached
    found = []
    for operator in reversed(computed):
        if operator.name in layers or before.intersection(operator.outputs):
            before.update(operator.inputs)
        else:
            found.append(operator)
    tail = found[::-1]
    values = {*graph.inputs, *(value for operator in computed for value in operator.outputs)}
    if not _mixes(tail, values):
        return Tail()
    return Tail(tuple(operator.name for operator in tail), sum(operator.constant_bytes for operator in tail))


def find_layers_behind(graph: Graph, output: str, span: Span | None = None) -> list[str]:
    """The last layers that an output is computed from, in the order of execution. span: only those of a part of it, as far as the joins on
    the way say which inputs hold that part."""
    computed = _computed(graph)
    layers = _layer_names(graph, computed)
    producers = _producers(computed)
    found, seen, waiting = set(), set(), [output]
    while waiting:
        operator = producers.get(waiting.pop())
        if operator is None or operator.name in seen:
            continue
        seen.add(operator.name)
        if operator.name in layers and operator.kind != BIAS:
            found.add(operator.name)
        else:
            waiting.extend(_choose_inputs(operator, span))
    return [operator.name for operator in computed if operator.name in found]


def _computed(graph: Graph) -> list[Operator]:
    """The operators whose results depend on what the model is given, and not on its sizes alone."""
    values, found = set(graph.inputs), []
    for operator in graph.operators:
        if operator.kind != SHAPE and values.intersection(operator.inputs):
            values.update(operator.outputs)
            found.append(operator)
    return found


def _layer_names(graph: Graph, computed: list[Operator]) -> set[str]:
    """The layers, and the operators that add their bias."""
    values = {*graph.inputs, *(value for operator in computed for value in operator.outputs)}
    producers = _producers(computed)
    found: set[str] = set()
    for operator in computed:
        weighted = operator.kind == PRODUCT and any(value and value not in values for value in operator.inputs[:2])
        origin = producers.get(next(value for value in operator.inputs if value in values))
        biased = operator.kind == BIAS and origin is not None and origin.name in found and origin.kind == PRODUCT
        if operator.kind == OPAQUE or biased or (weighted and not _comes_from_softmax(operator.inputs[0], producers)):
            found.add(operator.name)
    return found


def _comes_from_softmax(value: str, producers: Mapping[str, Operator]) -> bool:
    operator = producers.get(value)
    while operator is not None and operator.kind == LAYOUT:
        operator = producers.get(operator.inputs[0])
    return operator is not None and operator.kind == SOFTMAX


def _mixes(tail: list[Operator], values: set[str]) -> bool:
    """Whether a tail joins several values, takes one apart, or suppresses boxes."""
    joins = any(operator.kind == JOIN and len(values.intersection(operator.inputs)) > 1 for operator in tail)
    parts = Counter(operator.inputs[0] for operator in tail if operator.kind == PART for _ in operator.outputs)
    return joins or any(operator.kind == SELECT for operator in tail) or any(count > 1 for count in parts.values())


def _choose_inputs(operator: Operator, span: Span | None) -> Iterator[str]:
    """The inputs that hold the span; all of them unless the operator joins values to an axis of that size."""
    if span is None or operator.kind != JOIN or not span.total or sum(operator.sizes) != span.total:
        yield from operator.inputs
        return
    start = 0
    for value, size in zip(operator.inputs, operator.sizes, strict=True):
        if start < span.stop and span.start < start + size:
            yield value
        start += size


def _producers(operators: list[Operator]) -> dict[str, Operator]:
    return {value: operator for operator in operators for value in operator.outputs}
