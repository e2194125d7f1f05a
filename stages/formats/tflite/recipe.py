"""Edgewise's schemes as recipes of the AI Edge Quantizer (AEQ)."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

TABLES = "EMBEDDING_LOOKUP"  # static recipes have no rule for look-up tables and would leave them float
LAYERS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")  # as the schema spells them
MATRICES = (*LAYERS, "BATCH_MATMUL")
CONVERTER_LEAST = 1024  # TFLiteConverter leaves smaller weights float in its dynamic strategy (minimum_elements_for_weights)

SCHEMES: Mapping[str, Mapping[str, Any]] = {
    "fp32": {"weights": "float32", "activations": "float32", "covers": (*MATRICES, TABLES)},
    "fp16": {"weights": "float16", "activations": "float32", "covers": (*LAYERS, TABLES)},
    "int8-dynamic": {"weights": "int8", "activations": "dynamic", "covers": (*MATRICES, TABLES), "least_elements": CONVERTER_LEAST},
    "int8-static": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int8-mixed": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int8-qat": {"weights": "int8", "activations": "int8", "covers": MATRICES},
    "int16x8-static": {"weights": "int8", "activations": "int16", "covers": MATRICES},
    "int4-weight": {"weights": "int4", "activations": "dynamic", "covers": ("CONV_2D", "FULLY_CONNECTED", TABLES)},
}
CALIBRATION = {"calibration.method": ("minmax", "moving_average"), "per_channel": (True, False), "io": ("integer", "float")}
SETTINGS: Mapping[str, Mapping[str, tuple]] = {
    "fp32": {},
    "fp16": {},
    "int8-dynamic": {},  # per channel only: with one scale, depthwise convolutions give other results at every load (runtime 2.3.0)
    "int8-static": CALIBRATION,
    "int8-mixed": CALIBRATION,
    "int8-qat": CALIBRATION,
    "int16x8-static": CALIBRATION,
    "int4-weight": {"per_channel": (True, False)},
}


def build(scheme: str, settings: Mapping[str, Any], keep_nodes: Sequence[str]) -> list[dict[str, Any]]:
    """The AEQ recipe of a scheme; the nodes named in keep_nodes are left as they are. settings: as for aeq.quantize."""
    from ai_edge_quantizer import qtyping, recipe_manager

    manager = recipe_manager.RecipeManager()
    granularity = qtyping.QuantGranularity.CHANNELWISE if settings["per_channel"] is not False else qtyping.QuantGranularity.TENSORWISE
    everything, tables = qtyping.TFLOperationName.ALL_SUPPORTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP
    if scheme == "fp16":
        manager.add_weight_only_config(".*", everything, 16, algorithm_key=recipe_manager.AlgorithmName.FLOAT_CASTING)
    elif scheme == "int8-dynamic":
        manager.add_dynamic_config(".*", everything, 8, granularity)
    elif scheme == "int4-weight":  # OCTAV clips where the squared error is least; from extremes, 4 bits lose 10 points on a ResNet-8
        manager.add_dynamic_config(".*", everything, 4, granularity, algorithm_key=recipe_manager.AlgorithmName.OCTAV)
        for name in settings.get("keep_int8", ()):
            manager.add_dynamic_config(scope(name), everything, 8, granularity)
    else:
        manager.add_static_config(".*", everything, 16 if scheme == "int16x8-static" else 8, 8, granularity)
        manager.add_dynamic_config(".*", tables, 8, granularity)
        if settings.get("io") == "float":
            for border in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
                manager.add_quantization_config(".*", border, algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE)
    for name in keep_nodes:
        manager.add_quantization_config(scope(name), everything, algorithm_key=recipe_manager.AlgorithmName.NO_QUANTIZE)
    return manager.get_quantization_recipe()


def scope(node: str) -> str:
    """A regular expression for one node: AEQ searches it in the output tensors' names, each followed by a semicolon."""
    return f"(^|;){re.escape(node)};"
