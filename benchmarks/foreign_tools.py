"""Our median compared with that of a tool from the runtime itself: benchmark_app (OpenVINO), litert-benchmark (LiteRT).

benchmark_app compiles for one fixed batch: give the variant `engine: {static_batch: true}` for a fair comparison (else 1.11 of its
median). By default it computes in bf16 where the processor can, in half the time; it is told to use float32, as the variants do.
"""

import contextlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from edgewise.config import schema
from edgewise.measure.runs import PlacedVariant

Subjects = Callable[..., contextlib.AbstractContextManager[list[PlacedVariant]]]
SECONDS, RUNS, WARMUP_RUNS = 2, 300, 100
BIN = Path(sys.executable).parent


def benchmark_app(folder: Path, threads: int) -> float:
    """Median of one synchronous inference, ms: what benchmark_app of the openvino package prints as "Median"."""
    model = next(path for path in (folder / "model.xml", folder / "model.onnx") if path.exists())
    shape = ",".join(map(str, _first_shape(folder)))
    with tempfile.TemporaryDirectory() as out:
        command: list[str | Path] = [
            BIN / "benchmark_app",
            "-m",
            model,
            "-api",
            "sync",
            "-hint",
            "none",
            "-nstreams",
            "1",
            "-t",
            str(SECONDS),
        ]
        command += [
            "-nthreads",
            str(threads),
            "-infer_precision",
            "f32",
            "-shape",
            f"[{shape}]",
            "-report_type",
            "no_counters",
            "-json_stats",
            "-report_folder",
            out,
        ]
        subprocess.run(command, check=True, capture_output=True)
        report = json.loads(Path(out, "benchmark_report.json").read_text(encoding="utf-8"))
    return float(report["execution_results"]["latency (ms)"])


def litert_benchmark(folder: Path, threads: int) -> float:
    """Median of one inference, ms, as litert-benchmark of the ai-edge-litert package reports it."""
    with tempfile.TemporaryDirectory() as out:
        result = Path(out, "result.json")
        command: list[str | Path] = [
            BIN / "litert-benchmark",
            "--model",
            folder / "model.tflite",
            "--num_runs",
            str(RUNS),
            "--warmup_runs",
            str(WARMUP_RUNS),
        ]
        subprocess.run([*command, "--num_threads", str(threads), "--result_json", result], check=True, capture_output=True)
        return float(json.loads(result.read_text(encoding="utf-8"))["latency"]["median_ms"])


TOOLS: dict[str, Callable[[Path, int], float]] = {".xml": benchmark_app, ".tflite": litert_benchmark}


def _first_shape(folder: Path) -> list[int]:
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    return [size or 1 for size in manifest["inputs"][0]["shape"]]


def tool_of(folder: Path) -> tuple[str, Callable[[Path, int], float]]:
    for suffix, tool in TOOLS.items():
        if (folder / f"model{suffix}").exists():
            return tool.__name__, tool
    raise SystemExit(f"{folder}: no tool for this format; there are tools for {', '.join(TOOLS)}")


def at_a_stretch(bench: schema.Bench) -> schema.Bench:
    """The same time in one block, as tools measure that do not take turns."""
    return replace(bench, blocks=1, block_s=bench.blocks * bench.block_s)


def compare(settings: schema.Config, names: Sequence[str], bench: schema.Bench, repeats: int, subjects: Subjects) -> str:
    """Interleaved, one process of ours and one of theirs in turn; the medians over the processes, and their ratio."""
    threads = settings.device.settings["threads"]
    with subjects(settings, names, bench) as measured:
        rows = [row(variant, bench, threads, repeats) for variant in measured]
    head = ["| variant | tool | ours ms | theirs ms | ours / theirs | spread of the pairs |", "|---|---|---|---|---|---|"]
    return "\n".join(head + rows)


def row(variant: PlacedVariant, bench: schema.Bench, threads: int, repeats: int) -> str:
    folder = Path("models/variants") / variant.name
    label, tool = tool_of(folder)
    pairs = np.array([_pair(variant, bench, partial(tool, folder, threads), order) for order in range(repeats)])
    ratios, (ours, theirs) = pairs[:, 0] / pairs[:, 1], np.median(pairs, axis=0)
    spread = f"{ratios.min():.3f} .. {ratios.max():.3f}"
    return f"| {variant.name} | {label} | {ours:.3f} | {theirs:.3f} | {np.median(ratios):.3f} | {spread} |"


def _pair(variant: PlacedVariant, bench: schema.Bench, theirs: Callable[[], float], order: int) -> tuple[float, float]:
    def ours() -> float:
        return float(np.median(np.concatenate(variant.latency(at_a_stretch(bench)).blocks_ms)))

    if order % 2:
        second = theirs()
        return ours(), second
    return ours(), theirs()
