"""Models of tract cannot be cut into parts; the error says why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

UNSUPPORTED = (
    "load.mode split and lazy: tract optimizes a graph and packs its weights each time it loads a file, which takes longer than many "
    "inferences, so parts that are released between runs would gain nothing; use onnx, tflite or torch for this, or mode whole"
)


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> NoReturn:
    """plugins.Splitter.cuttable."""
    raise ValueError(UNSUPPORTED)
