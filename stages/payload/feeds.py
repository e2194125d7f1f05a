"""Samples of a user, as the model of a bundle takes them: pictures, raw frames, sentences, arrays. Python 3.9."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple

import numpy as np

from stages.payload import preprocess

Sample = Tuple[str, Dict[str, np.ndarray]]  # its name, its feeds of batch 1


def pictures(paths: Sequence[str], spec: Mapping[str, Any], name: str) -> Iterator[Sample]:
    for path in files(paths):
        try:
            image = preprocess.decode(path)
        except ValueError as error:
            raise ValueError(f"{path}: {error}; give a picture, such as .jpg or .png") from None
        yield path, feed(image, spec, name)


def feed(image: Any, spec: Mapping[str, Any], name: str) -> Dict[str, Any]:
    """uint8 [h, w, c] to what the model takes: the code that prepared the training data."""
    return {name: preprocess.normalize(preprocess.fit(image, spec)[None], spec)}


def files(paths: Sequence[str]) -> Iterator[str]:
    """The paths, and for a folder all files in it, by name; hidden ones left out."""
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (os.path.join(folder, name) for name in sorted(names) if not name.startswith("."))


def frames(size: str, spec: Mapping[str, Any], name: str) -> Iterator[Sample]:
    """Raw frames of stdin until its end."""
    found = re.fullmatch(r"(\d+)x(\d+)(?:x([13]))?", size)
    if not found:
        raise ValueError(f"--frames {size}: write it as WIDTHxHEIGHTx3 (RGB) or WIDTHxHEIGHTx1 (grey)")
    shape = (int(found.group(2)), int(found.group(1)), int(found.group(3) or 3))
    count = shape[0] * shape[1] * shape[2]
    number = 0
    while True:
        content = sys.stdin.buffer.read(count)
        if not content:
            return
        if len(content) < count:
            raise ValueError(f"frame {number} ends after {len(content)} of {count} bytes; give whole frames of {size}, uint8")
        yield f"frame {number}", feed(np.frombuffer(content, np.uint8).reshape(shape), spec, name)
        number += 1


def texts(given: Sequence[str], spec: Mapping[str, Any], folder: str) -> Iterator[Sample]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(folder, spec["tokenizer"]))  # cuts and pads as it was saved
    for argument in given:
        for text in (line.rstrip("\n") for line in sys.stdin) if argument == "-" else [argument]:
            encoded = tokenizer.encode(text)
            yield text, {"input_ids": np.array([encoded.ids], np.int64), "attention_mask": np.array([encoded.attention_mask], np.int64)}


def arrays(paths: Sequence[str], inputs: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """Rows of .npy (one input) or .npz files."""
    for path in paths:
        try:
            loaded = np.load(path, allow_pickle=False)
            found = {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else {inputs[0]["name"]: loaded}
            rows = {entry["name"]: found[entry["name"]].astype(entry["dtype"]) for entry in inputs}
        except (OSError, ValueError, KeyError) as error:
            names = ", ".join(entry["name"] for entry in inputs)
            raise ValueError(f"{path}: {error}; give arrays of one sample a row: {names}") from None
        for entry in inputs:
            if list(rows[entry["name"]].shape[1:]) != entry["shape"][1:]:
                raise ValueError(
                    f"{path}: {entry['name']} has rows of {list(rows[entry['name']].shape[1:])}, the model takes {entry['shape'][1:]}"
                )
        for i in range(len(rows[inputs[0]["name"]])):
            yield f"{path}[{i}]", {name: array[i : i + 1] for name, array in rows.items()}


def samples(given: Sequence[str], size: Optional[str], settings: Mapping[str, Any], folder: str) -> Iterator[Sample]:
    """given: the arguments; size: of raw frames on stdin, or None; folder: the bundle. ValueError says what cannot be read."""
    spec, inputs = settings["preprocessing"], settings["inputs"]
    if spec["kind"] == "image":
        first = inputs[0]["name"]
        return frames(size, spec, first) if size else pictures(given, spec, first)
    if size:
        raise ValueError("--frames: this model takes no pictures; see --help")
    return texts(given, spec, folder) if spec["kind"] == "text" else arrays(given, inputs)
