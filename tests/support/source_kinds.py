"""One small model in every kind of file that a user may bring, imported as train-export does.

    kinds(folder)["onnx_file"]()      models/source of that kind, as a folder

The convolutional net of tests/support/sources.py is the model of the torch, ONNX and TFLite files, with its layers' names kept in each.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts.artifact import Manifest
from edgewise.config import schema
from edgewise.config.schema import Train
from edgewise.proof.making import make_tensors, write_ports
from tests.conftest import ROOT
from tests.support import sources

FEEDS = [{"image": picture[None]} for picture in sources.pictures(64, 7)[0]]


def form(name: str) -> Mapping[str, Any]:
    return yaml.safe_load((ROOT / f"conf/format/{name}.yaml").read_text(encoding="utf-8"))


def make_of(name: str) -> ModuleType:
    return schema.part(form(name)["module"], "make")


def data(folder: Path, layout: str = "NCHW") -> Path:
    """models/data of the pictures of tests/support/sources.py."""
    pictures, targets = sources.pictures(64, 7)
    pictures = pictures.transpose(0, 2, 3, 1) if layout == "NHWC" else pictures
    (folder / "inputs").mkdir(parents=True)
    np.save(folder / "inputs/image.npy", np.ascontiguousarray(pictures))
    np.save(folder / "targets.npy", targets)
    splits = {"train": [], "validation": [], "calibration": list(range(48)), "test": list(range(48, 64))}
    (folder / "splits.json").write_text(json.dumps(splits))
    image = artifact.Port("image", (None, *pictures.shape[1:]), "float32")
    artifact.write(folder, Manifest("data", inputs=(image,), labels=sources.LABELS, preprocessing={"kind": "none"}))
    return folder


def imported(importer: ModuleType, file: Path, samples: Path, folder: Path) -> Path:
    """models/source as train-export writes it."""
    folder.mkdir()
    fields = dict(importer.obtain(importer.Settings(path=str(file)), samples, Train("none"), 0, folder))
    del fields["weights"], fields["training"]
    fields |= {side: make_tensors(fields[side], ()) for side in ("inputs", "outputs")}
    artifact.write(folder, Manifest(kind="source", labels=sources.LABELS, **fields))
    return folder


def convert(name: str, source: Path, folder: Path) -> Path:
    """The float model of a format, with layers.json; nothing of it where the format cannot make it (ValueError)."""
    folder.mkdir(parents=True)
    try:
        made = make_of(name).convert(source, folder, form(name).get("convert") or {})
    except ValueError:
        shutil.rmtree(folder)
        raise
    (folder / "layers.json").write_text(json.dumps(dict(made["layers"])))
    origin = artifact.read(source)
    write_ports(folder, *(make_tensors(made[side], getattr(origin, side)) for side in ("inputs", "outputs")))
    shutil.copy(source / "manifest.json", folder) if not (folder / "manifest.json").exists() else None
    return folder


class Kinds:
    """Each kind is made once, when it is first asked for."""

    def __init__(self, folder: Path, builders: "Mapping[str, Callable[[Kinds], Path]] | None" = None):
        self.folder, self.builders = folder, builders or BUILDERS
        self.made: dict[str, Path] = {}

    def get(self, kind: str) -> Path:
        if kind not in self.made:
            self.made[kind] = self.builders[kind](self)
        return self.made[kind]

    def data(self, layout: str = "NCHW") -> Path:
        folder = self.folder / f"data-{layout}"
        return folder if folder.exists() else data(folder, layout)


def torch(kinds: Kinds) -> Path:
    return sources.write(kinds.folder / "torch")


def onnx_file(kinds: Kinds) -> Path:
    """The exported graph, its nodes named after the layers, as a user's own export would name them."""
    import onnx

    from edgewise.sources import onnx_file as importer

    made = convert("onnx", kinds.get("torch"), kinds.folder / "exported-onnx")
    model = onnx.load(made / "model.onnx")
    names = {node: layer for layer, nodes in json.loads((made / "layers.json").read_text()).items() for node in nodes}
    for node in model.graph.node:
        node.name = names.get(node.name, node.name)
    onnx.save(model, kinds.folder / "mine.onnx")
    return imported(importer, kinds.folder / "mine.onnx", kinds.data(), kinds.folder / "onnx_file")


def tflite_file(kinds: Kinds) -> Path:
    from edgewise.sources import tflite_file as importer

    made = convert("tflite", kinds.get("torch"), kinds.folder / "exported-tflite")
    return imported(importer, made / "model.tflite", kinds.data(), kinds.folder / "tflite_file")


def tflite_int8(kinds: Kinds) -> Path:
    """A file that is quantized already."""
    from edgewise.sources import tflite_file as importer

    source, folder = kinds.get("tflite_file"), kinds.folder / "quantized"
    folder.mkdir()
    parent = convert("tflite", source, kinds.folder / "float-tflite")
    make_of("tflite").quantize(parent, source, folder, "int8-static", form("tflite")["schemes"]["int8-static"], FEEDS, [])
    return imported(importer, folder / "model.tflite", kinds.data(), kinds.folder / "tflite_int8")


def keras_model(kinds: Kinds) -> Any:
    """Trained for a moment: the outputs of random weights are so alike that 8 bits drown them."""
    from edgewise.sources import keras_file

    library = keras_file.import_keras()
    library.utils.set_random_seed(0)
    layers, side = library.layers, sources.SIZE
    inputs = library.Input((side, side, 3))
    x = layers.BatchNormalization(momentum=0.9)(layers.Conv2D(16, 3, padding="same", name="stem")(inputs))
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(layers.MaxPooling2D()(layers.ReLU()(x)))
    x = layers.ReLU()(layers.Conv2D(32, 3, strides=2, padding="same", name="block")(x))
    head = layers.Dense(len(sources.LABELS), name="head")
    model = library.Model(inputs, head(layers.GlobalAveragePooling2D()(x)))
    model.compile(library.optimizers.Adam(0.01), library.losses.SparseCategoricalCrossentropy(from_logits=True))
    pictures, targets = sources.pictures(640, 1)
    model.fit(pictures.transpose(0, 2, 3, 1), targets, batch_size=64, epochs=4, verbose=0)
    return model


def keras_file(kinds: Kinds) -> Path:
    from edgewise.sources import keras_file as importer

    keras_model(kinds).save(kinds.folder / "mine.keras")
    return imported(importer, kinds.folder / "mine.keras", kinds.data("NHWC"), kinds.folder / "keras_file")


def saved_model(kinds: Kinds) -> Path:
    from edgewise.sources import keras_file as importer

    keras_model(kinds).export(kinds.folder / "mine", verbose=False)
    return imported(importer, kinds.folder / "mine", kinds.data("NHWC"), kinds.folder / "saved_model")


def transformer(kinds: Kinds) -> Path:
    from tests.support import attention_source

    return attention_source.write(kinds.folder / "transformer")


BUILDERS: Mapping[str, Callable[[Kinds], Path]] = {
    "torch": torch,
    "transformer": transformer,
    "onnx_file": onnx_file,
    "keras_file": keras_file,
    "saved_model": saved_model,
    "tflite_file": tflite_file,
    "tflite_int8": tflite_int8,
}
TOLD = {
    "torch": "torch: trained here, a callable, `.pt2` (convolutions)",
    "transformer": "torch (a transformer, token ids)",
    "onnx_file": "`.onnx`",
    "keras_file": "`.keras`, `.h5`",
    "saved_model": "SavedModel directory",
    "tflite_file": "`.tflite`, float",
    "tflite_int8": "`.tflite`, int8 already",
}
