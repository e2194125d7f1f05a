"""The form in which a model.mnn is stored: always the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE: Mapping[str, tuple[Any, ...]] = {}


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """plugins.Storer.store."""
    if mapped:
        raise ValueError(
            "load.mode mapped: MNN copies the weights of a file when it loads it, packed for its kernels; use mode whole with the engine "
            "setting memory: low and a scheme with packed weights (int8-weight, int4-weight), or onnx for weights that stay on disk"
        )
    return {}
