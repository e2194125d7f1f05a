"""What the files of a net really hold, read from the .param and the .bin.

The type of a layer's activations is `int8` where the file has a scale for its input, `dynamic` where its rows get one at run time, else
float32: in how many bits floats are computed is an engine setting and stands in no file.
"""

from collections import Counter
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from edgewise.formats.ncnn import net_files
from edgewise.formats.ncnn.net_files import Layer, block_bits
from edgewise.formats.ncnn.recipes import PRODUCT_TERM

PRODUCTS = ("Gemm", "MultiHeadAttention")
CONVERSIONS = ("Quantize", "Dequantize", "Requantize", "Cast")


class Held(NamedTuple):
    """A constant with two or more dimensions. bits: of each element."""

    dtype: str
    bits: int
    elements: int


def facts(folder: Path) -> dict[str, Any]:
    """plugins.Facts. Operators have ncnn's names."""
    layers = net_files.read(Path(folder))
    held = {layer.name: found for layer in layers if (found := list_weights(layer))}
    sizes: Counter[str] = Counter()
    for weight in (weight for found in held.values() for weight in found):
        sizes[weight.dtype] += ceil(weight.elements * weight.bits / 8)
    nodes = [describe(layer, held[layer.name]) for layer in layers if layer.name in held]
    return {
        "operators": dict(Counter(f"{layer.kind}[{held[layer.name][0].dtype}]" if layer.name in held else layer.kind for layer in layers)),
        "weights_bytes_by_dtype": dict(sizes),
        "weights_elements": sum(weight.elements for found in held.values() for weight in found),
        "nodes": nodes,
        "conversions": dict(Counter(layer.kind for layer in layers if layer.kind in CONVERSIONS)),
    }


def list_weights(layer: Layer) -> list[Held]:
    bits = block_bits(layer.integer(PRODUCT_TERM)) if layer.kind in PRODUCTS else 0
    constants = {name: array for name, array in layer.arrays.items() if name.startswith(("weight", "constant")) and is_matrix(layer, array)}
    if bits:
        return [Held(f"int{bits}", bits, len(array) * find_inner(layer, name)) for name, array in constants.items()]
    return [Held(array.dtype.name, array.itemsize * 8, array.size) for array in constants.values()]


def is_matrix(layer: Layer, array: np.ndarray) -> bool:
    """Whether it has two or more dimensions; of a plain constant, that are longer than 1."""
    sizes = array.shape if layer.kind != "MemoryData" else [size for size in array.shape if size > 1]
    return len(sizes) >= 2


def find_inner(layer: Layer, name: str) -> int:
    """How many elements a row of a weight in blocks has, which may fill no whole byte."""
    if layer.kind == "Gemm":
        return layer.integer(9)
    size = layer.integer(0)
    inner = {"query": layer.integer(2) // size, "key": layer.integer(3, size), "value": layer.integer(4, size), "output": size}
    return inner[name.removeprefix("weight_")]


def describe(layer: Layer, weights: list[Held]) -> dict[str, Any]:
    main = max(weights, key=lambda weight: weight.elements)
    return {
        "name": layer.name,
        "operator": layer.kind,
        "weights_dtype": main.dtype,
        "activations_dtype": find_activations(layer),
        "elements": sum(weight.elements for weight in weights),
    }


def find_activations(layer: Layer) -> str:
    if "input_scales" in layer.arrays:
        return "int8"
    dynamic = layer.kind in PRODUCTS and layer.integer(PRODUCT_TERM) and not block_bits(layer.integer(PRODUCT_TERM))
    return "dynamic" if dynamic else "float32"
