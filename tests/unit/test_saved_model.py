"""A SavedModel directory as a source, and models that abort the runtime of their importer."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.errors import ConfigError, DeviceError, InfrastructureError, MissingExtra, ModelError
from edgewise.formats.tflite import make, run
from edgewise.proof import checks, isolation
from edgewise.sources import imported, keras_file, model_source
from edgewise.sources.oracle import Oracle, fit_ports
from tests.support import own_files
from tests.unit.test_keras_and_tflite_files import MODULE, STATIC, data, model_file, obtain, quantize  # noqa: F401 - fixtures

pytestmark = [
    pytest.mark.framework,
    pytest.mark.slow,  # TensorFlow
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),  # Keras' variables
]


@pytest.fixture(scope="module")
def directory(model_file: Path) -> Path:  # noqa: F811
    folder = model_file.parent / "saved"
    keras_file.load(model_file).export(folder, verbose=False)
    return folder


def test_a_saved_model_is_converted_and_quantized_with_floats_outside(directory, data, tmp_path):  # noqa: F811
    source = obtain(keras_file, directory, data, tmp_path / "source")
    described = artifact.read(source)
    assert described.details["file"] == "model" and described.details["parameters"] > 1000
    assert described.outputs[0].meaning == "probabilities"
    (tmp_path / "float").mkdir()
    model = tmp_path / "float", make.convert(source, tmp_path / "float", {})
    inputs, expected = checks.read_probe(source)
    assert checks.check_outputs(expected, isolation.compute_outputs(MODULE, model[0], {"threads": 1}, inputs), 60.0) > 60
    assert len(model[1]["layers"]) == 4
    folder = quantize(model, source, tmp_path / "v", "int8-static", {**STATIC, "io": "float"})
    assert run.load(str(folder), {"threads": 1}).inputs[0]["dtype"] == "float32"
    assert checks.check_outputs(expected, isolation.compute_outputs(MODULE, folder, {"threads": 1}, inputs), 6.0) > 6


def test_folders_that_are_no_saved_model(tmp_path):
    with pytest.raises(ModelError, match=r"is a folder without saved_model\.pb; name a file"):
        keras_file.load_saved_model(tmp_path, keras_file.import_keras)
    pytest.importorskip("tensorflow")
    (tmp_path / "saved_model.pb").write_bytes(b"\x0a\xffbroken")
    with pytest.raises(ModelError, match=r"TensorFlow .* cannot load"):
        keras_file.load_saved_model(tmp_path, keras_file.import_keras)


def aborts(settings: Any) -> None:
    os.abort()


def is_killed(settings: Any) -> None:
    os.kill(os.getpid(), 9)


def refuses(settings: Any) -> None:
    raise ModelError("model.path: mine is refused")


def stumbles(settings: Any) -> None:
    raise KeyError("y_alias_1")


def lacks(settings: Any) -> None:
    import no_such_runtime  # type: ignore[import-not-found]  # noqa: F401


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        (aborts, ModelError, r"model\.path: mine\.tflite crashes its runtime \(SIGABRT\); export it again"),
        (is_killed, InfrastructureError, "was killed"),
        (refuses, ModelError, "^model.path: mine is refused$"),
        (stumbles, ModelError, r"^model\.path: mine\.tflite cannot be imported: KeyError: .y_alias_1.; .*export it again"),
        (lacks, ModuleNotFoundError, "no_such_runtime"),
    ],
)
def test_what_happens_in_an_importer_is_told_and_the_stage_lives(function, kind, message):
    importer = SimpleNamespace(ISOLATED=True, obtain=function)
    with pytest.raises(kind, match=message) as caught:
        model_source.run_plugin(importer, SimpleNamespace(path="mine.tflite"))  # type: ignore[arg-type]
    assert function is not lacks or caught.value.name == "no_such_runtime"


@pytest.mark.parametrize("error", [MissingExtra("onnx", "onnx"), DeviceError("auth", "no key"), ConfigError("data.path: missing")])
def test_errors_come_whole_from_another_process(error):
    import pickle

    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


class Broken:
    """A session that answers NaN."""

    inputs = ({"name": "x", "shape": [None, 4], "dtype": "float32"},)
    outputs = ({"name": "y", "shape": [None, 3], "dtype": "float32"},)

    def run(self, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": np.full((len(feeds["x"]), 3), np.nan, np.float32)}


def test_nan_in_the_answers_is_no_oracle(tmp_path):
    from edgewise.artifacts.samples import Samples

    samples = Samples.open(own_files.arrays(tmp_path / "data"))
    settings, feeds = imported.Settings(path="mine.onnx"), imported.make_probe(samples)
    fit = fit_ports("mine.onnx", settings, Broken(), artifact.read(tmp_path / "data"), feeds)
    with pytest.raises(ModelError, match=r"mine\.onnx returns NaN or infinite values in logits"):
        imported.record(settings, Oracle(Broken(), fit), samples, tmp_path)
    said = imported.Settings(path="mine.onnx", scores="probabilities")
    with pytest.raises(ModelError, match=r"model\.scores: 'probabilities', but mine\.onnx returns -2 to -2; set it to logits"):
        imported.find_meaning(said, np.full((16, 4), -2.0))
    assert imported.find_meaning(settings, np.full((16, 4), 0.25)) == "probabilities"
