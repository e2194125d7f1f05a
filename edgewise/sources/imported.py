"""What all importers of a user's file share: whether it fits the data, its outputs as the oracle of every variant, and the trial of its
preprocessing."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts.artifact import Manifest
from edgewise.artifacts.samples import Samples
from edgewise.config.settings import option
from edgewise.errors import ModelError
from edgewise.sources import trial
from edgewise.sources.inspection import Shape, picture

PROBE_SAMPLES = 16
SHOWN = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What every importer of a file offers."""

    path: str = option(help="the model's file")
    outputs: str | None = option(
        None, "what the model's scores are; null: probabilities where all of them are from 0 to 1", choices=("logits", "probabilities")
    )


def probe(samples: Samples) -> dict[str, np.ndarray]:
    """The feeds of the oracle: samples of the calibration split."""
    return samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))


def finish(settings: Settings, score: trial.Score, data: Manifest, samples: Samples, folder: Path) -> dict[str, Any]:
    """Write probe.npz; the fields of the importer's result that all have in common. score: feeds [n, ...] to float32 [n, labels]."""
    feeds = probe(samples)
    scores = score(feeds)
    if not np.isfinite(scores).all():
        raise ModelError(f"model.path: {settings.path} answers with NaN or infinite values; check its weights and the data's preprocessing")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()} | {"out:logits": scores}
    np.savez(folder / "probe.npz", **stored)
    found = trial.run(score, samples)
    warnings = [found.warning] if found and found.warning else []
    tried = {"tried_samples": found.samples, "tried_right": found.right} if found else {}
    return {
        "inputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in data.inputs],
        "outputs": [
            {"name": "logits", "shape": [None, scores.shape[1]], "dtype": "float32", "meaning": meaning(settings, scores)},
        ],
        "training": {"accuracy_validation": None, "epochs": 0, "curve": [], **tried, "warnings": warnings},
    }


def meaning(settings: Settings, scores: np.ndarray) -> str:
    """Whether the scores are logits, or probabilities already. ModelError where the user says what cannot be."""
    bounded = bool(scores.min() >= 0 and scores.max() <= 1)
    if settings.outputs == "probabilities" and not bounded:
        raise ModelError(
            f"model.outputs: {settings.outputs!r}, but {settings.path} gives {scores.min():.3g} to {scores.max():.3g}; set logits"
        )
    return settings.outputs or ("probabilities" if bounded else "logits")


def check_inputs(path: str | Path, taken: Sequence[Shape], data: Manifest) -> None:
    """ModelError unless the model takes the data's inputs, in their order. taken: shapes without the batch, None where a side is open."""
    given = [tensor.shape[1:] for tensor in data.inputs]
    if len(taken) == len(given) and all(_fits(own, other) for own, other in zip(taken, given, strict=True)):
        return
    raise ModelError(f"model.path: {path} takes {told(taken)}, the data gives {told(given)} (without the batch); {_advice(taken, data)}")


def check_outputs(path: str | Path, given: Sequence[Shape], data: Manifest) -> int:
    """Which output gives one score per label. ModelError where none does. given: shapes without the batch."""
    places = [place for place, shape in enumerate(given) if list(shape) == [len(data.labels)]]
    if places:
        return places[0]
    shown = ", ".join(data.labels[:SHOWN]) + (" ..." if len(data.labels) > SHOWN else "")
    raise ModelError(
        f"model.path: {path} gives {told(given)}, the data has {len(data.labels)} labels ({shown}); name the model's own classes with"
        " data.label_names=FILE (and data.label_offset=1 where it has a background class), or take the data that it was trained for"
    )


def told(shapes: Sequence[Shape]) -> str:
    return ", ".join(str(["any" if side is None else side for side in shape]).replace("'", "") for shape in shapes) or "nothing"


def _fits(own: Shape, other: Shape) -> bool:
    return len(own) == len(other) and all(a in (None, b) for a, b in zip(own, other, strict=True))


def _advice(taken: Sequence[Shape], data: Manifest) -> str:
    """The settings with which pictures would fit."""
    spec = data.preprocessing or {}
    if spec.get("kind") != "image" or len(taken) != 1 or len(taken[0]) != 3:
        return "change data.* so that they fit"
    last, channels, size = picture(taken[0])
    wanted = [
        ("channels_last", last, spec["layout"] == "NHWC"),
        ("channels", channels, spec["channels"]),
        ("image_size", size, spec["size"]),
    ]
    words = [f"data.{key}={_plain(value)}" for key, value, now in wanted if value != now and value is not None and value != [None, None]]
    return f"set {' '.join(words)}"


def _plain(value: Any) -> str:
    if isinstance(value, list) and value[0] == value[1]:
        value = value[0]
    return str(value).lower().replace(" ", "")
