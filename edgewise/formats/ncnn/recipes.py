"""The schemes as functions: a net of float32 -> the layers of the variant.

ncnn has three forms of integers. Convolutions and InnerProducts have static int8: a scale for their input and for each output channel. Gemm
and MultiHeadAttention have int8 whose inputs get a scale at run time, for each row, and weights in blocks of 32, 64 or 128, each with a
scale, that are multiplied as floats; an InnerProduct becomes a Gemm for these.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgewise.formats.ncnn import blobs
from edgewise.formats.ncnn.blobs import find_shapes
from edgewise.formats.ncnn.net_files import LAYOUTS, Layer

CONVOLUTIONS = ("Convolution", "ConvolutionDepthWise")
STATIC = (*CONVOLUTIONS, "InnerProduct")
ROWS = ("Gemm", "MultiHeadAttention")
WEIGHTED = tuple(kind for kind in LAYOUTS if kind.startswith(("Conv", "Deconv", "Inner", "Embed", "Gemm", "LSTM", "GRU", "RNN", "Multi")))
INT8_TERM, FEATURES = 8, 31  # parameters of layers: the form of their integers, and the features that they must not use
NO_WINOGRAD = 1 << 6  # in FEATURES: see Net's get_masked_option
LARGEST, LARGEST_REDUCED = 127, 31
REQUANTIZED = 100  # added to the form where the output is int8 too

INT8 = {"weights": "int8", "activations": "int8", "covers": STATIC}
SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": WEIGHTED},
    "fp16": {"weights": "float16", "activations": "float32", "covers": WEIGHTED},  # how it is computed is the setting engine.precision
    "int8-static": INT8,
    "int8-mixed": INT8,
    "int8-qat": INT8,
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": ROWS},
    "int8-weight": {"weights": "int8", "activations": "float32", "covers": ROWS},
    "int4-weight": {"weights": "int4", "activations": "float32", "covers": ROWS},
}
STATIC_SETTINGS = {"calibration.method": blobs.METHODS, "per_channel": (False, True), "reduce_range": (False, True)}
SPREAD_SETTINGS = {**STATIC_SETTINGS, "spread": ("float", "int8")}
BLOCKS = {"block_size": (32, 64, 128)}
SETTINGS: Mapping[str, Mapping[str, tuple[Any, ...]]] = {
    **dict.fromkeys(("int8-static", "int8-mixed"), SPREAD_SETTINGS),
    "int8-qat": STATIC_SETTINGS,
    **dict.fromkeys(("int8-weight", "int4-weight"), BLOCKS),
}
Quantize = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # [rows, inner], float32 -> integers as they are stored, scales
PRODUCT_TERM = 18  # the parameter of Gemm and of MultiHeadAttention that says which integers they have
RELU = 1  # as the activation of an InnerProduct
SIDES = ("query", "key", "value", "output")


@dataclass(frozen=True)
class Job:
    """What a recipe needs. folder: of the float net, whose layers these are; kept: names of layers that stay float."""

    folder: Path
    layers: Sequence[Layer]
    settings: Mapping[str, Any]
    calibration: Sequence[Mapping[str, np.ndarray]]
    kept: frozenset[str]


def fp32(job: Job) -> list[Layer]:
    return list(job.layers)


def fp16(job: Job) -> list[Layer]:
    """Weights in 16 bits; ncnn widens them as it loads the file, unless it computes in 16 bits (engine.precision)."""
    return [layer if layer.name in job.kept or layer.kind not in WEIGHTED else halve(layer) for layer in job.layers]


def halve(layer: Layer) -> Layer:
    """ValueError for a weight that float16 does not reach."""
    limit = np.finfo(np.float16).max
    for name, array in layer.arrays.items():
        largest = np.abs(array).max(initial=0)
        if name.startswith("weight") and largest > limit:
            raise ValueError(f"layer {layer.name} has a weight of {largest:g}, float16 ends at {limit:g}; keep it float (keep_float)")
    return replace(layer, arrays={n: a.astype(np.float16) if n.startswith("weight") else a for n, a in layer.arrays.items()})


def int8_static(job: Job) -> list[Layer]:
    """Static int8 of the layers that have it; what stands between two of them is int8 too where nothing else reads it."""
    chosen = [layer for layer in job.layers if layer.kind in STATIC and "weight" in layer.arrays and layer.name not in job.kept]
    method = job.settings["calibration"]["method"]
    found = blobs.find_thresholds(job.folder, sorted({layer.inputs[0] for layer in chosen}), job.calibration, method)
    per_channel, reduced = job.settings["per_channel"], bool(job.settings.get("reduce_range"))
    made = {layer.name: quantize_static(layer, found[layer.inputs[0]], per_channel, reduced) for layer in chosen}
    return requantize([made.get(layer.name, layer) for layer in job.layers])


def quantize_static(layer: Layer, threshold: float, per_channel: bool, reduced: bool) -> Layer:
    """threshold: the largest magnitude of the input. A depthwise convolution has a scale for each group.

    The winograd kernels of ARM sum weights of 8 bits in 16: they get 6 bits (reduced), as ncnn2table writes them, or are not used.
    """
    winograd = layer.kind == "Convolution" and has_winograd(layer)
    groups = layer.integer(7) if layer.kind == "ConvolutionDepthWise" else len(layer.arrays["weight"])
    weight = layer.arrays["weight"]
    integers, scales = to_integers(weight.reshape(groups, -1), per_channel, LARGEST_REDUCED if reduced and winograd else LARGEST)
    term = "1" if layer.kind == "ConvolutionDepthWise" else "2"
    params = {**layer.params, INT8_TERM: term, **({FEATURES: str(NO_WINOGRAD)} if winograd and not reduced else {})}
    arrays = {**layer.arrays, "weight": integers.reshape(weight.shape), "weight_scales": scales, "input_scales": to_scale(threshold)}
    return replace(layer, params=params, arrays=arrays)


def has_winograd(layer: Layer) -> bool:
    """Whether it is a convolution of 3x3 with neither stride nor dilation."""
    sizes = [layer.integer(1), layer.integer(11, layer.integer(1))]
    steps = [layer.integer(2, 1), layer.integer(12, layer.integer(2, 1)), layer.integer(3, 1), layer.integer(13, layer.integer(3, 1))]
    return sizes == [3, 3] and steps == [1, 1, 1, 1]


def to_integers(rows: np.ndarray, per_row: bool, largest: int) -> tuple[np.ndarray, np.ndarray]:
    """round(rows * scale), int8, and the scale of each row, float32: largest / max|row|, or one for all rows."""
    reach = np.abs(rows).max(axis=1, initial=0.0)
    reach = reach if per_row else np.full_like(reach, reach.max(initial=0.0))
    scales = (largest / np.where(reach > 0, reach, largest)).astype(np.float32)
    return np.rint(rows * scales[:, None]).clip(-largest, largest).astype(np.int8), scales


def to_scale(threshold: float) -> np.ndarray:
    return np.array([LARGEST / threshold if threshold > 0 else 1.0], np.float32)


def requantize(layers: Sequence[Layer]) -> list[Layer]:
    """Let convolutions give int8 where only convolutions of int8 read their output, whose input has one scale then: they need not be
    turned into floats between."""
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for blob in layer.inputs:
            readers.setdefault(blob, []).append(layer)

    def follow(blob: str) -> Iterator[Layer | None]:
        """The layers that read a blob, through Split; None for an output of the net."""
        for reader in readers.get(blob, [None]):
            if reader is not None and reader.kind == "Split":
                for output in reader.outputs:
                    yield from follow(output)
            else:
                yield reader

    def is_int8(layer: Layer | None) -> bool:
        return layer is not None and layer.kind in CONVOLUTIONS and "input_scales" in layer.arrays

    found = []
    for layer in layers:
        after = list(follow(layer.outputs[0])) if is_int8(layer) else [None]
        scales = {float(reader.arrays["input_scales"][0]) for reader in after if reader is not None and is_int8(reader)}
        found.append(give_int8(layer, scales.pop()) if all(map(is_int8, after)) and len(scales) == 1 else layer)
    return found


def give_int8(layer: Layer, scale: float) -> Layer:
    term = str(layer.integer(INT8_TERM) + REQUANTIZED)
    return replace(layer, params={**layer.params, INT8_TERM: term}, arrays={**layer.arrays, "output_scales": np.array([scale], np.float32)})


def int8_dynamic(job: Job) -> list[Layer]:
    """Weights of 8 bits, with one scale for a matrix, as ncnn has it; each row of the input gets its scale at run time."""

    def quantize(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        integers, scales = to_integers(rows, False, LARGEST)
        return integers, scales[:1]

    return rewrite_products(job, quantize, 1)


def weight_only(bits: int) -> Callable[[Job], list[Layer]]:
    """Weights of 4 or 8 bits in blocks, each with its scale; activations stay float."""

    def recipe(job: Job) -> list[Layer]:
        size = job.settings["block_size"]
        return rewrite_products(job, lambda rows: to_blocks(rows, bits, size), 100 * bits + BLOCKS["block_size"].index(size))

    return recipe


def rewrite_products(job: Job, quantize: Quantize, term: int) -> list[Layer]:
    """Matrix products with integers of a form; an InnerProduct, which has no such form, becomes a Gemm."""
    return [
        quantize_product(layer, quantize, term) if layer.kind in ROWS and layer.name not in job.kept else layer
        for layer in replace_inner_products(job.folder, job.layers, job.kept)
    ]


RECIPES: Mapping[str, Callable[[Job], list[Layer]]] = {
    "fp32": fp32,
    "fp16": fp16,
    "int8-static": int8_static,
    "int8-mixed": int8_static,  # with the layers in float that the search found
    "int8-qat": int8_static,  # of a model fine-tuned for it
    "int8-dynamic": int8_dynamic,
    "int8-weight": weight_only(8),
    "int4-weight": weight_only(4),
}


def quantize_product(layer: Layer, quantize: Quantize, term: int) -> Layer:
    """The layer with integer weights. A Gemm without a constant right side, or one that is not transposed, stays as it is."""
    params = {**layer.params, PRODUCT_TERM: str(term)}
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
