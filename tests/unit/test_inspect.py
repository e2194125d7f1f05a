"""`edgewise inspect`: what a file is, and a yaml that works when it is pasted."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import save_file

from edgewise.artifacts import artifact
from edgewise.config import compose
from edgewise.config.compose import Options
from edgewise.data import dataset
from edgewise.errors import ConfigError, ModelError
from edgewise.inspect import model_file, sections
from edgewise.inspect.model_file import read_formats
from edgewise.sources.inspection import Inspection, Port
from tests.conftest import ROOT
from tests.unit.test_onnx_file import old_style
from tests.unit.test_torch_file import net, save

pytestmark = pytest.mark.framework

onnx = pytest.importorskip("onnx")
CONF = ROOT / "conf"


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    onnx.save(old_style(), folder / "mine.onnx")
    save_file(net().state_dict(), folder / "mine.safetensors")
    return {"onnx": folder / "mine.onnx", "weights": folder / "mine.safetensors", "pt2": save(net(), folder / "mine.pt2")}


def found(path: Path) -> Inspection:
    return model_file.inspect_file(path, CONF)[1]


def test_an_onnx_file(files):
    seen = found(files["onnx"])
    assert seen.kind.startswith("ONNX model, opset 7")
    assert seen.inputs == (Port("picture", (1, 2, 8, 8), "float32"),) and seen.outputs[0].shape == (1, 3)
    assert seen.operators["Conv"] == 1 and seen.operators["Reshape"] == 2
    assert seen.parameters == 16 * 2 * 9 + 4 * 16 + 16 * 3 + 3
    assert seen.multiply_adds == 8 * 8 * 16 * 2 * 9 + 16 * 3
    assert "opset 7 is converted to 20" in seen.notes[0]


def test_a_torch_program_and_weights_alone(files):
    seen = found(files["pt2"])
    convolution, linear = 7 * 7 * 4 * 3 * 9, 196 * 10
    assert (seen.inputs[0].shape, seen.outputs[0].shape) == ((None, 3, 16, 16), (None, 10))
    assert seen.multiply_adds == convolution + linear
    assert seen.parameters == sum(p.numel() for p in net().parameters())
    weights = found(files["weights"])
    assert weights.model is None and "weights without a model" in weights.kind and "model.callable" not in weights.kind
    assert "it needs the model" in weights.notes[-1]


def test_what_is_no_model_is_told_what_there_is(tmp_path):
    (tmp_path / "notes.txt").write_text("a text")
    with pytest.raises(ModelError, match=r"notes\.txt is not a model file .* it reads: .*\.onnx.*\.tflite"):
        model_file.find_importer(tmp_path / "notes.txt", CONF)
    with pytest.raises(ModelError, match="does not exist"):
        model_file.find_importer(tmp_path / "gone.onnx", CONF)


def paste(text: str, **data) -> compose.Config:
    """The yaml in the place of the sections of params.yaml."""
    choices = compose.read_choices(ROOT / "params.yaml")
    pasted = yaml.safe_load(text)
    pasted["data"] |= data
    return compose.compose_choices({**choices, **pasted}, Options(CONF))


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_the_yaml_is_valid_when_pasted(files, kind):
    importer, seen = model_file.inspect_file(files[kind], CONF)
    config = paste(sections.suggest_sections(seen, importer.FORMAT, read_formats(CONF), "/my/data"))
    assert config.model.settings["path"] == str(files[kind])
    assert config.variants[config.reference].format == importer.FORMAT
    assert {v.format for v in config.variants.values()} == reachable(importer.FORMAT)


def reachable(source: str) -> set[str]:
    """The formats that read a source, or another format that does."""
    sources = {name: form["sources"] for name, form in read_formats(CONF).items()}
    found = {name for name, read in sources.items() if source in read}
    while more := {name for name, read in sources.items() if found & set(read)} - found:
        found |= more
    return found


def test_the_data_of_the_yaml_have_the_shape_that_the_model_takes(files, tmp_path):
    for label in range(3):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(np.full((9, 9, 3), 20 * number + label, np.uint8)).save(tmp_path / f"pictures/{label}/{number}.png")
    importer, seen = model_file.inspect_file(files["pt2"], CONF)
    config = paste(sections.suggest_sections(seen, importer.FORMAT, read_formats(CONF), str(tmp_path / "pictures")))
    manifest = dataset.prepare(config.data, 0, tmp_path / "models/data", tmp_path / "models")
    assert [tensor.shape for tensor in manifest.inputs] == [(None, 3, 16, 16)]
    assert artifact.read(tmp_path / "models/data").preprocessing["scale"] == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (Port("x", (1, 224, 224, 3), "uint8", (1 / 128, 128)), {"range": [-1, 1], "channels_last": True, "image_size": 224}),
        (Port("x", (1, 32, 48, 3), "int8", (1.0, -128)), {"range": [0, 255], "image_size": [32, 48]}),
        (Port("x", (1, 8, 8, 1), "int8", (1 / 255, -128)), {"range": [0, 1], "channels": 1}),
        (Port("x", (None, 3, None, None), "float32"), {"range": [0, 1], "channels_last": False, "image_size": 224}),
        (Port("x", (1, 1, 28, 28), "uint8"), {"range": [0, 255], "dtype": "uint8"}),
        (Port("x", (None, 40, 98), "float32"), {"name": "arrays", "dtype": "float32"}),
        (Port("ids", (None, 48), "int64"), {"name": "text_tsv", "length": 48}),
    ],
)
def test_the_data_section_follows_the_input(port, expected):
    seen = Inspection("x", (port,), (Port("y", (1, 4), "float32"),), model={"name": "onnx_file", "path": "x.onnx"})
    text = sections.suggest_sections(seen, "onnx", read_formats(CONF), None)
    assert expected.items() <= yaml.safe_load(text)["data"].items()
    assert "gives 4 scores" in text
    paste(text)


def test_a_quantized_file_is_measured_as_what_it_is():
    seen = Inspection(
        "x", (Port("x", (1, 8, 8, 3), "int8", (1.0, -128)),), model={"name": "tflite_file", "path": "x"}, schemes=("int8-static",)
    )
    assert set(yaml.safe_load(sections.suggest_sections(seen, "tflite", read_formats(CONF), None))["variants"]) == {"tflite-int8-static"}
    assert model_file.describe_port(seen.inputs[0]) == "x [1, 8, 8, 3] int8, real value = 1 * (stored + 128)"


def test_published_files(shared_data):
    """Parameters and multiply-adds as their papers and model cards have them."""
    mobilenet = found(shared_data / "pretrained/coral/mobilenet_v2_1.0_224_quant.tflite")
    assert mobilenet.schemes == ("int8-static",) and mobilenet.inputs[0].quantization == (1 / 128, 128)
    assert mobilenet.multiply_adds == pytest.approx(300e6, rel=0.01) and mobilenet.parameters == pytest.approx(3.47e6, rel=0.02)
    resnet = found(shared_data / "pretrained/mlperf_tiny/pretrainedResnet.tflite")
    assert resnet.schemes is None and resnet.multiply_adds == pytest.approx(12.5e6, rel=0.01)


def test_the_command_prints_it_all(files):
    command = [sys.executable, "-m", "edgewise.cli.main", "inspect", str(files["onnx"]), "--data", "/my/pictures"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "multiply-adds  18,480" in done.stdout and yaml.safe_load(done.stdout.split("\n\n", 1)[1])["data"]["path"] == "/my/pictures"


@pytest.mark.slow
def test_keras_counts(tmp_path):
    pytest.importorskip("tensorflow")
    from edgewise.sources import keras_file

    layers = keras_file.import_keras().layers
    library = keras_file.import_keras()
    inputs = library.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, padding="same")(layers.Conv2D(4, 3, padding="same")(inputs))
    library.Model(inputs, layers.Dense(2)(layers.Flatten()(x))).save(tmp_path / "mine.keras")
    seen = keras_file.inspect(tmp_path / "mine.keras")
    assert seen.multiply_adds == 64 * 4 * 27 + 64 * 4 * 9 + 256 * 2
    assert seen.operators == {"Conv2D": 1, "DepthwiseConv2D": 1, "Flatten": 1, "Dense": 1}


def test_the_whole_file_keeps_the_other_sections_and_their_comments(files):
    importer, seen = model_file.inspect_file(files["onnx"], CONF)
    own = (ROOT / "params.yaml").read_text()
    made = sections.replace_sections(own, sections.suggest_sections(seen, importer.FORMAT, read_formats(CONF), "/my", ("int8-static",)))
    before, after = yaml.safe_load(own), yaml.safe_load(made)
    assert set(after["variants"]) == {"onnx-int8-static", "openvino-int8-static"}
    assert [after[key] for key in before if key not in ("data", "model", "reference", "variants")] == [
        before[key] for key in before if key not in ("data", "model", "reference", "variants")
    ]
    assert made.startswith(own.splitlines()[0])
    with pytest.raises(ConfigError, match="none of int9 can be made from this file"):
        sections.suggest_sections(seen, importer.FORMAT, read_formats(CONF), "/my", ("int9",))
