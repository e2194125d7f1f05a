"""Sections of params.yaml for an inspected file: the model, data in the shape that it takes, its usual variants."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from edgewise.config.settings import nearest
from edgewise.errors import ConfigError
from edgewise.sources.inspection import CHANNELS, Inspection, Port, parse_picture

USUAL = ("fp32", "fp16", "int8-dynamic", "int8-static")
RANGES = ((0, 255), (0, 1), (-1, 1))
SHARES = {"validation": 0.1, "calibration": 0.2, "test": 0.7}  # nothing is trained
PATHS = {"image_folder": "/path/to/pictures", "arrays": "/path/to/set.npz", "text_tsv": "/path/to/sentences.tsv"}
LENGTH = 140


def suggest_sections(
    found: Inspection, source: str, formats: Mapping[str, Mapping[str, Any]], path: str | None, schemes: Sequence[str] = USUAL
) -> str:
    """The sections as YAML with comments.

    source: the format of the file. formats: {format: {"sources": ..., "schemes": ...}}. path: the user's data. Raises ConfigError if none
    of the schemes is possible.
    """
    variants = suggest_variants(found, source, formats, schemes)
    if not variants:
        raise ConfigError(f"--schemes: none of {', '.join(schemes)} can be made from this file; {nearest('', found.schemes or USUAL)}")
    data, remarks = suggest_data(found.inputs, path)
    head = [f"# {remark}" for remark in (*describe_classes(found.outputs), *remarks)]
    sections = {"data": data, "model": dict(found.model or {}), "variants": variants}
    lines = [yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=None, width=LENGTH) for key, value in sections.items()]
    return "\n".join([*head, f"reference: {next(iter(variants))}", ""]) + "".join(lines)


def describe_classes(outputs: Sequence[Port]) -> list[str]:
    """A remark on the number of classes, where the first output is a vector per sample."""
    if not outputs or len(outputs[0].shape) != 2 or outputs[0].shape[1] is None:
        return []
    return [f"it gives {outputs[0].shape[1]} scores: the data needs as many classes, or set data.label_names"]


def replace_sections(params: str, sections: str) -> str:
    """The text of params.yaml with its sections replaced by those of `sections`. Other sections and comments stay unchanged."""
    new = set(yaml.safe_load(sections))
    kept, own = [], True
    for line in params.splitlines(keepends=True):
        key = line.partition(":")[0]
        if key.isidentifier():
            own = key not in new
        kept.append(line if own else "")
    return "".join(kept) + sections


def suggest_variants(
    found: Inspection, source: str, formats: Mapping[str, Mapping[str, Any]], schemes: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Variants of formats that read the file directly or through one other format. A quantized file stays in its own format."""
    direct = {name for name, form in formats.items() if source in form["sources"]} if found.schemes is None else {source}
    between = {name for name, form in formats.items() if form["sources"][0] in direct} if found.schemes is None else set()
    wanted = schemes if found.schemes is None else found.schemes
    return {
        f"{name}-{scheme}": {"format": name, "scheme": scheme}
        for name, form in sorted(
            formats.items(), key=lambda entry: entry[0] != source
        )  # the file's own format comes first: its first variant is the reference
        if name in direct | between
        for scheme in form["schemes"]
        if scheme in wanted
    }


def suggest_data(inputs: Sequence[Port], path: str | None) -> tuple[dict[str, Any], list[str]]:
    """The data section, and remarks on what the user must check in it."""
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        return suggest_pictures(inputs[0], path or PATHS["image_folder"])
    if inputs and all(port.dtype.startswith("int") and len(port.shape) == 2 for port in inputs):
        length = inputs[0].shape[1] or 64
        section = {"name": "text_tsv", "path": path or PATHS["text_tsv"], "length": length, "tokenizer": "/path/to/tokenizer.json"}
        return section, ["token ids: the tokenizer must be the model's own; its inputs are fed in the order input_ids, attention_mask"]
    dtype = "int64" if inputs and inputs[0].dtype.startswith("int") else "float32"
    names = ", ".join(port.name for port in inputs)
    return {"name": "arrays", "path": path or PATHS["arrays"], "dtype": dtype, "splits": dict(SHARES)}, [
        f"one array of shape [n, ...] for each input, in this order: {names}; y holds the labels"
    ]


def suggest_pictures(port: Port, path: str) -> tuple[dict[str, Any], list[str]]:
    last, channels, sides = parse_picture(port.shape[1:])
    size = [side or 224 for side in sides]
    low, high = nearest_range(port)
    section = {
        "name": "image_folder",
        "path": path,
        "image_size": size[0] if size[0] == size[1] else size,
        "channels": channels if channels in CHANNELS else 3,
        "channels_last": last,
        "range": [low, high],
        "splits": dict(SHARES),
    }
    if port.dtype == "uint8" and port.quantization is None:
        section["dtype"] = "uint8"
    sure = "data.range follows from the file's quantization" if port.quantization else "data.range is a guess: the run tries others too"
    return section, [f"pictures; {sure}; add mean, std or channel_order: bgr where it was trained so"]


def nearest_range(port: Port) -> tuple[int, int]:
    """The usual range nearest to the real values of a quantized input; 0 to 255 for a plain uint8 input, else 0 to 1."""
    if port.quantization is None:
        return (0, 255) if port.dtype == "uint8" else (0, 1)
    limits, (scale, zero_point) = np.iinfo(port.dtype), port.quantization
    own = np.array([limits.min - zero_point, limits.max - zero_point]) * scale
    return min(RANGES, key=lambda usual: float(np.abs(own - usual).sum() / (usual[1] - usual[0])))
