"""What TFLite files say of themselves: normalization and labels, read and shown."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgewise.data import common
from edgewise.errors import DataError
from edgewise.sources import tflite_file, tflite_metadata
from tests.conftest import ROOT
from tests.support import old_tflite

pytestmark = pytest.mark.framework

pytest.importorskip("ai_edge_litert")
SMALL = ROOT / "tests/data/no_quantization_table.tflite"
LABELS = ["cat", "dog", "bird", "none"]


def write_metadata(mean: list[float], std: list[float]) -> bytes:
    """Metadata of one input and one output, by flatbuffers' own builder and the positions of metadata_schema.fbs."""
    import flatbuffers

    builder = flatbuffers.Builder(0)

    def table(fields: dict[int, tuple[str, Any]]) -> int:
        builder.StartObject(8)
        for place, (kind, value) in fields.items():
            getattr(builder, {"offset": "PrependUOffsetTRelativeSlot", "byte": "PrependUint8Slot"}[kind])(place, value, 0)
        return builder.EndObject()

    def vector(offsets: list[int]) -> int:
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()

    means, deviations = (builder.CreateNumpyVector(np.array(values, np.float32)) for values in (mean, std))
    options = table({0: ("offset", means), 1: ("offset", deviations)})
    unit = table({0: ("byte", 1), 1: ("offset", options)})
    content = table({0: ("byte", 2), 1: ("offset", table({0: ("byte", 1)}))})
    names = [builder.CreateString(text) for text in ("picture", "what to look at", "score", "labels.txt", "Finder", "finds pets")]
    units = vector([unit])
    given = table({0: ("offset", names[0]), 1: ("offset", names[1]), 3: ("offset", content), 4: ("offset", units)})
    file = table({0: ("offset", names[3]), 2: ("byte", 2)})
    files = vector([file])
    made = table({0: ("offset", names[2]), 6: ("offset", files)})
    sides = vector([given]), vector([made])
    graph = table({2: ("offset", sides[0]), 3: ("offset", sides[1])})
    graphs = vector([graph])
    builder.Finish(table({0: ("offset", names[4]), 1: ("offset", names[5]), 3: ("offset", graphs)}), b"M001")
    return bytes(builder.Output())


def described(path: Path, metadata: bytes) -> Path:
    """A file with these metadata, and its labels packed behind it."""
    from ai_edge_litert import schema_py_generated as schema

    model, buffer, entry = old_tflite.read(SMALL), schema.BufferT(), schema.MetadataT()
    buffer.data, entry.name, entry.buffer = np.frombuffer(metadata, np.uint8), b"TFLITE_METADATA", len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or ()), entry]
    old_tflite.write(model, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("labels.txt", "\n".join(LABELS) + "\n")
    return path


def test_normalization_and_labels_are_shown_and_used(tmp_path):
    seen = tflite_file.inspect(described(tmp_path / "mine.tflite", write_metadata([127.5], [127.5])))
    assert (seen.inputs[0].mean, seen.inputs[0].std) == ((127.5,), (127.5,))
    assert seen.notes[:3] == (
        "in its own words: Finder: finds pets",
        "in its own words: picture: what to look at",
        "in its own words: score",
    )
    assert seen.notes[3].startswith("it holds the names of its classes (4: cat, dog, bird ...), data.label_names=")
    assert list(seen.label_names) == LABELS


def test_the_file_itself_can_be_named_for_its_labels(tmp_path):
    path = described(tmp_path / "mine.tflite", write_metadata([0], [255]))
    assert common.read_class_names(path, 0) == LABELS == tflite_metadata.read_labels(path, "labels.txt")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("labels.csv", "a")
    with pytest.raises(DataError, match="no text file is packed in it; give a text file with one class per line"):
        common.read_class_names(tmp_path / "other.zip", 0)


def test_a_normalization_of_its_own_for_each_channel(tmp_path):
    mean, std = [123.68, 116.78, 103.94], [58.4, 57.1, 57.4]
    (port,) = tflite_file.inspect(described(tmp_path / "mine.tflite", write_metadata(mean, std))).inputs
    np.testing.assert_allclose([port.mean, port.std], [mean, std], rtol=1e-6)


@pytest.mark.parametrize("damage", [lambda text: text[:60], lambda text: text[:4] + b"M009" + text[8:], lambda text: text[:8]])
def test_damaged_metadata_are_a_note_and_no_more(damage, tmp_path):
    seen = tflite_file.inspect(described(tmp_path / "mine.tflite", damage(write_metadata([0], [255]))))
    assert "its metadata are" in seen.notes[0] and seen.inputs[0].mean == ()


def test_labels_that_are_named_but_not_there(tmp_path):
    path = described(tmp_path / "mine.tflite", write_metadata([0], [255]))
    path.write_bytes(path.read_bytes()[: path.read_bytes().rindex(b"PK\x03\x04")])
    assert tflite_metadata.read_labels(path, "labels.txt") is None
    assert not any("names of its classes" in note for note in tflite_file.inspect(path).notes)


def test_published_files(shared_data):
    """As their model cards have it."""
    folder = shared_data / "pretrained"
    face = tflite_file.inspect(folder / "mediapipe/face_detection_short_range.tflite")
    assert (face.inputs[0].mean, face.inputs[0].std, face.schemes) == ((127.5,), (127.5,), None)
    assert any("raw boxes/keypoints" in note for note in face.notes)
    selfie = tflite_file.inspect(folder / "mediapipe/selfie_segmentation.tflite")
    assert (selfie.inputs[0].mean, selfie.inputs[0].std, selfie.schemes) == ((0,), (255,), None)
    bird = folder / "coral/mobilenet_v2_1.0_224_quant.tflite"
    assert tflite_metadata.read_labels(bird, "imagenet_labels.txt") == (folder / "coral/imagenet_labels.txt").read_text().splitlines()
