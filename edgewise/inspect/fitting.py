"""Whether the user's arrays are what the model takes: the array for each input, its sample axis, its type, and what to do where not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.errors import DataError
from edgewise.inspect.meanings import Guess, Guesses

Arrays = Mapping[str, tuple[tuple[int, ...], str]]  # shape of one sample, and type


@dataclass(frozen=True)
class Fitted:
    """settings: of the data section. axes: {input: sample axis} where it is another than the first. remarks: sentences."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    axes: Mapping[str, int] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def fit_arrays(guesses: Guesses, arrays: Arrays) -> Fitted:
    """DataError for a wrong number of arrays, and for a shape that no setting makes fit."""
    pairs = match_arrays(guesses.fed, arrays)
    axes = {guess.port.name: find_axis(guess, name, arrays[name][0], bool(guesses.state)) for guess, name in pairs}
    ordered = [f"{name} feeds {guess.port.name}" for guess, name in pairs if name != guess.port.name]
    remarks = [f"by their order, {', '.join(ordered)}"] if ordered else []
    return Fitted(find_dtype(pairs, arrays), {name: axis for name, axis in axes.items() if axis}, tuple(remarks))


def match_arrays(fed: Sequence[Guess], arrays: Arrays) -> list[tuple[Guess, str]]:
    """By name where all inputs have an array of their name, else in order."""
    if arrays.keys() >= {guess.port.name for guess in fed}:
        return [(guess, guess.port.name) for guess in fed]
    if len(fed) == len(arrays):
        return list(zip(fed, arrays, strict=True))
    wanted = ", ".join(f"{guess.port.name} {show(guess.sizes)} {guess.dtype}" for guess in fed)
    given = ", ".join(f"{name} {show(shape)} {dtype}" for name, (shape, dtype) in arrays.items())
    raise DataError(
        f"--data: the model takes {len(fed)} arrays, {wanted} for each sample; the data has {given}; save one array for each input"
    )


def find_axis(guess: Guess, name: str, shape: tuple[int, ...], stateful: bool) -> int | None:
    """The axis of the input that counts samples, with which the array fits; None: it has none. DataError if there is no such axis."""
    sizes = shape[1:] if stateful else shape
    port = guess.port.shape
    if not guess.port.known_rank:
        return 0
    ordered = [*([] if guess.sample_axis is None else [guess.sample_axis]), *range(len(port))]
    axes: list[int] = [axis for axis in ordered if agree(without(port, axis), sizes)]
    if axes:
        return axes[0]
    if agree(port, sizes):
        return None
    raise DataError(f"--data: {explain_misfit(guess, name, shape, stateful)}")


def without(shape: Sequence[int | None], axis: int) -> list[int | None]:
    return [size for place, size in enumerate(shape) if place != axis]


def agree(wanted: Sequence[int | None], sizes: Sequence[int]) -> bool:
    return len(wanted) == len(sizes) and all(a in (None, b) for a, b in zip(wanted, sizes, strict=True))


def explain_misfit(guess: Guess, name: str, shape: tuple[int, ...], stateful: bool) -> str:
    """What does not fit, and what to do about it."""
    wanted = show(("steps", *guess.sizes) if stateful else guess.sizes)
    steps = " (a sample is a sequence, since the model carries state)" if stateful else ""
    flat = [size for size in shape if size != 1]
    if not stateful and flat == [size for size in guess.sizes if size not in (1, None)]:
        advice = f"remove or add axes of length one: {name}.reshape({', '.join(map(str, [-1, *(size or 1 for size in guess.sizes)]))})"
    elif stateful and len(shape) == len(guess.sizes):
        advice = f"cut each sequence into steps: {name} of shape [samples, steps, {', '.join(str(size or 'any') for size in guess.sizes)}]"
    elif sorted(flat) == sorted(size for size in guess.sizes if size not in (1, None)):
        advice = "bring its axes into this order with np.transpose"
    else:
        advice = "save samples of this shape, or export the model for yours"
    return f"{guess.port.name} takes {wanted} for each sample{steps}, the data's {name} has {show(shape)}; {advice}"


def find_dtype(pairs: Sequence[tuple[Guess, str]], arrays: Arrays) -> dict[str, str]:
    """data.dtype where floats are given to an input that takes integers; it is one for all of them."""
    wanted = {guess.dtype for guess, _ in pairs}
    floats = [guess for guess, name in pairs if arrays[name][1].startswith("float") and not guess.dtype.startswith("float")]
    if not floats:
        return {}
    if len(wanted) > 1:
        types = ", ".join(f"{guess.port.name} {guess.dtype}" for guess, _ in pairs)
        raise DataError(
            f"--data: the model takes {types}; save each array in the type of its input, for example x.astype({floats[0].dtype!r})"
        )
    return {"dtype": wanted.pop()}


def show(shape: Sequence[Any]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
