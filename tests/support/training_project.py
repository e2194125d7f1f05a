"""A small project for the stages up to train-export: real digits in models/data and a configuration, made without running a stage."""

from pathlib import Path
from typing import Any

import numpy as np

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.artifacts.samples import Samples
from edgewise.config.compose import write
from edgewise.config.schema import Bench, Budget, Config, Plugin, Train

TINY = {
    "model": "ResNetForImageClassification",
    "config": "ResNetConfig",
    "arguments": {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"},
}
SPLITS = {"train": 97, "validation": 40, "calibration": 20, "test": 40}  # 97 = 3 * 32 + 1: the last batch would hold one picture


def make_data(root: Path, size: int = 16, channels: int = 3, classes: int = 10) -> Path:
    """Write root/models/data by the contract of prepare-data; returns it."""
    from sklearn.datasets import load_digits

    digits = load_digits(n_class=classes)
    count = sum(SPLITS.values())
    images = np.rint(digits.images[:count].repeat(size // 8, 1).repeat(size // 8, 2) * 15.9).astype(np.uint8)
    folder = root / "models/data"
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/image.npy", images[..., None].repeat(channels, 3))
    np.save(folder / "targets.npy", digits.target[:count].astype(np.int64))
    parts = np.split(np.random.default_rng(0).permutation(count), np.cumsum(list(SPLITS.values()))[:-1])
    artifact.write_json(folder / "splits.json", {name: part.tolist() for name, part in zip(SPLITS, parts, strict=True)})
    image = Port("image", (None, channels, size, size), "float32", "NCHW", "image")
    labels = tuple(str(label) for label in range(classes))
    artifact.write(folder, Manifest("data", inputs=(image,), labels=labels, preprocessing=preprocessing(size, channels)))
    return folder


def preprocessing(size: int, channels: int) -> dict[str, Any]:
    picture = {"kind": "image", "size": [size, size], "channels": channels, "resize": "stretch", "scale": 1 / 255}
    return {**picture, "mean": [0.5] * channels, "std": [0.5] * channels, "layout": "NCHW", "dtype": "float32"}


def make_project(root: Path, train: Train, settings: dict[str, Any] = TINY, importer: str = "transformers_model", **data: int) -> Samples:
    """Data and configuration below `root`, as train-export finds them."""
    folder = make_data(root, **data)
    write_config(root, train, settings, importer)
    return Samples.open(folder)


def write_config(root: Path, train: Train, settings: dict[str, Any] = TINY, importer: str = "transformers_model") -> None:
    model, local = Plugin("tiny", f"edgewise.sources.{importer}", settings), Plugin("local", "edgewise.devices.local")
    digits, bench = Plugin("digits", "edgewise.data.digits"), Bench("quick")
    write(Config(0, digits, model, train, local, bench, Budget("none"), "onnx-fp32", {}, {}), root / "models/config.yaml")
