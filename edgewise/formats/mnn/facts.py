"""What a model.mnn really holds, read from its tables.

Matrix products with constant weights are convolutions of 1x1 in the file and count as MatMul. Weights are the float or packed constants of
operators, with at least two dimensions above 1; a table in a Const counts at the first operator that reads it. MNN adds the conversions
between float and integer when it loads a file, so that a file has none.
"""

from pathlib import Path
from typing import Any

from edgewise.formats.common.weighted_nodes import collect_facts
from edgewise.formats.mnn.graph import Operator, Weight, read

BITS = {"float32": 32, "float16": 16}


def facts(folder: Path) -> dict[str, Any]:
    """plugins.Facts of model.mnn."""
    return collect_facts(read(folder).read_weights(), _describe, lambda weight: (weight.stored, count_bits(weight)))


def count_bits(weight: Weight) -> int:
    return BITS.get(weight.stored) or int(weight.stored.removeprefix("int"))


def _describe(operator: Operator, weights: list[Weight], elements: int) -> dict[str, Any]:
    return {
        "name": operator.name,
        "operator": operator.kind,
        "weights_dtype": max(weights, key=lambda weight: weight.elements).stored,
        "activations_dtype": "int8" if operator.is_quantized else "float32",
        "elements": elements,
    }
