"""Sections of params.yaml with which an inspected file runs: the model, data of the shape that it takes, its usual variants."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from edgewise.config.settings import nearest
from edgewise.errors import ConfigError
from edgewise.sources.inspection import CHANNELS, Inspection, Port, picture

USUAL = ("fp32", "fp16", "int8-dynamic", "int8-static")
RANGES = ((0, 255), (0, 1), (-1, 1))
SHARES = {"validation": 0.1, "calibration": 0.2, "test": 0.7}  # nothing is trained
PATHS = {"image_folder": "/path/to/pictures", "arrays": "/path/to/set.npz", "text_tsv": "/path/to/sentences.tsv"}
LENGTH = 140


def text(found: Inspection, source: str, formats: Mapping[str, Mapping[str, Any]], path: str | None, schemes: Sequence[str] = USUAL) -> str:
    """YAML with comments. formats: {"sources", "schemes"} of each; path: the user's data. ConfigError where no variant is left."""
    variants = _variants(found, source, formats, schemes)
    if not variants:
        raise ConfigError(f"--schemes: none of {', '.join(schemes)} can be had of this file; {nearest('', found.schemes or USUAL)}")
    data, remarks = _data(found.inputs, path)
    classes = found.outputs[0].shape[-1] if found.outputs else None
    head = [f"# {remark}" for remark in (f"it gives {classes} scores: the data needs as many classes, or data.label_names", *remarks)]
    sections = {"data": data, "model": dict(found.model or {}), "variants": variants}
    lines = [yaml.safe_dump({key: value}, sort_keys=False, default_flow_style=None, width=LENGTH) for key, value in sections.items()]
    return "\n".join([*head, f"reference: {next(iter(variants))}", ""]) + "".join(lines)


def replaced(params: str, sections: str) -> str:
    """params.yaml with these sections in the place of its own; the other sections and their comments stay as they are."""
    new = set(yaml.safe_load(sections))
    kept, own = [], True
    for line in params.splitlines(keepends=True):
        key = line.partition(":")[0]
        if key.isidentifier():
            own = key not in new
        kept.append(line if own else "")
    return "".join(kept) + sections


def _variants(
    found: Inspection, source: str, formats: Mapping[str, Mapping[str, Any]], schemes: Sequence[str]
) -> dict[str, dict[str, str]]:
    """Directly, or through a format that lies between; what is quantized already stays in its own format."""
    direct = {name for name, form in formats.items() if source in form["sources"]} if found.schemes is None else {source}
    between = {name for name, form in formats.items() if form["sources"][0] in direct} if found.schemes is None else set()
    wanted = schemes if found.schemes is None else found.schemes
    return {
        f"{name}-{scheme}": {"format": name, "scheme": scheme}
        for name, form in sorted(formats.items(), key=lambda entry: entry[0] != source)  # the file's own format is the reference
        if name in direct | between
        for scheme in form["schemes"]
        if scheme in wanted
    }


def _data(inputs: Sequence[Port], path: str | None) -> tuple[dict[str, Any], list[str]]:
    """The data section, and what the user must check in it."""
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        return _pictures(inputs[0], path or PATHS["image_folder"])
    if inputs and all(port.dtype.startswith("int") and len(port.shape) == 2 for port in inputs):
        length = inputs[0].shape[1] or 64
        section = {"name": "text_tsv", "path": path or PATHS["text_tsv"], "length": length, "tokenizer": "/path/to/tokenizer.json"}
        return section, ["token ids: the tokenizer must be the model's own; its inputs come as input_ids, attention_mask"]
    dtype = "int64" if inputs and inputs[0].dtype.startswith("int") else "float32"
    named = ", ".join(port.name for port in inputs)
    return {"name": "arrays", "path": path or PATHS["arrays"], "dtype": dtype, "splits": dict(SHARES)}, [
        f"one array of shape [n, ...] for each input, in this order: {named}; y are the labels"
    ]


def _pictures(port: Port, path: str) -> tuple[dict[str, Any], list[str]]:
    last, channels, sides = picture(port.shape[1:])
    size = [side or 224 for side in sides]
    low, high = _range(port)
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


def _range(port: Port) -> tuple[int, int]:
    """The usual range nearest to what an integer input stands for; 0..255 for a plain uint8 input, else the commonest."""
    if port.quantization is None:
        return (0, 255) if port.dtype == "uint8" else (0, 1)
    limits, (scale, zero_point) = np.iinfo(port.dtype), port.quantization
    own = np.array([limits.min - zero_point, limits.max - zero_point]) * scale
    return min(RANGES, key=lambda usual: float(np.abs(own - usual).sum() / (usual[1] - usual[0])))
