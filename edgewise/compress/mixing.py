"""int8-mixed: the fewest layers in float with which the model is good enough."""

import dataclasses
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.compress.job import Job
from edgewise.config.schema import Mixed, Variant
from edgewise.errors import VariantFailed
from edgewise.proof import checks

SENSITIVITY = Path("models/sensitivity")


@dataclass(frozen=True)
class Trial:
    """A model that was made and run. accuracy_drop_points: against the float model of the format, on validation; None where nobody asks."""

    layers: int
    sqnr_db: float
    accuracy_drop_points: float | None

    def meets(self, wanted: Mixed) -> bool:
        limit, lost = wanted.accuracy_drop_points, self.accuracy_drop_points
        return self.sqnr_db >= wanted.sqnr_db and (limit is None or (lost is not None and lost <= limit))


def search(job: Job, calibration: np.ndarray, own: Sequence[str], folder: Path) -> tuple[list[str], dict[str, Any]]:
    """Make the variant in `folder`; returns the layers in float, `own` (the user's) among them, and what to say of the search."""
    wanted = job.variant.mixed
    assert wanted is not None
    indices = job.validation()
    exact = job.outputs(job.parent, indices)
    with tempfile.TemporaryDirectory() as scratch:

        def attempt(head: Sequence[str]) -> Trial:
            place = Path(scratch) / str(len(head))
            place.mkdir()
            job.write(place, calibration, [*own, *head])
            given = job.outputs(place, indices)
            return Trial(len(head), round(checks.sqnr_db(exact, given), 2), drop_points(job, exact, given, indices))

        candidates = [path for path in order(job.variant) if path in job.layers and path not in own]
        head, trials = cut(candidates, wanted, attempt)
        shutil.copytree(Path(scratch) / str(len(head)), folder, dirs_exist_ok=True)
    described = [dataclasses.asdict(trial) for trial in trials]
    return sorted({*own, *head}), {"by_search": head, "candidates": len(candidates), "samples": len(indices), "trials": described}


def drop_points(job: Job, exact: np.ndarray, given: np.ndarray, indices: np.ndarray) -> float | None:
    if job.variant.mixed is None or job.variant.mixed.accuracy_drop_points is None:
        return None
    job.require_classes("mixed.accuracy_drop_points")
    return round(100 * (job.accuracy(exact, indices) - job.accuracy(given, indices)), 3)


def order(variant: Variant, folder: Path = SENSITIVITY) -> list[str]:
    """Source layers, first the one that stays float first: most noise for its bytes. One order for every format.

    Noises of single layers add up to that of all of them within a few tenths of a dB (ResNet-18, MobileNetV2), so that taking the
    largest quotient first is the greedy answer to the knapsack problem: least bytes for the noise that goes.
    """
    assert variant.scan is not None
    artifact.require_ok(artifact.read(folder / variant.scheme), f"{folder / variant.scheme}")
    layers: Mapping[str, Any] = json.loads((folder / variant.scheme / f"{variant.scan.key}.json").read_text(encoding="utf-8"))["layers"]
    return sorted(layers, key=lambda path: (-layers[path]["noise"] / layers[path]["float_bytes"], path))


def cut(order: Sequence[str], wanted: Mixed, attempt: Callable[[Sequence[str]], Trial]) -> tuple[list[str], list[Trial]]:
    """The shortest head of `order` with which `attempt` meets what is wanted, by bisection, and all trials in their order.

    attempt(layers to keep float) makes the model and judges it. VariantFailed where even one quantized layer is too much.
    """
    trials = [attempt([])]
    low, high = 0, len(order)  # head of length low fails; all of them in float need no trial
    if trials[0].meets(wanted):
        return [], trials
    while high - low > 1:
        middle = (low + high) // 2 if len(trials) > 1 else min(first_guess(len(order)), high - 1)
        trials.append(attempt(order[:middle]))
        low, high = (low, middle) if trials[-1].meets(wanted) else (middle, high)
    if high == len(order):
        raise VariantFailed(unreached(wanted, trials[-1], len(order)))
    return list(order[:high]), trials


def first_guess(layers: int) -> int:
    """A few layers do most of the harm: begin low instead of in the middle."""
    return max(1, layers // 8)


def unreached(wanted: Mixed, best: Trial, layers: int) -> str:
    asked, found = f"mixed.sqnr_db {wanted.sqnr_db:g}", f"{best.sqnr_db:.1f} dB"
    if wanted.accuracy_drop_points is not None:
        asked += f" and mixed.accuracy_drop_points {wanted.accuracy_drop_points:g}"
    if best.accuracy_drop_points is not None:
        found += f" and {best.accuracy_drop_points:.2f} points"
    return f"{asked}: with {best.layers} of {layers} layers in float it is still {found}; ask for less, or use fp16"
