"""The form in which an ExecuTorch program is stored: always as lowered."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE: Mapping[str, tuple[Any, ...]] = {}


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """plugins.Storer.store."""
    if mapped:
        raise ValueError(
            "load.mode mapped: ExecuTorch maps model.pte in every mode; in addition XNNPACK holds weights that are packed for its kernels,"
            " which no setting avoids; use mode whole, or onnx for weights that stay on disk"
        )
    return {}
