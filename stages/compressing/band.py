"""How much the accuracy of a calibrated model depends on the pictures that it happened to be calibrated with."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stages.compressing.job import Job
from stages.core import calibrating

SPLIT = "test"  # nothing is chosen by it


def band(job: Job, kept: Sequence[str], seed: int) -> dict[str, Any] | None:
    """Accuracy on the test split with each of `calibration.resamples` other calibration sets, and min and max; None for 0."""
    wanted = job.variant.calibration
    if wanted is None or wanted.resamples == 0:
        return None
    job.require_classes("calibration.resamples")
    indices, found = job.samples.indices(SPLIT), []
    sets = calibrating.redrawn(job.samples, wanted.samples, wanted.resamples, seed)
    for drawn in tqdm(sets, desc=f"{job.variant.name}: calibrate again", unit="set", disable=None):
        with tempfile.TemporaryDirectory() as scratch:
            job.write(Path(scratch), drawn, kept)
            found.append(job.accuracy(job.outputs(Path(scratch), indices), indices))
    digests = [calibrating.described(drawn)["sha256"] for drawn in sets]
    return {"accuracies": found, "min": min(found), "max": max(found), "sets": digests, "split": SPLIT}
