"""MNN's converter, which lives in the module `_tools` of its wheel, in a process of its own: it may abort, and it prints a lot.

The commands of the wheel (mnnconvert and others) do more: when they start they install a package and report to MNN's makers.
"""

import hashlib
import importlib.util
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgewise.formats.mnn import graph

PROGRAM = "import sys, _tools; _tools.mnnconvert(['mnnconvert', *sys.argv[1:]])"
LACKS = re.compile(r"These Op Not Support: (.*)")
SILENT = "it says nothing"


def convert(arguments: Sequence[str | Path], target: Path) -> None:
    """Run the converter with these arguments, so that it writes the model `target`. ValueError, in MNN's words, if it does not;
    ChildProcessError if it was killed."""
    done = run_converter([*arguments, "--MNNModel", target])
    if done.returncode or not target.exists():
        raise ValueError(f"MNN cannot convert this model: {explain(done.returncode, done.stdout + done.stderr)}")
    make_repeatable(target)


def run_converter(arguments: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """The converter's process, ended. ChildProcessError if it was killed."""
    if importlib.util.find_spec("_tools") is None:
        raise ModuleNotFoundError("MNN is not installed", name="MNN")
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, errors="replace")
    if -done.returncode in (signal.SIGKILL, signal.SIGTERM):
        raise ChildProcessError("MNN's converter was killed; free some memory, then run the same command again")
    return done


def explain(code: int, said: str) -> str:
    """What the converter says of its failure, in one line."""
    lacks = LACKS.search(said)
    if lacks:
        kinds = ", ".join(sorted({name.partition("::")[2] or name for name in lacks[1].split()}))
        return f"it has no operator {kinds}"
    lines = [line.strip() for line in said.splitlines() if "rror" in line or "not support" in line.lower()]
    how = f"it ended with {signal.Signals(-code).name}" if code < 0 else ""
    return "; ".join(filter(None, (how, lines[-1][:300] if lines else ""))) or SILENT


def make_repeatable(path: Path) -> None:
    """Replace the random number that the converter gives to each file (mnn_uuid) by one that follows from the file's content."""
    model = graph.read_file(path)
    data, place = model.data, model.net.text_place(graph.UUID)
    if place is not None:
        start, stop = place
        data[start:stop] = bytes(stop - start)
        data[start:stop] = hashlib.sha256(data).hexdigest()[: stop - start].encode()
        path.write_bytes(data)


def requantize(parent: Path, target: Path, options: Sequence[str], layers: Sequence[Mapping[str, Any]] = ()) -> None:
    """Write the file `target` from the file `parent`. options: further arguments. layers: parameters of quantization, as MNN's
    compressionParamsFile has them; the layers that it does not name stay as they are."""
    ports = graph.read_file(parent).ports
    # level 0: the graph of the float model as it is
    source = ["-f", "MNN", "--modelFile", str(parent), "--optimizeLevel", "0", "--bizCode", ports]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "layers.json")
        path.write_text(json.dumps({"version": "0.0.0", "algo": [{"type": "QUANTIZE", "quantParams": {"layer": list(layers)}}]}))
        more = ["--compressionParamsFile", str(path)] if layers else []
        convert([*source, *options, *more], target)


def change_types(path: Path, numbers: Mapping[str, int]) -> dict[str, int]:
    """Give operators of a file another type. numbers: by name. Returns those that they had."""
    model = graph.read_file(path)
    found = {operator.name: operator for operator in model.operators if operator.name in numbers}
    for name, operator in found.items():
        operator.table.set_integer(graph.TYPE, numbers[name])
    path.write_bytes(model.data)
    return {name: operator.number for name, operator in found.items()}
