"""Quantize a float TFLite file with the AI Edge Quantizer (AEQ)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stages.formats.tflite import recipe, schema
from stages.formats.tflite.program import REFUSALS, first_line
from stages.formats.tflite.quiet import quietly

Arrays = dict[str, np.ndarray]


def quantize(
    float_file: Path, path: Path, scheme: str, settings: Mapping[str, Any], calibration: Sequence[Arrays], keep_nodes: Sequence[str]
) -> None:
    """Write the quantized file. ValueError: AEQ cannot.

    settings: `per_channel`; `calibration` {"method"} and `io` of the static schemes; `keep_int8` of int4-weight: nodes in 8 bits.
    """
    from ai_edge_quantizer import quantizer

    between = schema.between(schema.read(float_file), keep_nodes) if settings.get("calibration") else []
    steps = recipe.build(scheme, settings, [*keep_nodes, *between])
    try:
        with quietly():
            work = quantizer.Quantizer(str(float_file), steps)
            ranges = _calibrate(float_file, steps, settings["calibration"]["method"], calibration) if work.need_calibration else None
            work.quantize(ranges, enable_progress_bar=False, enable_progress_report=False).export_model(str(path))
    except REFUSALS as error:
        raise ValueError(f"the AI Edge Quantizer cannot make {scheme} of this model: {first_line(error)}") from error


def _calibrate(path: Path, steps: list[dict[str, Any]], method: str, feeds: Sequence[Arrays]) -> dict[str, Any]:
    """Value ranges of the activations: the extremes of all samples, or AEQ's own moving average of each sample's extremes."""
    from ai_edge_quantizer import calibrator, recipe_manager
    from ai_edge_quantizer.utils import qsv_utils

    update = {"minmax": qsv_utils.min_max_update, "moving_average": qsv_utils.moving_average_update}[method]
    manager = recipe_manager.RecipeManager()
    manager.load_quantization_recipe(steps)
    work = calibrator.Calibrator(str(path), num_threads=1, qsv_update_func=update)
    samples = [{name: _narrow(array) for name, array in sample.items()} for sample in feeds]
    (signature,) = work.get_signature_list()
    work.calibrate({signature: samples}, manager)
    return work.get_model_qsvs()


def _narrow(array: np.ndarray) -> np.ndarray:
    """litert-torch turns 64-bit inputs into 32-bit ones."""
    return array.astype(np.int32) if array.dtype == np.int64 else array
