"""`edgewise inspect`: what a file is, and a yaml that works when it is pasted."""

import dataclasses
import shutil
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
from edgewise.errors import ConfigError, MissingExtra, ModelError
from edgewise.inspect import model_file, sections, suggestion
from edgewise.inspect.meanings import guess_ports
from edgewise.inspect.model_file import read_formats
from edgewise.inspect.params_text import Section, replace_sections, write_sections
from edgewise.inspect.sections import USUAL, Known
from edgewise.inspect.user_data import UserData
from edgewise.sources import model_source, onnx_file
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "a pointer of Git LFS, .* `git lfs pull`"),
        (b"<!DOCTYPE html>\n<html>Not Found</html>", "a web page, not a model; download"),
        (b"<html><body>", "a web page"),
    ],
    ids=["Git LFS", "a page", "an old page"],
)
@pytest.mark.parametrize("suffix", [".onnx", ".h5", ".pt2"])
def test_what_a_download_leaves_in_the_place_of_a_model_is_named(content, words, suffix, tmp_path):
    path = tmp_path / f"mine{suffix}"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words):
        model_file.find_importer(path, CONF)
    with pytest.raises(ModelError, match=words):
        model_source.run_plugin(onnx_file, onnx_file.Settings(path=str(path)))


@pytest.mark.parametrize("suffix", [".onnx", ".tflite", ".pt2", ".safetensors", ".pt", ".bin"])
def test_a_damaged_file_is_one_line_whatever_its_name(suffix, files, tmp_path):
    """Empty, random, cut short, or with bytes exchanged: an error of ours, or a description; nothing else."""
    random, path = np.random.default_rng(0), tmp_path / f"damaged{suffix}"
    whole = [file.read_bytes() for file in files.values()] + [(ROOT / "tests/data/root_offset_8.tflite").read_bytes()]
    damaged = [b"", *(random.bytes(length) for length in (1, 8, 500))]
    for content in whole:
        exchanged = np.frombuffer(content, np.uint8).copy()
        exchanged[random.integers(0, len(content), 20)] = random.integers(0, 256, 20)
        damaged += [content[: len(content) // 3], content[:-1], exchanged.tobytes()]
    for content in damaged:
        path.write_bytes(content)
        try:
            importer = model_file.find_importer(path, CONF)
            model_file.describe_file(path, model_file.inspect_alone(importer.__name__, path))
        except ModelError as error:
            assert "\n" not in str(error)


def paste(text: str) -> compose.Config:
    """The yaml in the place of the sections of params.yaml."""
    return compose.compose_choices({**compose.read_choices(ROOT / "params.yaml"), **yaml.safe_load(text)}, Options(CONF))


def suggest(path: Path, data: Path | None = None, **how) -> str:
    """The yaml for a file, which is not run."""
    importer, seen = model_file.inspect_file(path, CONF)
    asked = suggestion.Asked(path, importer, CONF, read_formats(CONF), str(data) if data else None, **{"run": False, **how})
    return write_sections(suggestion.suggest(seen, asked)[0])


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_the_yaml_is_valid_when_pasted(files, kind):
    importer = model_file.find_importer(files[kind], CONF)
    config = paste(suggest(files[kind]))
    assert config.model.settings["path"] == str(files[kind])
    assert config.variants[config.reference].format == importer.FORMAT
    assert {v.format for v in config.variants.values()} == reachable(importer.FORMAT)


def reachable(source: str) -> set[str]:
    """The installed formats that read a source, or another format that does."""
    formats = read_formats(CONF)
    sources = {name: form["sources"] for name, form in formats.possible.items() if name not in formats.missing}
    found = {name for name, read in sources.items() if source in read}
    while more := {name for name, read in sources.items() if found & set(read)} - found:
        found |= more
    return found


def test_the_data_of_the_yaml_have_the_shape_that_the_model_takes(files, tmp_path):
    for label in range(3):
        (tmp_path / "pictures" / str(label)).mkdir(parents=True)
        for number in range(12):
            Image.fromarray(np.full((9, 9, 3), 20 * number + label, np.uint8)).save(tmp_path / f"pictures/{label}/{number}.png")
    config = paste(suggest(files["pt2"], tmp_path / "pictures"))
    assert config.task.name == "none"  # three classes, of a model for ten
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
        (Port("x", (1, 9, 9, 3), "float32", mean=(127.5,), std=(127.5,)), {"range": [-1, 1]}),
        (Port("x", (1, 9, 9, 3), "float32", mean=(1.0, 2.0, 3.0), std=(4.0,)), {"mean": [1.0, 2.0, 3.0], "std": [4.0]}),
    ],
)
def test_the_section_for_pictures_follows_the_input(port, expected):
    guesses = guess_ports(Inspection("x", (port,), (Port("y", (1, 4), "float32"),)))
    data, _ = sections.suggest_data(guesses, Known(UserData("image_folder", {"path": "p"})))
    assert expected.items() <= data.values.items()
    paste(write_sections({"data": data, "task": Section({"name": "none"})}))


def test_a_quantized_file_is_measured_as_what_it_is():
    seen = Inspection("x", (Port("x", (1, 8, 8, 3), "int8", (1.0, -128)),), schemes=("int8-static",))
    assert set(sections.suggest_variants(seen, "tflite", read_formats(CONF), USUAL).values) == {"tflite-int8-static"}
    float_file = dataclasses.replace(seen, schemes=None)
    found = sections.suggest_variants(float_file, "tflite", read_formats(CONF), ("int8-static",))
    assert next(iter(found.values)) == "tflite-fp32" and "as the reference" in found.tail[-1], "8 bits are not judged against 8 bits"
    assert model_file.describe_port(seen.inputs[0]) == "x [1, 8, 8, 3] int8, real value = 1 * (stored + 128)"


def test_published_files(shared_data):
    """Parameters and multiply-adds as their papers and model cards have them."""
    mobilenet = found(shared_data / "pretrained/coral/mobilenet_v2_1.0_224_quant.tflite")
    assert mobilenet.schemes == ("int8-static",) and mobilenet.inputs[0].quantization == (1 / 128, 128)
    assert mobilenet.multiply_adds == pytest.approx(300e6, rel=0.01) and mobilenet.parameters == pytest.approx(3.47e6, rel=0.02)
    resnet = found(shared_data / "pretrained/mlperf_tiny/pretrainedResnet.tflite")
    assert resnet.schemes is None and resnet.multiply_adds == pytest.approx(12.5e6, rel=0.01)


def command(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "edgewise.cli.main", "inspect", *arguments], cwd=cwd, capture_output=True, text=True)


def test_the_command_prints_what_it_takes_and_gives_and_the_yaml(files):
    done = command(str(files["onnx"]))
    assert done.returncode == 0, done.stderr
    described, text = done.stdout.split("\n\n", 1)
    assert "multiply-adds  18,480" in described and "picture [1, 2, 8, 8] float32  (probably features)" in described
    assert "tried          image [any, 3] float32" in described
    assert yaml.safe_load(text)["data"]["inputs"]["picture"]["shape"] == [2, 8, 8]


def test_the_shell_may_have_emptied_params_yaml_before(files, tmp_path):
    """As `edgewise inspect FILE --full > params.yaml` does: without a commit, its other sections are those of a new project."""
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "params.yaml").write_text("")
    config = paste(command(str(files["onnx"]), "--full", cwd=tmp_path).stdout)
    assert config.bench.name == "quick"


@pytest.fixture
def emptied(tmp_path):
    """A project whose params.yaml was changed after its last commit. Runs a command as a shell does whose stdout is params.yaml."""
    shutil.copytree(CONF, tmp_path / "conf")
    params, git = tmp_path / "params.yaml", ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    params.write_text((ROOT / "params.yaml").read_text().replace("seed: 0", "seed: 7"))
    for arguments in (["init", "-q"], ["add", "params.yaml"], ["commit", "-q", "-m", "Start"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with params.open("w") as stdout:
            command = [sys.executable, "-m", "edgewise.cli.main", "inspect", *arguments]
            return subprocess.run(command, cwd=tmp_path, stdout=stdout, stderr=subprocess.PIPE, text=True)

    return run, params


def test_params_yaml_may_be_the_output_of_its_own_command(files, emptied):
    run, params = emptied
    done = run(str(files["onnx"]), "--full")
    assert done.returncode == 0 and yaml.safe_load(params.read_text())["seed"] == 7 and "model.onnx" not in done.stderr
    assert "`--output params.yaml` keeps what is not committed" in done.stderr and "those of the last commit" in done.stderr


def test_an_error_leaves_no_empty_params_yaml(emptied):
    run, params = emptied
    done = run("gone.onnx", "--full")
    assert done.returncode == 2 and "gone.onnx does not exist" in done.stderr
    assert yaml.safe_load(params.read_text())["seed"] == 7 and yaml.safe_load(params.read_text())["model"]["name"] == "resnet18"


def test_what_the_user_has_to_confirm_is_listed():
    text = "data:\n  range: [0, 1] # a guess: add mean and std\n# the labels are not read\ntask: {name: none}\n"
    assert list(model_file.list_comments(text)) == [("range", "a guess: add mean and std"), ("", "the labels are not read")]


def test_a_number_sign_in_a_quoted_path_is_no_comment():
    text = "data:\n  path: '/data/line # 2'\n  more: {path: \"a # b\", list: [x, y]} # a guess\nmodel:\n  plain: it's # another\n"
    assert list(model_file.list_comments(text)) == [("more", "a guess"), ("plain", "another")]


def test_output_keeps_what_is_not_committed(files, tmp_path):
    shutil.copytree(CONF, tmp_path / "conf")
    params = tmp_path / "params.yaml"
    params.write_text((ROOT / "params.yaml").read_text().replace("seed: 0", "seed: 9"))
    done = command(str(files["onnx"]), "--output", "params.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    config = paste(params.read_text())
    assert config.seed == 9 and config.model.name == "onnx_file" and done.stdout.endswith("written: params.yaml; next: dvc repro\n")
    assert "\n  note           outputs are compared with the reference's; no labels are needed\n" in done.stdout, (
        "comments are said here too"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "params.yaml"]


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


@pytest.mark.parametrize("name", ["1e3", "1_000", "12", "0o17", "0x1F", "1.", "true", "null", "~", "-", "", "=", "a: b, {c}"])
def test_a_name_that_looks_like_something_else_stays_a_name(name, tmp_path):
    from omegaconf import OmegaConf

    path = tmp_path / "params.yaml"
    path.write_text(write_sections({"model": Section({"path": "x", "state": {name: name}}, {"path": "a remark"})}))
    assert OmegaConf.to_container(OmegaConf.load(path))["model"]["state"] == {name: name}


def test_the_whole_file_keeps_the_other_sections_their_order_and_comments(files):
    own = (ROOT / "params.yaml").read_text()
    made = replace_sections(own, suggest(files["onnx"], schemes=("int8-static",)))
    before, after = yaml.safe_load(own), yaml.safe_load(made)
    assert next(iter(after["variants"])) == after["reference"] == "onnx-fp32" and "onnx-int8-static" in after["variants"]
    assert list(after) == list(before) and made.startswith(own.splitlines()[0])
    changed = ("data", "task", "model", "reference", "variants")
    assert [after[key] for key in before if key not in changed] == [before[key] for key in before if key not in changed]
    with pytest.raises(ConfigError, match="none of int9 can be made from this file"):
        suggest(files["onnx"], schemes=("int9",))


def test_only_what_is_installed_is_suggested(files):
    importer, seen = model_file.inspect_file(files["onnx"], CONF)
    without = dataclasses.replace(read_formats(CONF), missing={"openvino": "openvino"})
    section = sections.suggest_variants(seen, importer.FORMAT, without, USUAL)
    offered = {variant["format"] for variant in section.values.values()}
    assert "onnx" in offered and "openvino" not in offered
    assert section.tail == ["openvino is not installed here: pip install 'edgewise[openvino]'"]
    nothing = dataclasses.replace(without, missing={name: name for name in without.possible})
    with pytest.raises(MissingExtra, match=r"edgewise\[onnx\]"):
        sections.suggest_variants(seen, importer.FORMAT, nothing, USUAL)


def test_a_format_that_the_extra_all_leaves_out_is_named_only_where_it_is_installed(files, monkeypatch):
    requirements = ["edgewise[openvino,torch]; extra == 'all'", "tract>=0.23; extra == 'tract'", "numpy>=1.26"]
    monkeypatch.setattr(model_file.metadata, "requires", lambda package: requirements)
    monkeypatch.setattr(
        model_file, "missing_extra", lambda module: {"tract": "tract", "openvino": "openvino"}.get(module.rpartition(".")[2])
    )
    importer, seen = model_file.inspect_file(files["onnx"], CONF)
    formats = read_formats(CONF)
    assert formats.rare == {"tract"}
    section = sections.suggest_variants(seen, importer.FORMAT, formats, USUAL)
    assert section.tail == ["openvino is not installed here: pip install 'edgewise[openvino]'"]
