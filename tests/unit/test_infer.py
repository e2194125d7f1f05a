"""infer.py of a bundle, called as a module: what it reads, draws, and says of a device that cannot run it."""

import argparse
import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgewise.agent import feeds, infer, sessions
from edgewise.artifacts import artifact

SPEC = {
    **{"kind": "image", "size": [12, 16], "channels": 1, "resize": "stretch", "interpolation": "bilinear", "scale": 1 / 255},
    **{"mean": [0.5], "std": [0.25], "layout": "NCHW", "dtype": "float32"},
}


def test_files_are_verified_without_being_held_in_memory(tmp_path, monkeypatch):
    """A model may take most of the memory that a device has."""
    (tmp_path / "model").mkdir()
    with (tmp_path / "model/weights").open("wb") as stream:
        stream.truncate(32 << 20)
    (tmp_path / infer.CHECKSUMS).write_text(json.dumps({"model/weights": artifact.sha256(tmp_path / "model/weights")}))
    monkeypatch.setattr(infer, "HERE", str(tmp_path))
    tracemalloc.start()
    try:
        infer.verify_files()
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_model_that_the_runtime_refuses_ends_in_a_sentence(monkeypatch):
    def refuse(*_):
        raise RuntimeError("this processor\nlacks an instruction")

    monkeypatch.setattr(sessions, "load", refuse)
    arguments = argparse.Namespace(samples=["x.npz"], frames=None, stream=False, draw=None)
    with pytest.raises(infer.BundleError, match=r"the model cannot be loaded: RuntimeError: this processor lacks an instruction; "):
        list(infer.iterate_answers(arguments, {"runner": "json", "engine": {}}))


class Boxes:
    """A detector that finds one box in each picture."""

    def __init__(self, *folder_and_settings):
        pass

    def run(self, sample):
        return {"out": np.array([[[1, 1, 9, 9, 0.9, 0]]], np.float32)}


def draw(tmp_path, monkeypatch, pictures: list[str], folder: Path) -> list:
    monkeypatch.setattr(sessions, "load", Boxes)
    decoding = {"head": "end_to_end", "outputs": {"predictions": "out"}}
    settings = {"preprocessing": SPEC, "inputs": [{"name": "image"}], "runner": "json", "engine": {}}
    settings |= {"answer": {"answer": "boxes", "threshold": 0.1, "decoding": decoding}, "labels": ["cat"]}
    for name in pictures:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / name)
    samples = [str(tmp_path / name) for name in pictures]
    return list(infer.iterate_answers(argparse.Namespace(samples=samples, frames=None, stream=False, draw=str(folder)), settings))


def test_pictures_of_one_name_are_drawn_to_files_of_their_own(tmp_path, monkeypatch):
    found = draw(tmp_path, monkeypatch, ["a/street.png", "b/street.png", "b/street.bmp", "b/street-2.png"], tmp_path / "out")
    assert [json.loads(line)["objects"][0]["label"] for line in found] == ["cat"] * 4
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"street.png", "street-2.png", "street-3.png", "street-2-2.png"}


def test_a_folder_that_cannot_be_drawn_to_is_not_blamed_on_the_model(tmp_path, monkeypatch):
    (tmp_path / "out").touch()
    (found,) = draw(tmp_path, monkeypatch, ["a/street.png"], tmp_path / "out")
    assert isinstance(found, infer.BundleError) and "street.png: cannot be drawn: File exists" in str(found) and "--draw" in str(found)


def test_steps_of_an_open_length_cannot_be_read_from_a_stream():
    with pytest.raises(ValueError, match=r"--stream: input audio has steps of \[1, any\], .* give its samples as files"):
        list(feeds.read_steps([{"name": "audio", "shape": [None, None, 1, None], "dtype": "float32"}]))
