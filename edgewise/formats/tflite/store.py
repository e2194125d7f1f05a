"""The form in which model.tflite is kept: the interpreter maps the file by itself, so there is nothing to change."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE: Mapping[str, tuple[Any, ...]] = {}


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """See plugins.Storer. Measured with ResNet-18 in fp32: 109 MB above the baseline, of which XNNPACK's copy is 46, and 64 without
    XNNPACK at 2.6 times the latency."""
    if mapped and engine.get("xnnpack", True):
        raise ValueError(
            "load.mode mapped: the interpreter maps model.tflite in every mode; what it holds beside it is XNNPACK's own copy of the "
            "weights, which engine {xnnpack: false} saves, at two to three times the latency; say both, or use mode whole"
        )
    return {}
