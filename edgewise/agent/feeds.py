"""Read a user's samples as the model of a bundle takes them: pictures, raw frames, sentences, arrays. Python 3.9.

A sample that cannot be read is yielded as the ValueError that says why, and the others follow: one bad file stops nothing.
"""

from __future__ import annotations

import os
import re
import sys
import zipfile
import zlib
from typing import Any, Dict, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from edgewise.agent import preprocess

Feeds = Dict[str, np.ndarray]


class Given(NamedTuple):
    """One sample as the model takes it, batch 1, and the picture that it was made of, uint8 [h, w, c]; None where it is no picture."""

    feeds: Feeds
    picture: Optional[np.ndarray] = None


Sample = Tuple[str, Union[Given, ValueError]]  # name, and the sample or why there is none
READ_ERRORS = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)  # what numpy raises on a broken .npy or .npz


def read_samples(given: Sequence[str], size: Optional[str], settings: Mapping[str, Any], folder: str) -> Iterator[Sample]:
    """Yield the samples that the arguments name. size: of raw frames on stdin, or None; folder: of the bundle. ValueError if the model
    does not take such samples."""
    spec, inputs = settings["preprocessing"], settings["inputs"]
    if spec["kind"] == "image":
        first = inputs[0]["name"]
        return read_frames(size, spec, first) if size else read_pictures(given, spec, first)
    if size:
        raise ValueError("--frames: this model takes no pictures; see --help")
    return read_texts(given, spec, folder) if spec["kind"] == "text" else read_array_files(given, inputs)


def read_pictures(paths: Sequence[str], spec: Mapping[str, Any], name: str) -> Iterator[Sample]:
    for path in list_files(paths):
        yield path, read_picture(path, spec, name)


def read_picture(path: str, spec: Mapping[str, Any], name: str) -> Union[Given, ValueError]:
    try:
        return make_feed(preprocess.decode_picture(path), spec, name)
    except ValueError as error:
        return ValueError(f"{path}: {error}; give a picture, such as .jpg or .png")


def make_feed(image: Any, spec: Mapping[str, Any], name: str) -> Given:
    """The sample of a picture, uint8 [h, w, c], by the code that prepared the training data."""
    return Given({name: preprocess.normalize(preprocess.resize_to_spec(image, spec)[None], spec)}, image)


def list_files(paths: Sequence[str]) -> Iterator[str]:
    """The paths; in place of a folder all files in it, by name, without hidden ones."""
    for path in paths:
        if os.path.isdir(path):
            yield from list_folder(path)
        else:
            yield path


def list_folder(folder: str) -> Iterator[str]:
    """The files of a folder before those of its subfolders. A folder that cannot be listed is yielded itself; reading it fails."""
    try:
        places = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    except OSError:
        yield folder
        return
    yield from (place for place in places if not os.path.isdir(place) and not os.path.basename(place).startswith("."))
    for place in places:
        if os.path.isdir(place) and not os.path.islink(place):
            yield from list_folder(place)


def read_frames(size: str, spec: Mapping[str, Any], name: str) -> Iterator[Sample]:
    """Raw frames from stdin until its end. ValueError for a size of another form or an incomplete frame."""
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
        yield f"frame {number}", make_feed(np.frombuffer(content, np.uint8).reshape(shape), spec, name)
        number += 1


def read_texts(given: Sequence[str], spec: Mapping[str, Any], folder: str) -> Iterator[Sample]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(folder, spec["tokenizer"]))  # truncates and pads as it was saved
    for argument in given:
        for name, text in read_lines() if argument == "-" else [(argument, os.fsencode(argument))]:
            try:
                decoded = text.decode("utf-8")
            except UnicodeDecodeError:
                yield name, ValueError(f"{name}: not UTF-8; save it as UTF-8")
                continue
            encoded = tokenizer.encode(decoded)
            rows = {"input_ids": encoded.ids, "attention_mask": encoded.attention_mask}
            yield decoded, Given({name: np.array([row], np.int64) for name, row in rows.items()})


def read_lines() -> Iterator[Tuple[str, bytes]]:
    """Name and bytes of each line of stdin, without the line break."""
    for number, line in enumerate(sys.stdin.buffer, start=1):
        yield f"line {number} of stdin", line.rstrip(b"\r\n")


def _fits(given: Sequence[int], wanted: Sequence[Optional[int]]) -> bool:
    """Whether a sample has the shape that the model takes, None for any size."""
    return len(given) == len(wanted) and all(size in (None, side) for side, size in zip(given, wanted))


def read_steps(inputs: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """Each step of one sequence from stdin: the values of all inputs one after the other, in the type and shape that the model takes."""
    for entry in inputs:
        if None in entry["shape"][2:]:
            shown = str(entry["shape"][2:]).replace("None", "any")
            raise ValueError(
                f"--stream: input {entry['name']} has steps of {shown}, whose length stdin does not tell; give its samples as files"
            )
    number = 0
    while True:
        feed: Feeds = {}
        for entry in inputs:
            dtype, shape = np.dtype(entry["dtype"]).newbyteorder("<"), [1, *entry["shape"][2:]]
            content = sys.stdin.buffer.read(int(np.prod(shape)) * dtype.itemsize)
            if not content and not feed:
                return
            if len(content) < np.prod(shape) * dtype.itemsize:
                raise ValueError(
                    f"step {number} ends after {len(content)} bytes of {entry['name']}; give {shape[1:]} values of {dtype.name}"
                )
            feed[entry["name"]] = np.frombuffer(content, dtype).reshape(shape)
        yield f"step {number}", Given(feed)
        number += 1


def read_array_files(paths: Sequence[str], inputs: Sequence[Mapping[str, Any]]) -> Iterator[Sample]:
    """The rows of .npy (one input) or .npz files."""
    for path in paths:
        try:
            rows = read_array_file(path, inputs)
        except ValueError as error:
            yield path, error
            continue
        for i in range(len(rows[inputs[0]["name"]])):
            yield f"{path}[{i}]", Given({name: array[i : i + 1] for name, array in rows.items()})


def read_array_file(path: str, inputs: Sequence[Mapping[str, Any]]) -> Feeds:
    """The arrays of one file by input, [n, ...]. ValueError if it cannot be read, lacks one, or their shapes do not fit."""
    try:
        found = load_arrays(path, inputs[0]["name"])
        rows = {entry["name"]: np.atleast_1d(found[entry["name"]]).astype(entry["dtype"]) for entry in inputs}
    except READ_ERRORS as error:
        names = ", ".join(entry["name"] for entry in inputs)
        raise ValueError(f"{path}: {error}; give arrays of one sample a row: {names}") from None
    for entry in inputs:
        if not _fits(rows[entry["name"]].shape[1:], entry["shape"][1:]):
            raise ValueError(
                f"{path}: {entry['name']} has rows of {list(rows[entry['name']].shape[1:])}, the model takes {entry['shape'][1:]}"
            )
    if len({len(array) for array in rows.values()}) > 1:
        counts = ", ".join(f"{name} has {len(array)} rows" for name, array in rows.items())
        raise ValueError(f"{path}: {counts}; give the same number of rows for each input")
    return rows


def load_arrays(path: str, only: str) -> Feeds:
    """The arrays of an .npz file by name, or that of an .npy file under the name `only`. READ_ERRORS for a broken one."""
    with open(path, "rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        return {only: loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
