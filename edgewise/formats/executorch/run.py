"""Run a model.pte with ExecuTorch on the CPU. Shipped to the device: standard library, numpy, torch and executorch; Python 3.10 and up.

The wheel's runtime takes and gives torch tensors only, so torch is needed beside it. It is used through the compiled module: the public
`executorch.runtime` loads the exporter as well (348 MB and 9 s instead of 212 MB and 2.4 s).
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import weakref
from importlib import metadata
from typing import Any, Dict, Iterator, List, Mapping, Tuple

import numpy as np

RUNTIME = "executorch.extension.pybindings._C"
PACKAGE = "executorch"
OLDEST = "1.5"  # the oldest release that runs these files
COMPANIONS: Dict[str, Tuple[str, str]] = {"torch": ("torch", "2.13")}  # whose libraries the runtime is linked to
ENGINE = {"threads": range(1, 1025)}
AS_WRITTEN = None
REDUCED_PRECISION: Dict[str, Tuple[Any, ...]] = {}
GRID: Tuple[Dict[str, Any], ...] = ()  # `engine: auto` tries fewer threads
GRID_THREADED: Tuple[Dict[str, Any], ...] = ()
MODEL = "model.pte"
METHOD = "forward"
NAMES = "edgewise_names"  # a second method of the file that returns what ExecuTorch does not keep, as JSON: see `read_names`
DTYPES = {  # numbers of torch's scalar types
    **{0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"},
    **{11: "bool", 15: "bfloat16"},
}
BY_NUMPY = {"bfloat16": "float32"}  # what arrays have for a type that numpy lacks

_loaded: "weakref.WeakSet[Session]" = weakref.WeakSet()  # whose threads would be gone with a new pool


class Session:
    """A loaded method. Its batch is that of the file, mostly 1. Floating results come back as float32."""

    def __init__(self, program: Any, method: Any):
        names, about = read_names(program), method.method_meta()
        given = [about.input_tensor_meta(i) for i in range(about.num_inputs())]
        wanted = [about.output_tensor_meta(i) for i in range(about.num_outputs())]
        self.inputs = [_describe(name, tensor) for name, tensor in zip(names["inputs"], given)]
        self.outputs = [_describe(name, tensor) for name, tensor in zip(names["outputs"], wanted)]
        self._program, self._method = program, method  # the program holds the file that the method reads
        self._types = [_torch_type(tensor) for tensor in given]
        _loaded.add(self)

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """One call. feeds: arrays by input name in the file's shapes."""
        import torch

        given = []
        for entry, kind in zip(self.inputs, self._types):
            tensor = torch.from_numpy(np.asarray(feeds[entry["name"]], BY_NUMPY.get(entry["dtype"], entry["dtype"]), order="C"))
            given.append(tensor if tensor.dtype == kind else tensor.to(kind))
        return {entry["name"]: _plain(tensor) for entry, tensor in zip(self.outputs, self._method(given))}


def _describe(name: str, tensor: Any) -> dict[str, Any]:
    return {"name": name, "shape": [int(size) for size in tensor.sizes()], "dtype": DTYPES[tensor.dtype()]}


def _torch_type(tensor: Any) -> Any:
    import torch

    return getattr(torch, DTYPES[tensor.dtype()])


def _plain(tensor: Any) -> np.ndarray:
    array: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return array


def read_names(program: Any) -> Dict[str, Any]:
    """{"inputs", "outputs": names in order, "delegates": of each delegate in order the names of its products with weights, "kernels": by
    the name of an operator outside of delegates those of its calls, null where a call has none}. ValueError for a file without them."""
    try:
        found: Dict[str, Any] = json.loads(program.load_method(NAMES)([])[0])
    except RuntimeError as error:
        raise ValueError(f"{MODEL} does not name its inputs and outputs (method {NAMES}): Edgewise did not write it; {error}") from error
    return found


def kernel_name(names: Mapping[str, Any], packet: str, number: int) -> str:
    """The name of a call of an operator outside of delegates. number: from 1, among the calls of that operator."""
    calls = names["kernels"].get(packet, [])
    return (calls[number - 1] if number <= len(calls) else None) or f"{packet} {number}"


def converts(packet: str) -> bool:
    """Whether an operator outside of delegates only converts between float and integer."""
    return packet.startswith(("quantize_per_", "dequantize_per_", "quantize_affine", "dequantize_affine"))


def load(folder: str, settings: Mapping[str, Any]) -> Session:
    """Load model.pte of `folder`. settings: threads. ValueError for an unknown setting and for a file that the runtime refuses."""
    return Session(*open_method(folder, settings))


def open_method(folder: str, settings: Mapping[str, Any], profiled: bool = False) -> Tuple[Any, Any]:
    """(program, method) of folder/model.pte. profiled: with records of the times of its operators."""
    chosen = dict(settings)
    threads = chosen.pop("threads", 1)
    if chosen:
        raise ValueError(f"unknown engine settings {sorted(chosen)}; allowed: {', '.join(ENGINE)}")
    if threads not in ENGINE["threads"]:
        raise ValueError(f"engine.threads: {threads!r}; allowed: from 1 to 1024")
    runtime, path, said = import_runtime(), os.path.join(folder, MODEL), []  # type: Any, str, List[str]
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with _captured_stderr(said):
            set_threads(runtime, threads)
            checked = runtime.Verification.InternalConsistency
            program = runtime._load_program(path, enable_etdump=profiled, debug_buffer_size=0, program_verification=checked)
            return program, program.load_method(METHOD)
    except RuntimeError as error:
        raise ValueError(f"ExecuTorch refuses {MODEL}: {'; '.join([*_reasons(said), str(error)])}") from error


def set_threads(runtime: Any, threads: int) -> None:
    """Size the one thread pool of the process. ValueError while a model is loaded that uses it with another size."""
    if threads == runtime._threadpool_get_thread_count():
        return
    if len(_loaded):
        raise ValueError(
            f"threads: {threads}; a model with {runtime._threadpool_get_thread_count()} is loaded, and ExecuTorch has one thread pool for"
            " each process: use the same number, or another process"
        )
    runtime._unsafe_reset_threadpool(threads)


def import_runtime() -> Any:
    """The compiled runtime; torch first, whose libraries it is linked to."""
    import torch  # noqa: F401
    from executorch.extension.pybindings import _C

    return _C


@contextlib.contextmanager
def _captured_stderr(said: List[str]) -> Iterator[None]:
    """Add to `said` the lines that the C++ side writes to stderr in the block, by way of Python's or past it: what it finds of the
    processor, and why it refuses a file, of which its exceptions have a number only."""
    words = io.StringIO()
    with tempfile.TemporaryFile() as collected:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(collected.fileno(), 2)
        try:
            with contextlib.redirect_stderr(words):
                yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
            collected.seek(0)
            said += (collected.read().decode(errors="replace") + words.getvalue()).splitlines()


def _reasons(said: List[str]) -> List[str]:
    """The lines without those on the processor and the threads, and without their place in the source: [program.cpp:114] ..."""
    return [line.partition("] ")[2] for line in said if "] " in line and not line.startswith(("[cpuinfo", "[threadpool"))]


def versions() -> dict[str, str]:
    return {PACKAGE: metadata.version(PACKAGE), "torch": metadata.version("torch"), "numpy": np.__version__}
