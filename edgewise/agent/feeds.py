"""Samples of a user, as the model of a bundle takes them: pictures, raw frames, sentences, arrays. Python 3.9.

A sample that cannot be read comes as the ValueError that says why, and the others follow: one bad file stops nothing.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
import zlib
from typing import Any, Dict, Iterator, Mapping, Optional, Sequence, Tuple, Union

import numpy as np

from edgewise.agent import preprocess

Feeds = Dict[str, np.ndarray]
Sample = Tuple[str, Union[Feeds, ValueError]]  # its name, its feeds of batch 1 or why there are none
BROKEN = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)  # what numpy raises on a broken .npy or .npz


def pictures(paths: Sequence[str], spec: Mapping[str, Any], name: str) -> Iterator[Sample]:
    for path in files(paths):
        yield path, picture(path, spec, name)


def picture(path: str, spec: Mapping[str, Any], name: str) -> Union[Feeds, ValueError]:
    try:
        return feed(preprocess.decode(path), spec, name)
    except ValueError as error:
        return ValueError(f"{path}: {error}; give a picture, such as .jpg or .png")


def feed(image: Any, spec: Mapping[str, Any], name: str) -> Dict[str, Any]:
    """uint8 [h, w, c] to what the model takes: the code that prepared the training data."""
    return {name: preprocess.normalize(preprocess.fit(image, spec)[None], spec)}


def files(paths: Sequence[str]) -> Iterator[str]:
    """The paths, and for a folder all files in it, by name; hidden ones left out."""
    for path in paths:
        if os.path.isdir(path):
            yield from files_below(path)
        else:
            yield path


def files_below(folder: str) -> Iterator[str]:
    """Its own files before those of its folders. A folder that cannot be listed comes as itself, for its reader to say so."""
    try:
        places = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except OSError:
        yield folder
        return
    yield from (place for place in places if not os.path.isdir(place) and not os.path.basename(place).startswith("."))
    for place in places:
        if os.path.isdir(place) and not os.path.islink(place):
            yield from files_below(place)


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
        for name, text in lines() if argument == "-" else [(argument, os.fsencode(argument))]:
            try:
                decoded = text.decode("utf-8")
            except UnicodeDecodeError:
                yield name, ValueError(f"{name}: it is not UTF-8; save it as UTF-8")
                continue
            encoded = tokenizer.encode(decoded)
            yield decoded, {"input_ids": np.array([encoded.ids], np.int64), "attention_mask": np.array([encoded.attention_mask], np.int64)}


def lines() -> Iterator[Tuple[str, bytes]]:
    """Name and bytes of each line of stdin, without its end."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        yield f"line {number} of stdin", line.rstrip(b"\r\n")


def arrays(paths: Sequence[str], inputs: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """Rows of .npy (one input) or .npz files."""
    for path in paths:
        try:
            rows = read_arrays(path, inputs)
        except ValueError as error:
            yield path, error
            continue
        for i in range(len(rows[inputs[0]["name"]])):
            yield f"{path}[{i}]", {name: array[i : i + 1] for name, array in rows.items()}


def read_arrays(path: str, inputs: Sequence[Mapping[str, Any]]) -> Feeds:
    """The arrays of one file, [n, ...], all of one n. ValueError where it has others, or cannot be read."""
    try:
        loaded = np.load(path, allow_pickle=False)
        found = {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else {inputs[0]["name"]: loaded}
        rows = {entry["name"]: np.atleast_1d(found[entry["name"]]).astype(entry["dtype"]) for entry in inputs}
    except BROKEN as error:
        names = ", ".join(entry["name"] for entry in inputs)
        raise ValueError(f"{path}: {error}; give arrays of one sample a row: {names}") from None
    for entry in inputs:
        if list(rows[entry["name"]].shape[1:]) != entry["shape"][1:]:
            raise ValueError(
                f"{path}: {entry['name']} has rows of {list(rows[entry['name']].shape[1:])}, the model takes {entry['shape'][1:]}"
            )
    if len({len(array) for array in rows.values()}) > 1:
        counts = ", ".join(f"{name} has {len(array)} rows" for name, array in rows.items())
        raise ValueError(f"{path}: {counts}; give as many rows of each")
    return rows


def samples(given: Sequence[str], size: Optional[str], settings: Mapping[str, Any], folder: str) -> Iterator[Sample]:
    """given: the arguments; size: of raw frames on stdin, or None; folder: the bundle. ValueError where none of it can be read."""
    spec, inputs = settings["preprocessing"], settings["inputs"]
    if spec["kind"] == "image":
        first = inputs[0]["name"]
        return frames(size, spec, first) if size else pictures(given, spec, first)
    if size:
        raise ValueError("--frames: this model takes no pictures; see --help")
    return texts(given, spec, folder) if spec["kind"] == "text" else arrays(given, inputs)
