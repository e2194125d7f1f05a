"""OpenVINO models cannot be cut into parts; the error says why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

UNSUPPORTED = (
    "load.mode split and lazy: OpenVINO compiles a model for the processor each time it is loaded, so parts that are released between "
    "runs would be compiled again for every inference; use onnx, tflite or torch for this, or mode whole"
)


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> NoReturn:
    """plugins.Splitter.cuttable."""
    raise ValueError(UNSUPPORTED)
