"""ExecuTorch programs are not cut into parts; the error says why."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

UNSUPPORTED = (
    "load.mode split and lazy: ExecuTorch plans the memory of a whole program when it is made, and XNNPACK packs the weights of each part"
    " anew whenever it is loaded; use onnx, tflite or torch for this, or mode whole"
)


def cuttable(folder: Path, source: Path, scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> NoReturn:
    """plugins.Splitter.cuttable."""
    raise ValueError(UNSUPPORTED)
