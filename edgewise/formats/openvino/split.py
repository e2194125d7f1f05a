"""OpenVINO models cannot be cut into parts; the error says why."""

from pathlib import Path
from typing import Any


def cuttable(folder: Path, *_: Any) -> Any:
    raise ValueError(
        "load.mode split and lazy: OpenVINO compiles a model for the processor each time it is loaded, so parts that are released between "
        "runs would be compiled again for every inference; use onnx, tflite or torch for this, or mode whole"
    )
