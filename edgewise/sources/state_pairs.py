"""Which inputs of a model look like state, and which output looks like the next value of each."""

from collections.abc import Sequence

from edgewise.artifacts.artifact import Port


def suggest_state(inputs: Sequence[Port], outputs: Sequence[Port]) -> dict[str, str]:
    """Inputs that look like state, with the output that looks like its next value: the same type and shape, and a related name, or the only
    one of this shape."""
    found: dict[str, str] = {}
    for port in inputs:
        same = [out for out in outputs if fits_state(port, out) and out.name not in found.values()]
        related = [out for out in same if is_related(port.name, out.name)]
        chosen = next(iter(related), None)
        if chosen is not None and len(port.shape) > 1 and any(size is not None and size > 1 for size in port.shape):
            found[port.name] = chosen.name
    return found


def fits_state(port: Port, out: Port) -> bool:
    """Whether an output can be the next value of an input: type, number of axes, and fixed sizes agree."""
    if port.dtype != out.dtype or len(port.shape) != len(out.shape):
        return not out.shape and port.dtype == out.dtype  # exporters often leave the shape of a state output unknown
    return all(a is None or b is None or a == b for a, b in zip(port.shape, out.shape, strict=True))


def is_related(name: str, other: str) -> bool:
    """h and hn, state and stateN, past_0 and present_0, cache_in and cache_out, h_0 and h_1."""
    swaps = (("past", "present"), ("_in", "_out"), ("in_", "out_"), ("input", "output"), ("prev", "next"), ("old", "new"))
    first, second = name.casefold(), other.casefold()
    if any(first.replace(a, b) == second for a, b in swaps if a in first):
        return True
    stem = first.rstrip("0123456789_")
    return bool(stem) and (second.startswith(stem) or second.endswith(stem))
