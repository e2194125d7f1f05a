"""The detector and a segmenter as sources: what train-export writes, and that every format takes them with all of their outputs."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.artifacts.samples import Samples
from edgewise.config.compose import write
from edgewise.config.schema import Bench, Budget, Config, Plugin, Train, Tuning, part
from edgewise.errors import ConfigError, ModelError
from edgewise.proof import checks, isolation
from edgewise.sources import tiny_detector
from edgewise.sources.model_source import summarize
from stages import train_export
from tests.support import shapes
from tests.support.source_kinds import convert, form, make_of

pytestmark = pytest.mark.framework

SIDE = 32
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16, 16], "depths": [1, 1, 1], "layer_type": "basic"}  # nothing uses the third stage
MOBILENET = {"model": "MobileNetV2Model", "config": "MobileNetV2Config", "arguments": {"depth_multiplier": 0.25}}
SEGFORMER = {
    **{"model": "SegformerForSemanticSegmentation", "config": "SegformerConfig"},
    "arguments": {
        **{"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1], "decoder_hidden_size": 16},
    },
}
SOURCES = {
    "resnet": ("boxes", "tiny_detector", {"arguments": RESNET, "width": 16}),
    "mobilenet": ("boxes", "tiny_detector", {**MOBILENET, "width": 16}),
    "segformer": ("masks", "transformers_model", SEGFORMER),
}
FORMATS = ("torch", "onnx", "openvino", "tflite")


def detector(**changes) -> tiny_detector.Settings:
    return tiny_detector.Settings(**{"arguments": RESNET, "width": 16, **changes})


def data(side: int = SIDE, kind: str = "boxes") -> Manifest:
    return Manifest("data", inputs=(Port("image", (None, 1, side, side), "float32", "NCHW"),), labels=("a", "b"), details={"targets": kind})


@pytest.fixture(scope="module", params=["resnet", "mobilenet", "segformer"])
def project(request, tmp_path_factory) -> Path:
    """models/data, models/source and metrics/train.json of one epoch."""
    root = tmp_path_factory.mktemp(request.param)
    kind, module, settings = SOURCES[request.param]
    shapes.make_data(root, kind, SIDE)
    model, local = Plugin(request.param, f"edgewise.sources.{module}", settings), Plugin("local", "edgewise.devices.local")
    train = Train("x", epochs=1, batch_size=16, monitor="loss", threads=1, flip_horizontal=True)
    task = Plugin("t", f"edgewise.tasks.{'detection' if kind == 'boxes' else 'segmentation'}")
    config = Config(0, Plugin("d", "edgewise.data.digits"), model, train, local, Bench("quick"), Budget("none"), "onnx-fp32", {}, {}, task)
    write(config, root / "models/config.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        train_export.main()
    return root


def test_the_source_says_what_its_outputs_are(project):
    manifest, metrics = artifact.read(project / "models/source"), json.loads((project / "metrics/train.json").read_text())
    ports = {port.name: (port.shape, port.dtype, port.meaning) for port in manifest.outputs}
    if "segformer" in project.name:
        assert ports == {"map": ((None, 3, 8, 8), "float32", "map")}
        assert 0 <= metrics["mean_iou_validation"] <= 1 and "decoding" not in manifest.details
        return
    assert ports == {"scores": ((None, 2, 80), "float32", "scores"), "boxes": ((None, 4, 80), "float32", "boxes")}
    assert 0 <= metrics["ap50_validation"] <= 1 and metrics["accuracy_validation"] is None
    assert manifest.details["decoding"] == {**tiny_detector.DECODING, "strides": [4, 8], "size": [SIDE, SIDE]}


def test_the_summary_names_the_score_of_the_targets():
    history = {"accuracy_validation": None, "loss_validation": 1.5, "epochs": 3}
    assert summarize({**history, "ap50_validation": 0.5}) == "AP50 on validation 0.5000 after 3 epochs"
    assert summarize({**history, "mean_iou_validation": 0.25}) == "mean IoU on validation 0.2500 after 3 epochs"
    assert summarize(history) == "loss on validation 1.5"


@pytest.mark.parametrize("batch", [1, 3])
def test_the_program_takes_any_batch(project, batch):
    program = torch.export.load(project / "models/source/program.pt2").module()
    inputs, expected = checks.read_probe(project / "models/source")
    results = program(torch.from_numpy(inputs["image"][:batch]))
    for name, result in zip(expected, results if isinstance(results, tuple) else (results,), strict=True):
        np.testing.assert_allclose(result.detach(), expected[name][:batch], atol=1e-4)


@pytest.mark.parametrize("project", ["resnet", pytest.param("segformer", marks=pytest.mark.slow)], indirect=True)
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_all_outputs_also_in_8_bits(project, name, tmp_path):
    """The int8 files of weights that have seen one epoch are only asked for their sizes: what they are worth, benchmarks say."""
    pytest.importorskip({"tflite": "ai_edge_litert"}.get(name, name))
    source, module = project / "models/source", form(name)["module"]
    inputs, expected = checks.read_probe(source)
    source = convert("onnx", source, tmp_path / "onnx") if name == "openvino" else source
    parent = convert(name, source, tmp_path / "float")
    found = isolation.compute_outputs(module, parent, {"threads": 1}, inputs)
    assert checks.check_outputs(expected, found, 60.0) > 60
    if "int8-static" in make_of(name).SCHEMES:
        (tmp_path / "int8").mkdir()
        settings = {"calibration": None, "per_channel": None, **(form(name)["schemes"]["int8-static"] or {})}
        feeds = [{"image": picture[None]} for picture in Samples.open(project / "models/data").feeds(np.arange(64, 96))["image"]]
        make_of(name).quantize(parent, source, tmp_path / "int8", "int8-static", settings, feeds, [])
        made = isolation.compute_outputs(module, tmp_path / "int8", {"threads": 1}, inputs)
        assert {key: array.shape for key, array in made.items()} == {key: array.shape for key, array in expected.items()}
        assert part(module, "facts").facts(tmp_path / "int8")["weights_bytes_by_dtype"].get("int8", 0) > 0


def test_fake_quantization_trains_all_outputs(project, tmp_path, monkeypatch):
    from edgewise.compress import qat

    fit, recipes = qat.training.fit, []
    monkeypatch.setattr(qat.training, "fit", lambda *given: recipes.append(given[2]) or fit(*given))

    kind = "ap50_validation" if "segformer" not in project.name else "mean_iou_validation"
    train = Train("x", batch_size=16, monitor="loss", threads=1, ema=0.9)
    source = project / "models/source"
    history = qat.fine_tune(source, project / "models/data", Tuning(1, 1e-4, True), train, 0, tmp_path)
    assert 0 <= history[kind] <= 1
    assert [recipe.ema for recipe in recipes] == [0]  # ranges and zero points have no average that fits them
    before, after = (checks.read_probe(folder)[1] for folder in (source, tmp_path))
    assert list(before) == list(after) == [port.name for port in artifact.read(tmp_path).outputs]
    assert all(before[name].shape == after[name].shape and (before[name] != after[name]).any() for name in before)


@pytest.mark.parametrize(
    ("size", "strides"),
    [((128, 128), (4, 8, 16, 32)), ((64, 96), (4, 8, 16)), ((416, 416), (8, 16, 32)), ((16, 16), (4,)), ((480, 640), (8, 16, 32))],
)
def test_strides_follow_the_size_of_the_input(size, strides):
    assert tiny_detector.choose_strides(*size) == strides


def test_what_a_detector_cannot_be_made_of():
    with pytest.raises(ConfigError, match=r"data\.targets: 'classes', but model\.name=tiny_detector learns boxes"):
        tiny_detector.create(detector(), data(kind="classes"))
    with pytest.raises(ModelError, match=r"model\.strides: 32: the backbone has no such map for inputs of 32x32, only 8x8, 4x4, 2x2"):
        tiny_detector.create(detector(strides=(8, 32)), data())
    with pytest.raises(
        ModelError, match=r"model\.strides: 4: .* for inputs of 30x30, only 8x8, 4x4, 2x2; .* data\.image_size that 8 divides"
    ):
        tiny_detector.create(detector(strides=(4, 8)), data(30))
