"""How far the tensors of a float MNN model reach, seen while calibration samples run through it."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgewise.formats.mnn.profile import Interpreted

Arrays = Mapping[str, np.ndarray]
GIVEN, MADE = 0, 1  # the first input and the first output of an operator
POOLING = "Pooling"
PART = re.compile(r"_raster_\d+$")  # ends the names of what MNN makes of one operator of the file
SHARE = 0.9999  # of a sample's values that method `percentile` does not clip at either end


class Range(NamedTuple):
    low: float
    high: float


def _extremes(values: np.ndarray) -> tuple[float, float]:
    return float(values.min()), float(values.max())


def _quantiles(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (1 - SHARE, SHARE))
    return float(low), float(high)


def _widest(found: np.ndarray) -> tuple[float, float]:
    return float(found[:, 0].min()), float(found[:, 1].max())


def _mean(found: np.ndarray) -> tuple[float, float]:
    low, high = found.mean(axis=0)
    return float(low), float(high)


# how the range of a tensor is found: of one sample, and from those of all samples, [samples, 2]
METHODS: dict[str, tuple[Callable[[np.ndarray], tuple[float, float]], Callable[[np.ndarray], tuple[float, float]]]] = {
    "minmax": (_extremes, _widest),
    "mean": (_extremes, _mean),
    "percentile": (_quantiles, _widest),
}


def find_ranges(folder: Path, method: str, calibration: Sequence[Arrays], names: Collection[str]) -> dict[str, tuple[Range, Range]]:
    """The ranges of the input and the output of these operators over all feeds, by name of the operator; without those that MNN does not
    run under their names. method: one of METHODS."""
    of_sample, of_all = METHODS[method]
    seen: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for values in iterate_values(folder, calibration, names):
        for place, array in values.items():
            seen.setdefault(place, []).append(of_sample(array))
    found = {place: Range(*of_all(np.array(ranges))) for place, ranges in seen.items()}
    return {name: (found[name, GIVEN], found[name, MADE]) for name in names if (name, GIVEN) in found and (name, MADE) in found}


def iterate_values(folder: Path, calibration: Sequence[Arrays], names: Collection[str]) -> Iterator[dict[tuple[str, int], np.ndarray]]:
    """What these operators are given and make, sample by sample. ValueError for a model with control flow, of which MNN shows nothing."""
    model = Interpreted(str(folder), {"threads": 1})
    values: dict[tuple[str, int], np.ndarray] = {}

    def see(side: int) -> Callable[[list[Any], Any], bool]:
        def keep(tensors: list[Any], described: Any) -> bool:
            name = find_name(described)
            if name in names:
                values[name, side] = model.read(tensors[0])
            return True

        return keep

    for feeds in calibration:
        model.feed(feeds)
        if not model.runs:
            raise ValueError(
                "MNN does not show the values inside an If or a Loop (recurrent layers are loops), which calibration needs: use int8-weight"
            )
        model.run(see(GIVEN), see(MADE))
        yield dict(values)


def find_name(described: Any) -> str:
    """The name in the file of an operator that runs. Poolings run under names with a number."""
    name = str(described.getName())
    return PART.sub("", name) if described.getType().startswith(POOLING) else name
