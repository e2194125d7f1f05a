"""int8-mixed: search for the fewest float layers with which the model meets the user's limits."""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.compress.build import Build
from edgewise.compress.sensitivity import rank_layers
from edgewise.config.schema import Mixed
from edgewise.errors import VariantFailed
from edgewise.stats.agreement import compare_groups, worst_of

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """A model with the first `layers` layers in float, made and run on the validation samples.

    sqnr_db: of the group of outputs that agrees least with those of the float model.
    accuracy_drop_points: percentage points against the float model of the format; None where the user sets no such limit.
    """

    layers: int
    sqnr_db: float
    accuracy_drop_points: float | None

    def meets(self, limits: Mixed) -> bool:
        limit, drop = limits.accuracy_drop_points, self.accuracy_drop_points
        return self.sqnr_db >= limits.sqnr_db and (limit is None or (drop is not None and drop <= limit))


def search(build: Build, calibration: np.ndarray, user_layers: Sequence[str], folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Make the variant in `folder`. Returns all layers kept in float, `user_layers` included, and a record of the search."""
    limits = build.variant.mixed
    assert limits is not None
    indices = build.validation_indices()
    float_outputs, left = build.run(build.parent, indices), dict[int, list[str]]()  # number of layers in float -> those of the format
    with tempfile.TemporaryDirectory() as scratch:

        def make(float_layers: Sequence[str]) -> Candidate:
            place = Path(scratch) / str(len(float_layers))
            place.mkdir()
            left[len(float_layers)] = build.quantize(place, calibration, [*user_layers, *float_layers])
            outputs = build.run(place, indices)
            drop = accuracy_drop_points(build, float_outputs, outputs, indices)
            return Candidate(len(float_layers), round(worst_of(compare_groups(float_outputs, outputs)).sqnr_db, 2), drop)

        ranked = [path for path in rank_layers(build.variant) if path in build.layers and path not in user_layers]
        found, made = bisect(ranked, limits, make)
        shutil.copytree(Path(scratch) / str(len(found)), folder, dirs_exist_ok=True)
    trials = [dataclasses.asdict(candidate) for candidate in made]
    kept = sorted({*user_layers, *found, *left[len(found)]})
    return kept, {"by_search": found, "candidates": len(ranked), "samples": len(indices), "trials": trials}


def accuracy_drop_points(build: Build, float_outputs: Arrays, outputs: Arrays, indices: np.ndarray) -> float | None:
    if build.variant.mixed is None or build.variant.mixed.accuracy_drop_points is None:
        return None
    build.require_classes("mixed.accuracy_drop_points")
    return round(100 * (build.accuracy(float_outputs, indices) - build.accuracy(outputs, indices)), 3)


def bisect(ranked: Sequence[str], limits: Mixed, make: Callable[[Sequence[str]], Candidate]) -> tuple[list[str], list[Candidate]]:
    """The shortest prefix of `ranked` with which the model meets the limits, by bisection, and all candidates in the order made.

    make(float layers) makes the model and measures it. VariantFailed where even a single quantized layer is too many.
    """
    made = [make([])]
    low, high = 0, len(ranked)  # a prefix of length low fails; the one of all layers needs no trial
    if made[0].meets(limits):
        return [], made
    while high - low > 1:
        middle = (low + high) // 2 if len(made) > 1 else min(first_guess(len(ranked)), high - 1)
        made.append(make(ranked[:middle]))
        low, high = (low, middle) if made[-1].meets(limits) else (middle, high)
    if high == len(ranked):
        raise VariantFailed(describe_failure(limits, made[-1], len(ranked)))
    return list(ranked[:high]), made


def first_guess(layers: int) -> int:
    """A few layers do most of the harm: start low instead of in the middle."""
    return max(1, layers // 8)


def describe_failure(limits: Mixed, last: Candidate, layers: int) -> str:
    asked, found = f"mixed.sqnr_db {limits.sqnr_db:g}", f"{last.sqnr_db:.1f} dB"
    if limits.accuracy_drop_points is not None:
        asked += f" and mixed.accuracy_drop_points {limits.accuracy_drop_points:g}"
    if last.accuracy_drop_points is not None:
        found += f" and {last.accuracy_drop_points:.2f} points"
    return f"{asked}: not reached with {last.layers} of {layers} layers in float ({found}); relax the limit, or use fp16"
