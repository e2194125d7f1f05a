"""The form in which a net is stored: always as converted."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE: Mapping[str, tuple[Any, ...]] = {}


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """plugins.Storer.store."""
    if mapped:
        raise ValueError(
            "load.mode mapped: ncnn copies the weights of model.bin into layouts of its kernels and has no option to map them; use onnx "
            "for weights that stay on disk, or mode split"
        )
    return {}
