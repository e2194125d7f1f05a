"""The form in which model.tflite is stored: always the same, since the interpreter maps the file by itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

FILE: Mapping[str, tuple[Any, ...]] = {}


def store(folder: Path, file: Mapping[str, Any], engine: Mapping[str, Any], mapped: bool) -> dict[str, Any]:
    """plugins.Storer.store. ResNet-18 fp32 takes 109 MB above the baseline, 46 MB of them XNNPACK's copy of the weights; 64 MB without
    XNNPACK at 2.6 times the latency."""
    if mapped and engine.get("xnnpack", True):
        raise ValueError(
            "load.mode mapped: the interpreter maps model.tflite in every mode; in addition XNNPACK keeps its own copy of the "
            "weights, which engine {xnnpack: false} avoids at two to three times the latency; set both, or use mode whole"
        )
    return {}
