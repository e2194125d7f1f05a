"""Run an ncnn model: the standard library, numpy and ncnn, Python 3.9. This file is shipped to the device.

model.json beside model.param says what the runtime does not keep: shapes, types, and the axis of samples, which its blobs do not have.
"""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Iterable, List, Mapping, Tuple

import numpy as np

RUNTIME = "ncnn"
PACKAGE = "ncnn"
OLDEST = "1.0.20261020"  # the oldest release that runs these files: 1.0.20260526 refuses weights in blocks
COMPANIONS: Dict[str, Tuple[str, str]] = {}
PARAM, BIN, PORTS = "model.param", "model.bin", "model.json"
MAGIC = "7767517"  # the first line of a .param
PRECISIONS = ("f32", "f16", "bf16")
ENGINE = {
    "threads": range(1, 1025),
    "precision": PRECISIONS,
    "winograd": (True, False),
    "sgemm": (True, False),
    "packing": (True, False),
    "light": (True, False),
    "spinning": (False, True),
}
AS_WRITTEN = {"winograd": False, "sgemm": False, "packing": False}  # plain loops over the integers of the file
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {"precision": ("f16", "bf16")}
# what `engine: auto` tries, point by point; the second only where more than one thread may be used
GRID: Tuple[Dict[str, Any], ...] = (
    {"winograd": False},
    {"precision": "f16"},  # where the outputs stay within the scheme's tolerance
    {"precision": "bf16"},
    {"winograd": False, "precision": "bf16"},
    {"sgemm": False},
    {"packing": False},
)
GRID_THREADED: Tuple[Dict[str, Any], ...] = ({"spinning": True},)


class Session:
    """One loaded net, which takes one sample at a time."""

    def __init__(self, net: Any, ports: Mapping[str, List[Dict[str, Any]]]):
        self._net, self._given, self._wanted = net, ports["inputs"], ports["outputs"]
        self.inputs, self.outputs = ([_describe(port) for port in side] for side in (self._given, self._wanted))

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        """One sample, in the shapes of the source. Integers are given as 32 bits; results are float32. RuntimeError where the runtime
        refuses it."""
        extractor = start(self._net, self._given, feeds)
        return {port["name"]: extract(extractor, port) for port in self._wanted}


def start(net: Any, given: List[Dict[str, Any]], feeds: Mapping[str, np.ndarray]) -> Any:
    """An extractor that has its inputs. ValueError for another shape than the file's."""
    import ncnn

    extractor = net.create_extractor()
    for port in given:
        array = np.asarray(feeds[port["name"]])
        if list(array.shape) != port["shape"]:
            raise ValueError(f"input {port['name']}: shape {list(array.shape)}; the file takes {port['shape']}")
        plain = np.ascontiguousarray(_without_axis(array, port["axis"]), port["held"])
        extractor.input(port["blob"], ncnn.Mat(plain).clone())  # the runtime aligns channels in its own copy
    return extractor


def extract(extractor: Any, port: Mapping[str, Any]) -> np.ndarray:
    """An output in the shape of the source, float32. RuntimeError where the runtime cannot compute it."""
    (values,) = read_blobs(extractor, [port["blob"]]).values()
    return values.astype(np.float32, copy=False).reshape(port["shape"])


def read_blobs(extractor: Any, blobs: Iterable[str]) -> Dict[str, np.ndarray]:
    """Copies of blobs as floats; the extractor keeps its own until it is freed, which must be before its net is. RuntimeError where the
    runtime cannot compute one."""
    found = {}
    for blob in blobs:
        code, held = extractor.extract(blob)
        if code:
            raise RuntimeError(f"ncnn cannot compute blob {blob}: code {code}; its message is on stderr")
        found[blob] = np.array(held)
    return found


def _without_axis(array: np.ndarray, axis: Any) -> np.ndarray:
    """The one sample, without the axis that counts samples; None: there is no such axis."""
    return array if axis is None else array.take(0, axis)


def _describe(port: Mapping[str, Any]) -> Dict[str, Any]:
    return {key: port[key] for key in ("name", "shape", "dtype")}


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load the net of `folder`; settings as for `open_net`."""
    return Session(open_net(folder, settings), read_ports(folder))


def read_ports(folder: str) -> Dict[str, List[Dict[str, Any]]]:
    """The content of model.json: {"inputs", "outputs": lists of {"name", "shape", "dtype" as the source has it, "blob", "held": its type in
    the net, "axis": that of samples, which the blob lacks, or None}}. ValueError for a damaged file."""
    try:
        with open(os.path.join(folder, PORTS), encoding="utf-8") as stream:
            ports: Dict[str, List[Dict[str, Any]]] = json.load(stream)
    except ValueError as error:
        raise ValueError(f"{PORTS} is damaged ({error}); make the variant again") from error
    return ports


def open_net(folder: str, settings: Mapping[str, Any]) -> Any:
    """An ncnn.Net. settings: as in ENGINE; conf/format/ncnn.yaml says what they mean.

    Floats are computed in float32 unless asked otherwise: ncnn itself rounds them to float16 between operators, and calls that fp32.
    ValueError for an unknown setting or value; RuntimeError where the runtime refuses the files.
    """
    chosen = dict(settings)
    precision, spinning = _take(chosen, "precision", "f32"), _take(chosen, "spinning", False)
    options = {
        "num_threads": _take(chosen, "threads", 1),
        "use_winograd_convolution": _take(chosen, "winograd", True),
        "use_sgemm_convolution": _take(chosen, "sgemm", True),
        "use_packing_layout": _take(chosen, "packing", True),
        "lightmode": _take(chosen, "light", True),
        "use_vulkan_compute": False,
        **{f"use_fp16_{part}": precision == "f16" for part in ("storage", "packed", "arithmetic")},
        **{f"use_bf16_{part}": precision == "bf16" for part in ("storage", "packed")},
    }
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    if options["num_threads"] > 1 and not spinning:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # which OpenMP reads once, when ncnn is imported
    import ncnn

    net = ncnn.Net()
    for name, value in options.items():
        setattr(net.opt, name, value)
    _load_files(net, folder)
    return net


def _take(chosen: Dict[str, Any], key: str, usual: Any) -> Any:
    """Take one setting out of `chosen`. ValueError for a value that ENGINE does not have."""
    value, allowed = chosen.pop(key, usual), ENGINE[key]
    if value not in allowed or isinstance(value, bool) != isinstance(usual, bool):
        told = f"from {allowed[0]} to {allowed[-1]}" if isinstance(allowed, range) else ", ".join(map(str, allowed))
        raise ValueError(f"engine.{key}: {value!r}; allowed: {told}")
    return value


def _load_files(net: Any, folder: str) -> None:
    param = os.path.join(folder, PARAM)
    with open(param, "rb") as stream:
        text = stream.read().decode("utf-8", "replace")
    if text.split("\n", 1)[0].strip() != MAGIC:
        raise RuntimeError(f"{PARAM} is not a .param file of ncnn: its first line is not {MAGIC}; make the variant again")
    if net.load_param(param):
        raise RuntimeError(f"ncnn refuses {PARAM}: {_find_fault(text)}")
    os.stat(os.path.join(folder, BIN))  # FileNotFoundError, where ncnn says that the file is short
    if net.load_model(os.path.join(folder, BIN)):
        raise RuntimeError(f"ncnn refuses {BIN}: it is shorter than {PARAM} says, or of another model; make the variant again")


def _find_fault(text: str) -> str:
    """Why a .param is refused: it counts more layers than it has, or names an operator that this release lacks."""
    import ncnn

    lines = [line.split() for line in text.splitlines()[1:] if line.strip()]
    unknown = sorted({line[0] for line in lines[1:] if ncnn.layer_to_index(line[0]) < 0})
    if unknown:
        return f"this release has no operator {', '.join(unknown)}; use the release that wrote it or a later one"
    counted = int(lines[0][0]) if lines and lines[0][0].isdigit() else 0
    if counted != len(lines) - 1:
        return f"it counts {counted} layers and has {len(lines) - 1}, so it is truncated; make the variant again"
    return "its message is on stderr"


def versions() -> Dict[str, str]:
    import ncnn

    return {"ncnn": ncnn.__version__, "numpy": np.__version__}
