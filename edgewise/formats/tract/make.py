"""Make the files of tract: model.onnx as it is, or with weights of 16 bits, and beside it what tract does not keep of it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.onnx_graphs import WAYS_TO_ONNX, read_float
from edgewise.formats.tract import recipes, run
from edgewise.formats.tract.run import MODEL, PORTS

SOURCES = ("onnx",)
ELSEWHERE = WAYS_TO_ONNX
REQUIRES = {"tract": "tract", "onnx": "onnx"}
SCHEMES = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": recipes.PRODUCTS},
    "fp16": {"weights": "float16", "activations": "float32", "covers": recipes.PRODUCTS},  # how they are computed is an engine setting
}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {}


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """plugins.Maker.convert. source: models/onnx, with layers.json. ValueError in one line where tract cannot load the file."""
    model, ports = read_float(source, "tract is used for float files here")
    described = {**ports, "operators": recipes.describe_operators(model)}
    shutil.copyfile(source / MODEL, folder / MODEL)
    (folder / PORTS).write_text(json.dumps(described, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    try:
        run.load(str(folder), {})
    except RuntimeError as error:
        raise ValueError(f"tract cannot load this model: {error}; use onnx for it") from error
    return {**ports, "layers": json.loads((source / "layers.json").read_text(encoding="utf-8"))}


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[dict[str, np.ndarray]],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize."""
    import onnx

    shutil.copyfile(parent / PORTS, folder / PORTS)
    onnx.save(recipes.RECIPES[scheme](onnx.load(parent / MODEL), keep_nodes), folder / MODEL)
