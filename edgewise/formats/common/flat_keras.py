"""A Keras model with numbered inputs and outputs, whatever structure of lists and dicts it takes and gives: input_00, output_00 ...

Converters give inputs and outputs back in an order of their own; the numbers are that of model.inputs and model.outputs. Imported in the
processes that have Keras only.
"""

from collections.abc import Sequence
from typing import Any


def flatten(model: Any, shapes: Sequence[Sequence[int | None]] | None = None, kept: Sequence[int] | None = None) -> Any:
    """shapes: of the inputs, batch first; None: those of the model, with an open batch. kept: positions of outputs; None: all of them."""
    import keras

    sides = shapes or [(None, *tensor.shape[1:]) for tensor in model.inputs]
    ports = list(zip(model.inputs, sides, strict=True))
    inputs = [keras.Input(batch_shape=tuple(shape), dtype=port.dtype, name=f"input_{i:02}") for i, (port, shape) in enumerate(ports)]
    outputs = keras.tree.flatten(call(model, inputs))
    return keras.Model(inputs, {f"output_{i:02}": tensor for i, tensor in enumerate(outputs) if kept is None or i in kept})


def call(model: Any, tensors: Sequence[Any]) -> Any:
    """What the model gives for tensors in the order of model.inputs, in its own structure."""
    import keras

    structure = getattr(model, "input", model.inputs)  # a Sequential has none until it is called
    if len(tensors) == 1 and not isinstance(structure, dict):
        return model(tensors[0])
    return model(keras.tree.pack_sequence_as(structure, list(tensors)))
