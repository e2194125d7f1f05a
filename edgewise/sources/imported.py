"""What all sources of a user's file share: checking that it fits the data, recording its outputs as the oracle of every variant, and
trying its preprocessing."""

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
from edgewise.sources.inspection import Shape, parse_picture

PROBE_SAMPLES = 16
MAX_LISTED = 5


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings that every source of a file has."""

    path: str = option(help="file of the model")
    outputs: str | None = option(
        None,
        "what the model's outputs are; null: probabilities if all of them are from 0 to 1, else logits",
        choices=("logits", "probabilities"),
    )


def make_probe(samples: Samples) -> dict[str, np.ndarray]:
    """The samples of the oracle, from the calibration split."""
    return samples.feeds(np.resize(samples.indices("calibration"), PROBE_SAMPLES))


def finish(settings: Settings, score: trial.Score, data: Manifest, samples: Samples, folder: Path) -> dict[str, Any]:
    """Write probe.npz and return the manifest fields that all sources of a file have. score: feeds [n, ...] to float32 [n, labels]."""
    feeds = make_probe(samples)
    scores = score(feeds)
    if not np.isfinite(scores).all():
        raise ModelError(f"model.path: {settings.path} returns NaN or infinite values; check its weights and the data's preprocessing")
    stored: dict[str, Any] = {f"in:{name}": array for name, array in feeds.items()} | {"out:logits": scores}
    np.savez(folder / "probe.npz", **stored)
    found = trial.try_preprocessing(score, samples)
    warnings = [found.warning] if found and found.warning else []
    tried = {"tried_samples": found.samples, "tried_right": found.correct} if found else {}
    return {
        "inputs": [{"name": tensor.name, "shape": tensor.shape, "dtype": tensor.dtype} for tensor in data.inputs],
        "outputs": [
            {"name": "logits", "shape": [None, scores.shape[1]], "dtype": "float32", "meaning": find_meaning(settings, scores)},
        ],
        "training": {"accuracy_validation": None, "epochs": 0, "curve": [], **tried, **({"warnings": warnings} if warnings else {})},
    }


def find_meaning(settings: Settings, scores: np.ndarray) -> str:
    """`logits` or `probabilities`. ModelError if the setting says probabilities and the scores cannot be."""
    bounded = bool(scores.min() >= 0 and scores.max() <= 1)
    if settings.outputs == "probabilities" and not bounded:
        raise ModelError(
            f"model.outputs: {settings.outputs!r}, but {settings.path} returns {scores.min():.3g} to {scores.max():.3g}; set it to logits"
        )
    return settings.outputs or ("probabilities" if bounded else "logits")


def check_inputs(path: str | Path, accepted: Sequence[Shape], data: Manifest) -> None:
    """ModelError unless the model accepts the data's inputs, in order. accepted: shapes without the batch, None for a dynamic dimension."""
    given = [tensor.shape[1:] for tensor in data.inputs]
    if len(accepted) == len(given) and all(_matches(*pair) for pair in zip(accepted, given, strict=True)):
        return
    expected, actual = format_shapes(accepted), format_shapes(given)
    advice = _suggest_settings(accepted, data)
    raise ModelError(f"model.path: {path} expects {expected}, the data has {actual} (without the batch); {advice}")


def check_outputs(path: str | Path, given: Sequence[Shape], data: Manifest) -> int:
    """Index of the output that has one score per label. ModelError if none has. given: shapes without the batch."""
    places = [place for place, shape in enumerate(given) if list(shape) == [len(data.labels)]]
    if places:
        return places[0]
    shown = ", ".join(data.labels[:MAX_LISTED]) + (" ..." if len(data.labels) > MAX_LISTED else "")
    raise ModelError(
        f"model.path: {path} returns {format_shapes(given)}, the data has {len(data.labels)} labels ({shown}); name the model's own classes"
        " with data.label_names=FILE (and data.label_offset=1 if it has a background class), or use the data that it was trained for"
    )


def format_shapes(shapes: Sequence[Shape]) -> str:
    return ", ".join(str(["any" if side is None else side for side in shape]).replace("'", "") for shape in shapes) or "nothing"


def _matches(accepted: Shape, given: Shape) -> bool:
    return len(accepted) == len(given) and all(a in (None, b) for a, b in zip(accepted, given, strict=True))


def _suggest_settings(accepted: Sequence[Shape], data: Manifest) -> str:
    """The settings with which the data would match, for pictures."""
    spec = data.preprocessing or {}
    if spec.get("kind") != "image" or len(accepted) != 1 or len(accepted[0]) != 3:
        return "change data.* to match"
    last, channels, size = parse_picture(accepted[0])
    wanted = [
        ("channels_last", last, spec["layout"] == "NHWC"),
        ("channels", channels, spec["channels"]),
        ("image_size", size, spec["size"]),
    ]
    words = [
        f"data.{key}={_format_value(value)}" for key, value, now in wanted if value != now and value is not None and value != [None, None]
    ]
    return f"set {' '.join(words)}"


def _format_value(value: Any) -> str:
    if isinstance(value, list) and value[0] == value[1]:
        value = value[0]
    return str(value).lower().replace(" ", "")
