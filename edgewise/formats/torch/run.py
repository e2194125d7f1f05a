"""Run a TorchScript file: the standard library, numpy and torch, Python 3.9. This file is shipped to the device."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, Mapping, Tuple

import numpy as np

RUNTIME = "torch"
PACKAGE = "torch"
OLDEST = "2.13"  # the oldest release that runs these files
COMPANIONS: Dict[str, Tuple[str, str]] = {}
ENGINE = {"threads": range(1, 1025), "freeze": (True, False)}
AS_WRITTEN = None
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {}
GRID: Tuple[Dict[str, Any], ...] = ({"freeze": True},)  # what `engine: auto` tries, beside fewer threads
GRID_THREADED: Tuple[Dict[str, Any], ...] = ()
MODEL = "model.pt"
TENSORS = "tensors.json"  # inside the archive: names, shapes and dtypes of inputs and outputs, which TorchScript does not keep


class Session:
    """A loaded module; any batch."""

    def __init__(self, module: Any, tensors: Mapping[str, Any]):
        self._module = module
        self.inputs = tensors["inputs"]
        self.outputs = tensors["outputs"]

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call. feeds: arrays by input name, batch first; floating results are float32."""
        torch = import_torch()
        given = [torch.from_numpy(np.asarray(feeds[entry["name"]], entry["dtype"], order="C")) for entry in self.inputs]
        with torch.inference_mode():
            result = self._module(*given)
        results = result if isinstance(result, tuple) else (result,)
        return {entry["name"]: _plain(tensor) for entry, tensor in zip(self.outputs, results)}


def _plain(tensor: Any) -> np.ndarray:
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load model.pt of `folder`. settings: threads; freeze, to fold weights and batch norms into the graph.
    ValueError for an unknown setting."""
    torch = import_torch()
    chosen = dict(settings)
    torch.set_num_threads(int(chosen.pop("threads", 1)))
    freeze = chosen.pop("freeze", False)
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    stored = {TENSORS: ""}
    module = torch.jit.load(os.path.join(folder, MODEL), map_location="cpu", _extra_files=stored)
    return Session(torch.jit.freeze(module) if freeze else module, json.loads(stored[TENSORS]))


def versions() -> dict[str, str]:
    return {PACKAGE: import_torch().__version__}


def import_torch() -> Any:
    """torch without the warnings of its C++ side: every quantized file would print that quantized tensors are deprecated."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # read once, while torch is imported
    import torch

    return torch
