"""Run an ONNX file with tract on the CPU. Shipped to the device: standard library, numpy and tract only; Python 3.9."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Mapping, Tuple

import numpy as np

RUNTIME = "tract"
PACKAGE = "tract"
OLDEST = "0.23"  # the oldest release that these files were tried with
COMPANIONS: Dict[str, Tuple[str, str]] = {}
MODEL = "model.onnx"
PORTS = "model.json"  # inputs, outputs, and the operators of the file, which tract renames
ENGINE = {"threads": (1,), "precision": ("f32", "f16")}
AS_WRITTEN = None  # no scheme has integer activations
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {"precision": ("f16",)}
GRID: Tuple[Dict[str, Any], ...] = ({"precision": "f16"},)
GRID_THREADED: Tuple[Dict[str, Any], ...] = ()


class Session:
    """One loaded model. Feeds are cast to what the model takes; floating results come back as float32."""

    def __init__(self, folder: str, settings: Mapping[str, Any]):
        half = choose(settings)["precision"] == "f16"
        self.described = read_ports(folder)
        self.inputs: List[Dict[str, Any]] = self.described["inputs"]
        self.outputs: List[Dict[str, Any]] = self.described["outputs"]
        self._given = [(port["name"], np.float16 if half and port["dtype"] == "float32" else port["dtype"]) for port in self.inputs]
        self._error, self.runnable = prepare(os.path.join(folder, MODEL), [port["name"] for port in self.inputs], half)

    def cast(self, feeds: Mapping[str, np.ndarray]) -> List[np.ndarray]:
        """The feeds in the order and with the types that the model takes."""
        return [np.ascontiguousarray(feeds[name], kind) for name, kind in self._given]

    def run(self, feeds: Mapping[str, np.ndarray]) -> Dict[str, np.ndarray]:
        try:
            results = [tensor.to_numpy() for tensor in self.runnable.run(self.cast(feeds))]
        except self._error as error:
            raise RuntimeError(shorten(error)) from error
        return {port["name"]: _plain(array) for port, array in zip(self.outputs, results)}


def read_ports(folder: str) -> Dict[str, Any]:
    """The content of model.json: {"inputs", "outputs": lists of {"name", "shape", "dtype"}, "operators"}. ValueError for a damaged file."""
    try:
        with open(os.path.join(folder, PORTS), encoding="utf-8") as file:
            described: Dict[str, Any] = json.load(file)
    except ValueError as error:
        raise ValueError(f"{PORTS} is damaged ({error}); convert the model again") from error
    return described


def prepare(path: str, names: List[str], half: bool) -> Tuple[Any, Any]:
    """The exception of tract, and the model ready to run. names: of the inputs in order. RuntimeError where tract refuses the file."""
    import tract

    try:
        model = tract.onnx().load(path).into_model()
        found = [model.input_name(place) for place in range(model.input_count())]
        if found != names:
            raise RuntimeError(f"{path} takes {', '.join(found)}, and {PORTS} says {', '.join(names)}: convert the model again")
        if half:
            model.transform("f32_to_f16")
        return tract.TractError, model.into_runnable()
    except tract.TractError as error:
        raise RuntimeError(shorten(error)) from error


def shorten(error: Exception) -> str:
    """What tract says, in one line and without its stack."""
    return " ".join(str(error).partition("Stack backtrace")[0].split())


def _plain(array: np.ndarray) -> np.ndarray:
    return np.array(array, np.float32 if array.dtype.kind == "f" else array.dtype)


def choose(settings: Mapping[str, Any]) -> Dict[str, Any]:
    """Settings as in ENGINE, with defaults. ValueError for an unknown setting or value."""
    unknown = sorted(set(settings) - set(ENGINE))
    if unknown:
        raise ValueError(f"unknown engine settings {unknown}; allowed: {', '.join(ENGINE)}")
    chosen = {key: settings.get(key, allowed[0]) for key, allowed in ENGINE.items()}
    for key, value in chosen.items():
        if value not in ENGINE[key]:
            raise ValueError(f"engine.{key}: {value!r}; allowed: {', '.join(map(str, ENGINE[key]))}")
    return chosen


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load folder/model.onnx; settings as for `choose`. RuntimeError where tract refuses the file."""
    return Session(folder, settings)


def versions() -> Dict[str, str]:
    import tract

    return {PACKAGE: tract.version(), "numpy": np.__version__}
