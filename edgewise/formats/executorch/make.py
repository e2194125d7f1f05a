"""Make ExecuTorch programs of a torch program, for XNNPACK on the CPU; quantized by XNNPACK's own quantizer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.common.quiet import capture_output, suppress_warnings
from edgewise.formats.executorch import facts, lowering, recipes
from edgewise.formats.executorch.facts import read
from edgewise.formats.executorch.run import MODEL

SOURCES = ("torch",)
ELSEWHERE = {
    "onnx": "bring the model as a torch program (torch.export.save) or as a callable with its checkpoint; ExecuTorch reads nothing else",
    "keras": "bring the model as a torch program, which Keras exports with its torch backend",
    "tflite": "use tflite, whose runtime has the same XNNPACK kernels",
}
REQUIRES = {"torch": "executorch", "executorch": "executorch", "torchao": "executorch"}
PRODUCTS = ("Conv1d", "Conv2d", "DepthwiseConv2d", "ConvTranspose2d", "FullyConnected")
STATIC = {"weights": "int8", "activations": "int8", "covers": PRODUCTS}
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": (*PRODUCTS, "GroupConvTranspose2d", "convolution", "embedding")},
    "int8-static": STATIC,
    "int8-mixed": STATIC,
    "int8-qat": STATIC,
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": ("Conv2d", "FullyConnected")},
    "int4-weight": {"weights": "int4", "activations": "dynamic", "covers": ("FullyConnected",)},
}
STATIC_SETTINGS: Mapping[str, tuple[Any, ...]] = {"calibration.method": tuple(recipes.METHODS), "per_channel": (False, True)}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    "fp32": {},
    **dict.fromkeys(("int8-static", "int8-mixed", "int8-qat"), STATIC_SETTINGS),
    "int8-dynamic": {},
    "int4-weight": {},
}
Arrays = dict[str, np.ndarray]


def convert(source: Path, folder: Path, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """plugins.Maker.convert. The file takes one sample, or as many as the source is fixed to. Nodes are named after the layers."""
    with capture_output(), suppress_warnings():
        prepared = lowering.prepare(source)
        write(folder, prepared.module, prepared)
    _check_layers(prepared, folder)
    sides = {side: [dict(entry) for entry in prepared.manifest[side]] for side in ("inputs", "outputs")}
    for entry, example in zip(sides["inputs"], prepared.examples, strict=True):
        entry["shape"] = list(example.shape)
    for entry, size in zip(sides["outputs"], lowering.output_sizes(prepared), strict=True):
        entry["shape"] = size
    return {**sides, "layers": prepared.layers}


def _check_layers(prepared: lowering.Prepared, folder: Path) -> None:
    """ValueError for a layer whose weights are in no node of the file: keep_float could not reach it."""
    present = {node["name"] for node in facts.facts(folder)["nodes"]}
    lost = sorted({layer for layer, names in prepared.layers.items() if set(names) - present})
    if lost:
        raise ValueError(f"no operator of the ExecuTorch program has the weights of layer {', '.join(lost)}: keep_float could not reach it")


def quantize(
    parent: Path,
    source: Path,
    folder: Path,
    scheme: str,
    settings: Mapping[str, Any],
    calibration: Sequence[Arrays],
    keep_nodes: Sequence[str],
) -> None:
    """plugins.Maker.quantize, from the source's program: a lowered one cannot be quantized."""
    with capture_output(), suppress_warnings():
        prepared = lowering.prepare(source)
        write(folder, recipes.quantize(prepared, scheme, settings, calibration, keep_nodes), prepared)


def write(folder: Path, module: Any, prepared: lowering.Prepared) -> None:
    """Write model.pte. ValueError names the operators that the runtime has no kernel for."""
    path = folder / MODEL
    path.write_bytes(lowering.lower(module, prepared))
    missing = lowering.find_missing_kernels(read(path).kernels)
    if missing:
        raise ValueError(
            f"ExecuTorch has no kernel for {', '.join(missing)}, and XNNPACK does not take it; use another format, or another operator"
        )
