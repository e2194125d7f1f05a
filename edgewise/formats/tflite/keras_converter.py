"""Convert Keras models with TensorFlow's own converter, tf.lite.TFLiteConverter, and its four quantization strategies.

They are kept because users of TensorFlow know them, although TensorFlow deprecates their quantizer in favor of the AI Edge Quantizer,
which quantizes TFLite files and torch programs here (see edge_quantizer.py).

A bad model can abort the converter, and TensorFlow takes 800 MB, so each conversion runs in a process of its own:

    python -m edgewise.formats.tflite.keras_converter JOB.json
"""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SCHEMES = ("fp32", "fp16", "int8-dynamic", "int8-static", "int16x8-static")


def write(
    model: Path,
    path: Path,
    scheme: str,
    inputs: Mapping[str, Sequence[int | None]],
    settings: Mapping[str, Any],
    calibration: Sequence[Mapping[str, np.ndarray]],
    kept: Sequence[int] | None = None,
) -> None:
    """Write the TFLite file, batch size 1. inputs: name -> shape, batch first, in the model's order; settings: `per_channel`, `io`
    ("integer", "float"); kept: positions of outputs, None: all of them. ValueError if the converter fails or aborts; ChildProcessError if
    it was killed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError("tensorflow is not installed", name="tensorflow")
    with tempfile.TemporaryDirectory() as place:
        samples = Path(place, "calibration.npz")
        if calibration:
            arrays: dict[str, Any] = {f"input_{i:02}": np.stack([feed[name] for feed in calibration]) for i, name in enumerate(inputs)}
            np.savez(samples, **arrays)
        places = {"model": str(model.resolve()), "path": str(path.resolve()), "samples": str(samples)}
        job = {
            **places,
            "scheme": scheme,
            "kept": kept,
            "shapes": [[1, *shape[1:]] for shape in inputs.values()],
            **_converter_options(settings),
        }
        Path(place, "job.json").write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, "-m", "edgewise.formats.tflite.keras_converter", str(Path(place, "job.json"))]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[3], env=_environment())
    _raise_on_failure(done, scheme)


def _converter_options(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {"per_channel": settings.get("per_channel") is not False, "integer_io": settings.get("io") != "float"}


def _environment() -> dict[str, str]:
    """On the CPU, with fixed hash order: the same model gives the same bytes."""
    return {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "PYTHONHASHSEED": "0"}


def _raise_on_failure(done: subprocess.CompletedProcess[str], scheme: str) -> None:
    if done.returncode == 0:
        return
    if -done.returncode in (signal.SIGKILL, signal.SIGTERM):
        raise ChildProcessError(f"TFLiteConverter was killed while it made {scheme}; free some memory, then run the same command again")
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    how = f"aborts ({signal.Signals(-done.returncode).name})" if done.returncode < 0 else "refuses"
    raise ValueError(f"TFLiteConverter {how} to make {scheme} of this model: {lines[-1][:300] if lines else 'it says nothing'}")


def convert(job: Mapping[str, Any]) -> bytes:
    """Convert, in the child process. job: model, path, scheme, kept, shapes, per_channel, integer_io, samples; see `write`."""
    import tensorflow as tf

    place = Path(job["model"])
    converter = (_saved_model_converter if place.is_dir() else _keras_converter)(place, job["shapes"], job["kept"])
    scheme = job["scheme"]
    if scheme != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if scheme == "fp16":
        converter.target_spec.supported_types = [tf.float16]
    if scheme.endswith("-static"):
        wide = scheme.startswith("int16x8")
        kernels = tf.lite.OpsSet
        chosen = kernels.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8 if wide else kernels.TFLITE_BUILTINS_INT8
        converter.representative_dataset = lambda: _iterate_samples(Path(job["samples"]))
        converter.target_spec.supported_ops = [chosen]
        if job["integer_io"]:
            converter.inference_input_type = converter.inference_output_type = tf.int16 if wide else tf.int8
        converter._experimental_disable_per_channel = not job["per_channel"]  # the only way to get per-tensor weights
    content: bytes = converter.convert()
    return content


def _keras_converter(place: Path, shapes: Sequence[Sequence[int]], kept: Sequence[int] | None) -> Any:
    import keras
    import tensorflow as tf

    from edgewise.formats.common.programs import flatten_keras

    return tf.lite.TFLiteConverter.from_keras_model(flatten_keras(keras.saving.load_model(place, compile=False), shapes, kept))


def _saved_model_converter(place: Path, shapes: Sequence[Sequence[int]], kept: Sequence[int] | None) -> Any:
    """A converter of the default signature with fixed shapes. Inputs and outputs are sorted by name, as in edgewise.sources.keras_file."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(place))
    signature = loaded.signatures["serving_default"]
    specs = sorted(signature.structured_input_signature[1].items())
    fixed = [tf.TensorSpec(shape, spec.dtype, f"input_{i:02}") for i, ((_, spec), shape) in enumerate(zip(specs, shapes, strict=True))]
    names = [name for name, _ in specs]

    def numbered(*given: Any) -> dict[str, Any]:
        results = sorted(signature(**dict(zip(names, given, strict=True))).items())
        return {f"output_{i:02}": tensor for i, (_, tensor) in enumerate(results) if kept is None or i in kept}

    return tf.lite.TFLiteConverter.from_concrete_functions([tf.function(numbered).get_concrete_function(*fixed)], loaded)


def _iterate_samples(path: Path) -> Iterator[dict[str, np.ndarray]]:
    with np.load(path) as stored:
        arrays = dict(stored)
    yield from ({name: array[i] for name, array in arrays.items()} for i in range(len(next(iter(arrays.values())))))


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    Path(job["path"]).write_bytes(convert(job))


if __name__ == "__main__":
    main()
