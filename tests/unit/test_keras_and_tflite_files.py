"""The user's own Keras model and TFLite files: importers, TFLiteConverter's strategies, files that are quantized already."""

import dataclasses
import json
import subprocess

import numpy as np
import pytest

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest, Port
from edgewise.config.schema import Train
from edgewise.errors import ModelError, VariantFailed
from edgewise.formats.tflite import facts, keras_converter, make
from edgewise.proof import checks, isolation
from edgewise.sources import keras_file, tflite_file
from edgewise.sources.oracle import fit_ports
from edgewise.stats.agreement import sqnr_db as agreement_db
from tests.conftest import ROOT
from tests.support import own_files

pytestmark = [
    pytest.mark.framework,
    pytest.mark.slow,  # TensorFlow
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),  # Keras' variables
]

LABELS = ("dark", "bright", "striped")
SIZE = 12
MODULE = "edgewise.formats.tflite"
STATIC = {"calibration": {"method": "minmax"}, "per_channel": True}
SPEC = {"kind": "image", "size": [SIZE, SIZE], "channels": 3, "resize": "stretch", "scale": 1.0, "mean": [0.0] * 3, "std": [1.0] * 3}


def write_data(folder, pictures, targets, labels, splits, spec):
    """models/data of pictures, uint8 [n, h, w, c], as models with channels last take them."""
    spec = {**spec, "layout": "NHWC", "dtype": "float32"}
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/image.npy", pictures)
    np.save(folder / "targets.npy", targets)
    (folder / "splits.json").write_text(json.dumps(splits))
    image = Port("image", (None, *pictures.shape[1:]), "float32", "NHWC", "image")
    artifact.write(folder, Manifest(kind="data", inputs=(image,), preprocessing=spec, labels=labels))
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    random = np.random.default_rng(0)
    colours, grain = random.integers(0, 256, (24, 1, 1, 3)), random.integers(-20, 20, (24, SIZE, SIZE, 3))
    pictures = np.clip(colours + grain, 0, 255).astype(np.uint8)
    splits = {"train": [], "validation": [], "calibration": list(range(24)), "test": []}
    return write_data(tmp_path_factory.mktemp("own") / "data", pictures, random.integers(0, 3, 24), LABELS, splits, SPEC)


@pytest.fixture(scope="module")
def model_file(data):
    """Convolution with batch norm, a depthwise one, a transposed one and a dense layer, on raw 0..255."""
    pytest.importorskip("tensorflow", reason="TensorFlow is an extra: pip install -e '.[keras]'")
    library = keras_file.import_keras()
    library.utils.set_random_seed(0)
    layers = library.layers
    inputs = library.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization(gamma_initializer="ones")(layers.Conv2D(16, 3, padding="same", name="stem")(inputs))
    x = layers.DepthwiseConv2D(3, depth_multiplier=1, name="depthwise")(layers.ReLU()(x))
    x = layers.Conv2DTranspose(8, 3, strides=2, name="wide")(x)
    outputs = layers.Dense(3, activation="sigmoid", name="head")(layers.GlobalAveragePooling2D()(x) / 100)
    path = data.parent / "own.keras"
    library.Model(inputs, outputs).save(path)
    return path


def obtain(importer, path, data, folder, **settings):
    """models/source as train-export writes it."""
    folder.mkdir()
    fields = dict(importer.obtain(importer.Settings(path=str(path), **settings), data, Train(name="default"), 0, folder))
    del fields["weights"], fields["training"]
    sides = {side: tuple(Port(**{**entry, "shape": tuple(entry["shape"])}) for entry in fields.pop(side)) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", **sides, **fields))
    return folder


@pytest.fixture(scope="module")
def source(model_file, data):
    return obtain(keras_file, model_file, data, data.parent / "source")


@pytest.fixture(scope="module")
def float_model(source):
    folder = source.parent / "float"
    folder.mkdir()
    return folder, make.convert(source, folder, {})


def quantize(float_model, source, folder, scheme, settings=STATIC, keep=()):
    folder.mkdir()
    inputs, _ = checks.read_probe(source)
    make.quantize(float_model[0], source, folder, scheme, settings, [{"image": array[None]} for array in inputs["image"]], keep)
    return folder


def sqnr_db(folder, source):
    inputs, expected = checks.read_probe(source)
    return checks.check_outputs(expected, isolation.compute_outputs(MODULE, folder, {"threads": 1}, inputs), -50.0)


def test_keras_model_converts_with_its_layers_and_scores(float_model, source):
    folder, made = float_model
    assert sqnr_db(folder, source) > 60
    operators = {node["name"]: node["operator"] for node in facts.facts(folder)["nodes"]}
    assert made["layers"] == {name: [name] for name in ("stem", "depthwise", "wide", "head")}
    assert operators == {"stem": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D", "wide": "TRANSPOSE_CONV", "head": "FULLY_CONNECTED"}
    assert artifact.read(source).outputs[0].meaning == "probabilities"


def test_keras_model_by_the_converters_full_integer_strategy(float_model, source, tmp_path):
    folder = quantize(float_model, source, tmp_path / "v", "int8-static")
    found = facts.facts(folder)
    assert checks.check_scheme(found, make.SCHEMES["int8-static"], [], "v") == 1
    assert {node["name"] for node in found["nodes"]} == {"stem", "depthwise", "wide", "head"}
    assert sqnr_db(folder, source) > 6
    assert b"CONVERSION_METADATA" in (folder / facts.FILE).read_bytes(), "TFLiteConverter signs its files"


def test_keras_model_refuses_what_the_converter_cannot(float_model, source, tmp_path):
    with pytest.raises(ValueError, match=r"^keep_float: TFLiteConverter"):
        quantize(float_model, source, tmp_path / "kept", "int8-static", keep=["stem"])
    with pytest.raises(ValueError, match="'moving_average'; TFLiteConverter has minmax only"):
        quantize(float_model, source, tmp_path / "method", "int8-static", {**STATIC, "calibration": {"method": "moving_average"}})


def test_small_weights_may_stay_float_in_the_dynamic_strategy_but_not_all():
    def found(*sizes_and_dtypes):
        same = {"operator": "CONV_2D"}
        activations = {"int8": "dynamic", "float32": "float32"}
        entries = [(f"n{i}", size, dtype) for i, (size, dtype) in enumerate(sizes_and_dtypes)]
        nodes = [
            {**same, "name": n, "elements": size, "weights_dtype": dtype, "activations_dtype": activations[dtype]}
            for n, size, dtype in entries
        ]
        return {"nodes": nodes, "weights_elements": sum(size for _, size, _ in entries)}

    scheme = make.SCHEMES["int8-dynamic"]
    assert checks.check_scheme(found((3000, "int8"), (1000, "float32")), scheme, [], "v") == 0.75
    for nothing in (found((3000, "int8"), (1024, "float32")), found((1000, "float32"))):
        with pytest.raises(VariantFailed, match=r"did less than its name says|nothing was done"):
            checks.check_scheme(nothing, scheme, [], "v")


def test_kernels_are_laid_out_as_torch_has_them(model_file):
    import torch

    picture = np.random.default_rng(1).normal(size=(1, 7, 7, 3)).astype(np.float32)
    model = keras_file.load(model_file)
    held = {name: (kind, torch.from_numpy(np.ascontiguousarray(kernel))) for name, kind, kernel in keras_file.iterate_kernels(model)}
    assert [kind for kind, _ in held.values()] == ["Conv2d", "Conv2d", "ConvTranspose2d", "Linear"]
    nchw = torch.from_numpy(picture).permute(0, 3, 1, 2)
    stem = torch.nn.functional.conv2d(nchw, held["stem"][1], padding=1)
    ours = torch.nn.functional.conv_transpose2d(
        torch.nn.functional.conv2d(stem, held["depthwise"][1], groups=16), held["wide"][1], stride=2
    )
    theirs = model.get_layer("wide")(model.get_layer("depthwise")(model.get_layer("stem")(picture)))
    np.testing.assert_allclose(ours.permute(0, 2, 3, 1).numpy(), theirs.numpy(), atol=1e-4)


@pytest.mark.parametrize(
    ("code", "stderr", "message"),
    [(-6, "Check failed: x\n", r"aborts \(SIGABRT\) to make fp16 .*Check failed: x"), (1, "", "refuses to make fp16 .*it says nothing")],
)
def test_a_converter_that_aborts_is_a_reason(code, stderr, message):
    with pytest.raises(ValueError, match=message):
        keras_converter._raise_on_failure(subprocess.CompletedProcess([], code, "", stderr), "fp16")


def test_a_converter_that_was_killed_is_no_reason():
    with pytest.raises(ChildProcessError, match="free some memory"):
        keras_converter._raise_on_failure(subprocess.CompletedProcess([], -9, "", ""), "fp16")


@pytest.mark.parametrize("importer", [keras_file, tflite_file])
def test_files_that_are_no_model_are_named(importer, data, tmp_path):
    suffix = ".keras" if importer is keras_file else ".tflite"
    pytest.importorskip("tensorflow" if importer is keras_file else "ai_edge_litert")
    broken = tmp_path / f"broken{suffix}"
    broken.write_bytes(b"\x1c\0\0\0TFL3" + bytes(40))
    for path, message in (
        (tmp_path / f"absent{suffix}", "not a file"),
        (tmp_path, "not a file"),
        (broken, "is not a Keras file|refuses|is truncated"),
    ):
        with pytest.raises(ModelError, match=message):
            importer.load(path)
    (tmp_path / f"text{suffix}").write_text("a text, not a model")
    with pytest.raises(ModelError, match=r"not a (Keras|TFLite) file"):
        importer.load(tmp_path / f"text{suffix}")


def test_a_model_for_other_data_is_named(float_model, model_file, tmp_path):
    small = Manifest(kind="data", inputs=(Port("image", (None, 3, 8, 8), "float32"),), labels=LABELS)
    wrong = dataclasses.replace(small, preprocessing={**SPEC, "size": [8, 8], "layout": "NCHW"})
    feeds = {"image": np.zeros((4, 3, 8, 8), np.float32)}
    for importer, session in (
        (keras_file, keras_file.Network(keras_file.load(model_file), model_file)),
        (tflite_file, tflite_file.FileSession(float_model[0] / facts.FILE)),
    ):
        settings = importer.Settings(path="mine")
        with pytest.raises(ModelError, match=r"expects \[12, 12, 3\] for .*, the data has \[3, 8, 8\] .*; change data"):
            fit_ports("mine", settings, session, small, feeds)
        with pytest.raises(ModelError, match=r"; set data\.channels_last=true data\.image_size=12$"):
            fit_ports("mine", settings, session, wrong, feeds)


def test_every_input_and_output_of_a_keras_model_under_its_name(tmp_path):
    """A dict of outputs, two inputs in a dict: the converters order them as they like."""
    library = keras_file.import_keras()
    library.utils.set_random_seed(0)
    layers = library.layers
    picture, extra = library.Input((8, 8, 3), name="picture"), library.Input((4,), name="extra")
    plane = layers.Conv2D(4, 3, name="plane")(picture)
    joined = layers.Concatenate()([layers.Flatten()(plane), extra])
    ends = {"zeta": layers.Dense(1, name="one")(joined), "alpha": layers.Dense(5, name="five")(joined), "mid": plane}
    library.Model({"picture": picture, "extra": extra}, ends).save(tmp_path / "mine.keras")
    rng = np.random.default_rng(0)
    arrays = {"picture": rng.normal(size=(16, 8, 8, 3)).astype(np.float32), "extra": rng.normal(size=(16, 4)).astype(np.float32)}
    assert [port.name for port in keras_file.inspect(tmp_path / "mine.keras").outputs] == ["alpha", "mid", "zeta"]
    source = obtain(keras_file, tmp_path / "mine.keras", own_files.plain_data(tmp_path / "data", arrays), tmp_path / "source")
    (tmp_path / "float").mkdir()
    make.convert(source, tmp_path / "float", {})
    (tmp_path / "static").mkdir()
    feeds = [{name: array[i : i + 1] for name, array in arrays.items()} for i in range(16)]
    make.quantize(tmp_path / "float", source, tmp_path / "static", "int8-static", STATIC, feeds, [])
    inputs, expected = checks.read_probe(source)
    assert {name: array.shape[1:] for name, array in expected.items()} == {"alpha": (5,), "mid": (6, 6, 4), "zeta": (1,)}
    for folder, least in ((tmp_path / "float", 100), (tmp_path / "static", 20)):
        assert checks.check_outputs(expected, isolation.compute_outputs(MODULE, folder, {"threads": 1}, inputs), least) > least
    (tmp_path / "openvino").mkdir()
    readers = pytest.importorskip("edgewise.formats.openvino.make")
    readers.convert(source, tmp_path / "openvino", {})
    assert (
        checks.check_outputs(expected, isolation.compute_outputs("edgewise.formats.openvino", tmp_path / "openvino", {}, inputs), 100) > 100
    )


def test_scores_that_share_a_scale_with_boxes_in_pixels_are_named_as_the_group_that_is_lost(tmp_path):
    """One output [boxes in pixels, scores], concatenated: in 8 bits the scores have one or two values, and one SQNR hides it. With a
    float tail, which TFLiteConverter cannot leave, they are scores again (of a net that was never trained: almost all of them 0 or 1)."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(0, 255, (32, 32, 32, 3)).astype(np.float32) * rng.uniform(0, 1, (32, 1, 1, 1)).astype(np.float32)
    data = own_files.plain_data(tmp_path / "data", {"x": pictures})
    source = obtain(keras_file, ROOT / "tests/data/mixed_scales.keras", data, tmp_path / "source")
    (tmp_path / "float").mkdir()
    make.convert(source, tmp_path / "float", {})
    inputs, expected = checks.read_probe(source)
    for scheme, tail, least in (("fp32", None, 100), ("int8-static", "float", -1), ("int8-static", "int8", None)):
        folder = tmp_path / f"{scheme}-{tail}"
        folder.mkdir()
        feeds = [{"x": picture[None]} for picture in pictures]
        make.quantize(tmp_path / "float", source, folder, scheme, {**STATIC, "tail": tail}, feeds, [])
        given = isolation.compute_outputs(MODULE, folder, {"threads": 1}, inputs)
        if least:
            assert checks.check_outputs(expected, given, least) > least
            assert 0.9 < given["concatenate"][:, 4:].max() <= 1
        else:
            assert not 0.9 < given["concatenate"][:, 4:].max() <= 1
            with pytest.raises(VariantFailed, match=r"\[4:7\]"):
                checks.check_outputs(expected, given, 20)


def test_a_keras_model_that_keeps_state_is_refused_with_what_to_do(tmp_path):
    library = keras_file.import_keras()
    inputs = library.Input(batch_shape=(1, 5, 3))
    library.Model(inputs, library.layers.LSTM(4, stateful=True, name="memory")(inputs)).save(tmp_path / "mine.keras")
    with pytest.raises(ModelError, match=r"stateful layers .*\(memory\); save it with stateful=False, or .*model\.state"):
        keras_file.inspect(tmp_path / "mine.keras")


def test_a_keras_model_in_mixed_precision_becomes_one_in_float32(tmp_path):
    """As they are trained on GPUs; the oracle stays the file itself, which rounds to float16."""
    library = keras_file.import_keras()
    library.utils.set_random_seed(0)
    layers, half = library.layers, library.DTypePolicy("mixed_float16")
    inputs = library.Input((6,))
    inner = library.Sequential([library.Input((8,)), layers.Dense(8, activation="relu", dtype=half, name="inner")])
    outputs = layers.Dense(3, dtype="float32", name="last")(inner(layers.Dense(8, dtype=half, name="first")(inputs)))
    library.Model(inputs, outputs).save(tmp_path / "mine.h5")
    x = np.random.default_rng(0).normal(size=(16, 6)).astype(np.float32)
    source = obtain(keras_file, tmp_path / "mine.h5", own_files.plain_data(tmp_path / "data", {"x": x}), tmp_path / "source")
    details = artifact.read(source).details
    assert details["precision"] == "float16" and "compute in float16" in details["notes"][0]
    wide = keras_file.load(source / details["file"])
    assert keras_file.find_precision(wide) is None
    (expected,) = checks.read_probe(source)[1].values()
    assert 40 < agreement_db(expected, np.asarray(wide(x))) < 100


def test_float_tflite_file_is_quantized_further(float_model, data, tmp_path):
    source = obtain(tflite_file, float_model[0] / facts.FILE, data, tmp_path / "source")
    (tmp_path / "float").mkdir()
    model = tmp_path / "float", make.convert(source, tmp_path / "float", {})
    folder = quantize(model, source, tmp_path / "v", "int8-static", keep=model[1]["layers"]["head"])
    found = facts.facts(folder)
    checks.check_scheme(found, make.SCHEMES["int8-static"], ["head"], "v")
    assert sqnr_db(folder, source) > 6


def test_the_published_pair_of_mlperf_tiny(shared_data, tmp_path):
    """ResNet-8 for CIFAR-10 as its authors publish it, float and int8: taken as they are, without a signature of their own."""
    from edgewise.agent import preprocess

    folders = sorted(path for path in (shared_data / "cifar10_test").iterdir() if path.is_dir())
    files = [(label, path) for label, folder in enumerate(folders) for path in sorted(folder.iterdir())[:12]]
    pictures = np.stack([preprocess.decode_picture(str(path)) for _, path in files])
    targets = np.array([label for label, _ in files])
    names = tuple(folder.name for folder in folders)
    splits = {"train": [], "validation": [], "calibration": list(range(len(files))), "test": []}
    data = write_data(tmp_path / "data", pictures, targets, names, splits, {**SPEC, "size": [32, 32]})
    right = {}
    for name, scheme in (("pretrainedResnet", "fp32"), ("pretrainedResnet_quant", "int8-static")):
        source = obtain(tflite_file, shared_data / f"pretrained/mlperf_tiny/{name}.tflite", data, tmp_path / name)
        parent = tmp_path / f"{name}-float"
        parent.mkdir()
        model = parent, make.convert(source, parent, {})
        folder = quantize(model, source, tmp_path / f"{name}-v", scheme)
        assert checks.check_scheme(facts.facts(folder), make.SCHEMES[scheme], [], name) == 1
        given = isolation.compute_outputs(MODULE, folder, {"threads": 1}, {"image": pictures.astype(np.float32)})["logits"]
        right[name] = (given.argmax(1) == targets).mean()
        if scheme != "fp32":
            with pytest.raises(ValueError, match=r"can be measured as int8-static.*, not as fp16"):
                quantize(model, source, tmp_path / "other", "fp16")
    assert right["pretrainedResnet"] > 0.6  # the pictures were compressed again: about 0.75 on all thousand
    assert abs(right["pretrainedResnet"] - right["pretrainedResnet_quant"]) < 0.05
