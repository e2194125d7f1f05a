"""The form in which a file of tract is stored: always the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE: Mapping[str, tuple[Any, ...]] = {}


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """plugins.Storer.store."""
    if mapped:
        raise ValueError(
            "load.mode mapped: tract copies the weights of a file when it loads it; use mode whole, or onnx for mapped weights"
        )
    return {}
