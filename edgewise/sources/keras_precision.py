"""Keras models in mixed precision, as they are trained on GPUs: float32 weights, with which layers compute in float16 or bfloat16.

Converters read float32 only. So such a model is written again with layers that compute in float32; its weights stay as they are. The oracle
is still the user's own file, and how far a variant has to agree with it is a matter of float16, see edgewise.proof.checks.least_sqnr_db.
"""

from collections.abc import Iterator
from typing import Any

POLICIES = {"mixed_float16": "float16", "mixed_bfloat16": "bfloat16"}  # Keras' names -> what layers compute in
WIDE = "float32"


def find_precision(model: Any) -> str | None:
    """float16 or bfloat16, if a layer with weights computes in it; None for any other model."""
    names = (layer.dtype_policy.name for layer in _iterate_layers(model) if layer.weights)
    return next((POLICIES[name] for name in names if name in POLICIES), None)


def widen(model: Any) -> Any:
    """The same model, with layers that compute in float32."""
    import keras

    wide = keras.saving.deserialize_keras_object(_replace(keras.saving.serialize_keras_object(model)))
    wide.set_weights(model.get_weights())
    return wide


def _iterate_layers(model: Any) -> Iterator[Any]:
    for layer in model.layers:
        yield layer
        if hasattr(layer, "layers"):
            yield from _iterate_layers(layer)


def _replace(config: Any) -> Any:
    """The configuration with float32 in the place of each mixed policy."""
    if isinstance(config, dict):
        return {key: _replace(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return type(config)(_replace(value) for value in config)
    return WIDE if isinstance(config, str) and config in POLICIES else config
