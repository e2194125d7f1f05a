"""Matrix products with integer weights: Gemm and MultiHeadAttention, and InnerProducts, which become Gemm for it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgewise.formats.ncnn.blobs import find_shapes
from edgewise.formats.ncnn.net_files import Layer

Quantize = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [rows, inner], float32 -> integers as they are stored, scales
TERM = 18  # the parameter of Gemm and of MultiHeadAttention that says which integers they have
RELU = 1  # as the activation of an InnerProduct
SIDES = ("query", "key", "value", "output")


def quantize_product(layer: Layer, quantize: Quantize, term: int) -> Layer:
    """The layer with integer weights. A Gemm without a constant right side, or one that is not transposed, stays as it is."""
    params = {**layer.params, TERM: str(term)}
    if layer.kind == "MultiHeadAttention":
        return replace(layer, params=params, arrays=quantize_attention(layer, quantize, term))
    if "weight" not in layer.arrays or layer.integer(4) or not layer.integer(3):
        return layer
    integers, scales = quantize(layer.arrays["weight"])
    return replace(layer, params=params, arrays={**layer.arrays, "weight": integers, scales_name(term): scales})


def scales_name(term: int) -> str:
    return "block_scales" if term >= 400 else "weight_scales"


def quantize_attention(layer: Layer, quantize: Quantize, term: int) -> dict[str, np.ndarray]:
    """int8 at run time has a scale for each row of queries, keys and values, and one for the output."""
    arrays = dict(layer.arrays)
    for side in SIDES:
        integers, scales = quantize(layer.arrays[f"weight_{side}"])
        rows = len(layer.arrays["weight_query"])
        arrays[f"weight_{side}"] = integers
        arrays[f"scales_{side}"] = np.full(rows, scales[0], np.float32) if term < 400 and side != "output" else scales
    return arrays


def to_blocks(rows: np.ndarray, bits: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers of 4 or 8 bits, int8 [rows, bytes], the lower half of a byte first, and a scale for each block: largest / max|block|."""
    count, inner = rows.shape
    blocks = -(-inner // size)
    padded = np.zeros((count, blocks * size), np.float32)
    padded[:, :inner] = rows
    parts = padded.reshape(count, blocks, size)
    largest = 2 ** (bits - 1) - 1
    reach = np.abs(parts).max(axis=2)
    scales = (largest / np.where(reach > 0, reach, largest)).astype(np.float32)
    integers = np.rint(parts * scales[:, :, None]).clip(-largest, largest).astype(np.int8).reshape(count, -1)[:, :inner]
    return (integers if bits == 8 else pack_halves(integers)), scales


def pack_halves(integers: np.ndarray) -> np.ndarray:
    even = np.pad(integers, ((0, 0), (0, integers.shape[1] % 2))).view(np.uint8) & 15
    return np.ascontiguousarray(even[:, 0::2] | even[:, 1::2] << 4).view(np.int8)


def replace_inner_products(folder: Path, layers: Sequence[Layer], kept: Collection[str]) -> Iterator[Layer]:
    """Each InnerProduct that is not kept as a Gemm. folder: of the net."""
    chosen = [layer for layer in layers if layer.kind == "InnerProduct" and layer.name not in kept and layer.integer(9) in (0, RELU)]
    shapes = find_shapes(folder, [layer.inputs[0] for layer in chosen]) if chosen else {}
    names = {layer.name for layer in chosen}
    for layer in layers:
        yield from to_gemm(layer, len(shapes[layer.inputs[0]]) == 1) if layer.name in names else [layer]


def to_gemm(layer: Layer, vector: bool) -> Iterator[Layer]:
    """vector: the input is a vector, and Gemm takes matrices."""
    outputs, inner = layer.arrays["weight"].shape
    (given,), (made,) = layer.inputs, layer.outputs
    if vector:
        yield Layer("Reshape", f"{layer.name}/row", (given,), (f"{made}/row",), {0: str(inner), 1: "1"}, {})
        given = f"{made}/row"
    bias = {"bias": layer.arrays["bias"][None]} if "bias" in layer.arrays else {}
    params = {2: "0", 3: "1", 4: "0", 5: "1", 6: "1", 7: "0", 8: str(outputs), 9: str(inner), 10: "4" if bias else "-1"}
    steps = [*(["Reshape"] if vector else []), *(["ReLU"] if layer.integer(9) == RELU else [])]
    product = f"{made}/product" if steps else made
    yield Layer("Gemm", layer.name, (given,), (product,), params, {"weight": layer.arrays["weight"], **bias})
    for place, kind in enumerate(steps):
        last = made if place == len(steps) - 1 else f"{made}/{kind}"
        yield Layer(kind, f"{layer.name}/{kind}", (product,), (last,), {0: str(outputs)} if kind == "Reshape" else {}, {})
        product = last
