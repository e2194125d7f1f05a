"""The public files of benchmarks/own_models.py: for each run its params.yaml, and what it is to show."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

STRATEGIES = ("fp32", "fp16", "int8-dynamic", "int8-static", "int16x8-static")
SEEN = {  # what is on each sample photograph, in the words of the model's label file
    "bird.bmp": "chickadee",
    "cat.bmp": "tabby",
    "dragonfly.bmp": "dragonfly",
    "grace_hopper.bmp": "military uniform",
    "hot_dog.jpg": "hotdog",
    "parrot.jpg": "macaw",
}
MIRRORED = "parrot.jpg"  # of which a mirrored copy is the one calibration sample, so that all six are judged
CIFAR = {"image_size": 32, "channels_last": True, "range": [0, 255], "splits": {"validation": 0.0, "calibration": 0.1, "test": 0.9}}


@dataclass(frozen=True)
class Run:
    """One model file or one training, and the variants that are made of it. data, model, train: sections of params.yaml."""

    data: Mapping[str, Any]
    model: Mapping[str, Any]
    variants: tuple[str, ...]
    train: Mapping[str, Any]

    def params(self, profile: str) -> dict[str, Any]:
        """variants: FORMAT-SCHEME, the first of them the reference."""
        pairs = {name: dict(zip(("format", "scheme"), name.split("-", 1), strict=True)) for name in self.variants}
        device = {"name": "local", "host": None, "threads": 1}
        given = {"seed": 0, "data": dict(self.data), "model": dict(self.model), "train": dict(self.train), "device": device}
        return {**given, "bench": {"name": profile}, "budget": {"name": "none"}, "reference": self.variants[0], "variants": pairs}


@dataclass(frozen=True)
class Case:
    """A table of the page. runs: by what the table calls them."""

    title: str
    description: str
    runs: Mapping[str, Run]


def imported(kind: str, path: Path, data: Mapping[str, Any], *variants: str) -> Run:
    return Run(data, {"name": kind, "path": str(path)}, variants, {"name": "default"})


def samples(shared: Path, folder: Path) -> Path:
    """The photographs as an image_folder: train/CLASS, which is divided further, and test/CLASS."""
    from PIL import Image, ImageOps

    for name, label in SEEN.items():
        (folder / "test" / label).mkdir(parents=True, exist_ok=True)
        shutil.copy(shared / "pretrained/coral" / name, folder / "test" / label)
    place = folder / "train" / SEEN[MIRRORED]
    place.mkdir(parents=True, exist_ok=True)
    with Image.open(shared / "pretrained/coral" / MIRRORED) as image:
        ImageOps.mirror(image).save(place / "mirrored.png")
    return folder


def cases(shared: Path, place: Path) -> dict[str, Case]:
    """By the name that the command line takes. shared: the folder with the files; place: where the photographs are sorted."""
    return {"mnist": mnist(shared), "resnet8": resnet8(shared), "mobilenet": mobilenet(shared, place), "sst2": sst2(shared)}


def mnist(shared: Path) -> Case:
    splits = {"validation": 0.0, "calibration": 0.13, "test": 0.87}
    data = {
        "name": "image_folder",
        "path": str(shared / "mnist_test"),
        "image_size": 28,
        "channels": 1,
        "range": [0, 255],
        "splits": splits,
    }
    made = [f"onnx-{scheme}" for scheme in ("fp32", "fp16", "int8-dynamic", "int8-static")]
    run = imported(
        "onnx_file", shared / "pretrained/mnist/mnist.onnx", data, *made, "openvino-fp32", "openvino-fp16", "openvino-int8-static"
    )
    description = "A published `mnist.onnx` of opset 7, which answers 98.9 % of the 10,000 MNIST test pictures rightly, on 870 of them."
    return Case("An ONNX file of opset 7", description, {"mnist.onnx": run})


def resnet8(shared: Path) -> Case:
    data, place = {"name": "image_folder", "path": str(shared / "cifar10_test"), **CIFAR}, shared / "pretrained/mlperf_tiny"
    ours = imported(
        "keras_file",
        place / "pretrainedResnet.h5",
        data,
        *(f"tflite-{scheme}" for scheme in STRATEGIES),
        "openvino-fp32",
        "openvino-int8-static",
    )
    theirs = imported("tflite_file", place / "pretrainedResnet.tflite", data, "tflite-fp32")
    quantized = imported("tflite_file", place / "pretrainedResnet_quant.tflite", data, "tflite-int8-static")
    description = (
        "The ResNet-8 of MLPerf Tiny: from its `.h5` through TFLiteConverter here (ours), beside the published float and int8 `.tflite` of"
        " the same weights (theirs). On 900 CIFAR-10 test pictures that were compressed as JPEG again, which costs some ten points."
    )
    return Case(
        "Keras, and a published pair of TFLite files", description, {"ours": ours, "theirs, float": theirs, "theirs, int8": quantized}
    )


def mobilenet(shared: Path, place: Path) -> Case:
    coral = shared / "pretrained/coral"
    data = {
        "name": "image_folder",
        "path": str(samples(shared, place)),
        "image_size": 224,
        "channels_last": True,
        "range": [-1, 1],
        "layout": "splits",
    }
    labelled = {"label_names": str(coral / "imagenet_labels.txt"), "splits": {"validation": 0.0, "calibration": 1.0, "test": 0.0}}
    run = imported("tflite_file", coral / "mobilenet_v2_1.0_224_quant.tflite", {**data, **labelled}, "tflite-int8-static")
    description = "MobileNetV2 for ImageNet in uint8, 1,001 classes, on the six photographs that come with it."
    return Case("A TFLite file that is quantized already", description, {"mobilenet_v2 quant": run})


def sst2(shared: Path) -> Case:
    data = {"name": "text_tsv", "path": str(shared / "sst2"), "length": 48, "vocab_size": 6000}
    train = {"name": "transformer", "epochs": 5, "shift_pixels": 0}
    made = ("torch-fp32", "torch-int8-dynamic", *(f"onnx-{s}" for s in ("fp32", "int8-dynamic", "int8-static")))
    others = (*(f"tflite-{s}" for s in ("fp32", "int8-dynamic", "int8-static")), "openvino-fp32", "openvino-int8-static")
    description = "BERT-Mini from nothing on the 6,920 sentences of SST-2, judged on its 1,821 test sentences."
    return Case("Text", description, {"bert_mini": Run(data, {"name": "bert_mini"}, (*made, *others), train)})
