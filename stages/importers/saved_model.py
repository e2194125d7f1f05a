"""A SavedModel directory: a TensorFlow program, as model.export writes it. It can read and write files: take it from people you trust."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import ModelError

SIGNATURE = "serving_default"


class SavedModel:
    """Its default signature. inputs, outputs: shapes without the batch, None where a side is open, in the order of their names."""

    def __init__(self, loaded: Any):
        self.loaded = loaded  # holds the variables
        self.signature = loaded.signatures[SIGNATURE]
        self.specs = dict(sorted(self.signature.structured_input_signature[1].items()))
        self.inputs = [spec.shape.as_list()[1:] for spec in self.specs.values()]
        self.outputs = [tensor.shape.as_list()[1:] for tensor in self.signature.structured_outputs.values()]
        self.kernels: dict[str, tuple[str, np.ndarray]] = {}
        self.parameters = sum(int(np.prod(variable.shape)) for variable in self.signature.variables)

    def score(self, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
        import tensorflow as tf

        given = zip(self.specs.items(), feeds.values(), strict=True)
        (result,) = self.signature(**{name: tf.constant(array, spec.dtype) for (name, spec), array in given}).values()
        return np.asarray(result, np.float32)


def load(path: Path, import_keras: Callable[[], Any]) -> SavedModel:
    """ModelError where the folder is none, or has no default signature. import_keras: brings TensorFlow in, quietly."""
    if not (path / "saved_model.pb").is_file():
        raise ModelError(f"model.path: {path} is a folder without saved_model.pb; name a file, or what model.export has written")
    import_keras()
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(str(path))
    except Exception as error:  # TensorFlow has no common class for what a damaged file does to it
        raise ModelError(f"model.path: TensorFlow {tf.__version__} cannot load {path}: {' '.join(str(error).split())[:240]}") from error
    if SIGNATURE not in loaded.signatures or not loaded.signatures[SIGNATURE].structured_input_signature[1]:
        names = ", ".join(loaded.signatures) or "none"
        raise ModelError(
            f"model.path: {path} has no signature {SIGNATURE} with inputs (it has: {names}); write it with model.export(FOLDER)"
        )
    return SavedModel(loaded)
