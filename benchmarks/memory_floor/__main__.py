"""How little memory a process with a variant needs: peaks of Python, numpy, the runtime, a bundle's infer.py, and of a program in C.

    python -m benchmarks.memory_floor PROJECT [VARIANT ...] [--out docs/smart-camera.md]

Reads   PROJECT: a folder where `dvc repro` has run; without names, each int8-static variant that was made there and measured
Writes  the part of the page between the two markers, or prints it

Each figure is VmHWM, the largest resident set of a process of its own, at its end. infer.py answers one test sample, as on a device.
The programs in C are those of this folder: they load the runtime's library from its Python package, run the variant once on zeros, and
import nothing. They need a C compiler (cc); runtimes whose package has no C library are said to have none.
"""

import argparse
import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from edgewise.agent import machine
from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest
from edgewise.bundle import contents
from edgewise.bundle.assembly import MODELS, sample_input
from edgewise.config import schema
from edgewise.errors import DataError, InfrastructureError, UserError, run_main

HERE = Path(__file__).parent
BEGIN, END = "<!-- floor: python -m benchmarks.memory_floor -->", "<!-- end of floor -->"
SCHEME = "int8-static"
COLUMNS = ("variant", "Python", "+ numpy", "+ runtime", "+ model", "`infer.py`", "in C")
AT_END = """
import atexit, runpy, sys
def report(path=sys.argv[1]):
    with open("/proc/self/status") as status, open(path, "w") as out:
        out.write(next(line.split()[1] for line in status if line.startswith("VmHWM:")))
atexit.register(report)
sys.argv = sys.argv[2:]
"""
NUMPY = AT_END + "import numpy\n"
RUNTIME = (
    NUMPY
    + "import importlib\nsys.path.insert(0, sys.argv[0])\nrun = importlib.import_module(sys.argv[1])\n"
    + "for name in [*run.COMPANIONS, run.RUNTIME]:\n    importlib.import_module(name)\n"
)
MODEL = RUNTIME + "run.load(sys.argv[2], {'threads': 1})\n"
INFER = AT_END + "runpy.run_path(sys.argv[0], run_name='__main__')\n"


def peak_mb(code: str, *arguments: str) -> float:
    """Of a new Python process that runs `code`; arguments: its sys.argv."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "peak"
        done = subprocess.run([sys.executable, "-c", code, str(out), *arguments], capture_output=True, text=True, cwd=folder)
        if done.returncode or not out.is_file():
            raise InfrastructureError(f"python -c ended with code {done.returncode}: {' '.join(done.stderr.split())[-300:]}")
        return kilobytes(out.read_text())


def kilobytes(text: str) -> float:
    """In MB, of the kB of /proc, which are 1024 bytes."""
    return int(text) * 1024 / 1e6


# In C: the library in a runtime's package, and the arguments of the program of this folder


def find_library(package: str, pattern: str) -> str:
    found = sorted(Path(str(resources.files(package))).glob(pattern))
    if not found:
        raise InfrastructureError(f"{package} has no {pattern}")
    return str(found[0])


def for_onnx(folder: Path, made: Manifest) -> list[str]:
    shape = [str(size or 1) for size in made.inputs[0].shape]
    library = find_library("onnxruntime", "capi/libonnxruntime.so*")
    return [library, str(folder / "model.onnx"), made.inputs[0].name, made.outputs[0].name, *shape]


def for_openvino(folder: Path, made: Manifest) -> list[str]:
    return [find_library("openvino", "libs/libopenvino_c.so*"), str(folder / "model.xml")]


def for_tflite(folder: Path, made: Manifest) -> list[str]:
    return [find_library("ai_edge_litert", "libLiteRt.so"), str(folder / "model.tflite")]


PROGRAMS: dict[str, Callable[[Path, Manifest], list[str]]] = {"onnx": for_onnx, "openvino": for_openvino, "tflite": for_tflite}


def peak_in_c(name: str, folder: Path, made: Manifest) -> float | None:
    """None for a runtime whose package has no C library, and for a model that the programs cannot feed."""
    if name not in PROGRAMS or len(made.inputs) > 1:
        return None
    with tempfile.TemporaryDirectory() as place:
        program = f"{place}/{name}"
        subprocess.run(["cc", "-O2", "-o", program, str(HERE / f"{name}.c"), "-ldl"], check=True)
        done = subprocess.run([program, *PROGRAMS[name](folder, made)], capture_output=True, text=True)
    if done.returncode:
        raise InfrastructureError(f"{name}.c failed: {' '.join(done.stderr.split())[-300:]}")
    return kilobytes(done.stdout)


# The table


def measure(name: str, settings: schema.Config, summary: records.Summary) -> list[float | None]:
    """Peaks in MB, in the order of COLUMNS. To be called in the project's folder."""
    chosen = contents.Chosen.read(settings, summary, name, MODELS)
    with tempfile.TemporaryDirectory() as temporary:
        bundle = Path(temporary) / "bundle"
        bundle.mkdir()
        contents.write_contents(chosen, bundle)
        artifact.write(bundle, Manifest(kind="bundle", format=chosen.variant.format, scheme=chosen.variant.scheme))
        contents.write_checksums(bundle)
        runner = (str(bundle / "code"), f"{chosen.variant.module}.run")
        with sample_input(bundle, MODELS / "data") as (folder, words):
            given = [str(folder / word) if isinstance(word, os.PathLike) else word for word in words]
            answered = peak_mb(INFER, str(bundle / "infer.py"), "--", *given)
        return [
            *(peak_mb(AT_END, ""), peak_mb(NUMPY, ""), peak_mb(RUNTIME, *runner), peak_mb(MODEL, *runner, str(bundle / "model"))),
            *(answered, peak_in_c(chosen.variant.format, bundle / "model", chosen.made)),
        ]


def choose(summary: records.Summary, wanted: Sequence[str]) -> list[str]:
    unknown = [name for name in wanted if name not in summary.variants]
    if unknown:
        raise UserError(f"no variant {', '.join(unknown)} in this project; there are {', '.join(summary.variants)}")
    made = {name: row for name, row in summary.variants.items() if row.file.size_bytes}
    return [*wanted] or [name for name, row in made.items() if row.scheme == SCHEME and row.format != "torch"]


def make_table(rows: dict[str, list[float | None]]) -> str:
    cells = [(name, *("none" if peak is None else f"{peak:.1f}" for peak in peaks)) for name, peaks in rows.items()]
    return "\n".join("| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *cells))


def write(page: Path, text: str) -> None:
    """Replace what stands between the markers. DataError for a page without them."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise DataError(f"{page} has no lines {BEGIN!r} and {END!r}, between which the table belongs; add them")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory_floor", description="how little memory a process with a variant needs"
    )
    parser.add_argument("project", type=Path, help="a folder where `dvc repro` has run")
    parser.add_argument("variants", nargs="*", help="without names: each int8-static variant")
    parser.add_argument("--out", type=Path, help="the page whose table is written anew; without it the table is printed")
    arguments = parser.parse_args()
    if not (arguments.project / records.SUMMARY).is_file():
        raise UserError(f"{arguments.project} has no {records.SUMMARY}; run `dvc repro` in it first")
    if not shutil.which("cc"):
        raise InfrastructureError("no C compiler: cc is not on the PATH; install gcc or clang")
    out = arguments.out.resolve() if arguments.out else None
    with contextlib.chdir(arguments.project):
        settings, summary = schema.read(), records.read_summary()
        rows = {name: measure(name, settings, summary) for name in choose(summary, arguments.variants)}
    text = f"Peaks in MB, {machine.facts(())['cpu']}, one thread.\n\n{make_table(rows)}"
    write(out, text) if out else print(text)


if __name__ == "__main__":
    run_main(main)
