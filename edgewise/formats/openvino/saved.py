"""A .keras or .h5 file as a SavedModel, which OpenVINO reads. Keras and TensorFlow take 800 MB and may abort: a process of its own.

python -m edgewise.formats.openvino.saved MODEL FOLDER
"""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path


def write(model: Path, folder: Path) -> Path:
    """Write the SavedModel; returns its folder. Its inputs are called input_00, input_01 ... in the order of the model.
    ValueError where Keras refuses or aborts; ChildProcessError where it was killed."""
    if importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError("tensorflow is not installed", name="tensorflow")
    quiet = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    command = [sys.executable, "-m", "edgewise.formats.openvino.saved", str(model.resolve()), str(folder)]
    place = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env={**os.environ, **quiet})
    if -done.returncode in (signal.SIGKILL, signal.SIGTERM):
        raise ChildProcessError("Keras was killed while it exported the model; free some memory, then run the same command again")
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise ValueError(f"Keras cannot export the model as a SavedModel: {lines[-1][:300] if lines else 'it says nothing'}")
    return folder


def main() -> None:
    import keras

    model = keras.saving.load_model(sys.argv[1], compile=False)
    taken = [
        keras.InputSpec(shape=(None, *tensor.shape[1:]), dtype=tensor.dtype, name=f"input_{i:02}") for i, tensor in enumerate(model.inputs)
    ]
    model.export(sys.argv[2], verbose=False, input_signature=taken if len(taken) == 1 else [taken])


if __name__ == "__main__":
    main()
