"""Claims about the engine, memory and power."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.article import release
from benchmarks.article.findings import (
    NOISY,
    OPEN,
    PARTLY,
    RIGHT,
    UNTESTED,
    WRONG,
    Finding,
    all_of,
    at_least,
    format_speedup,
    less,
    spanned,
    speedup,
)
from benchmarks.article.project import ROOT, Made, Project, Span, peaks
from edgewise.agent import machine, power
from edgewise.measure.passes import make_energy

FASTER, DIVIDED, LESS_POWER = 5.0, 4.0, 40.0
POWER_S = 10.0
RELEASES = 5
FREED = 0.5  # of what the model took: from here on a step is said to free it
UNTUNED = {"graph_optimization": "disable", "arena": False, "memory_pattern": False, "prepacking": False}
# what is compared in each format: its own settings as Edgewise has them, and the best or worst that can be set
ENGINES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "torch, compiled (TorchScript)": ("torch-fp32", {}),
    "torch, compiled and frozen": ("torch-fp32", {"freeze": True}),
    "ONNX Runtime": ("onnx-fp32", {}),
    "ONNX Runtime, everything off": ("onnx-fp32", UNTUNED),
    "TFLite": ("tflite-fp32", {}),
    "TFLite without XNNPACK": ("tflite-fp32", {"xnnpack": False}),
    "OpenVINO": ("openvino-fp32", {}),
}
SHORTENED = ("OpenVINO, computing in bf16", ("openvino-fp32", {"inference_precision": "bf16"}))  # its own default where it is fast
BF16 = {"amx_bf16", "avx512_bf16"}


def engine(made: Made) -> Finding:
    camera = made()
    asked = dict(ENGINES) | (dict([SHORTENED]) if BF16 & set(machine.facts([])["isa"]) else {})
    found = {label: camera.against_eager(camera.subject(name, settings)) for label, (name, settings) in asked.items()}
    rows = [[label, f"{ratio.p50_ms:.2f}", format_speedup(ratio), ratio.grade] for label, ratio in found.items()]
    best = min(found, key=lambda label: found[label].value)
    times, low, high = speedup(found[best])
    worst = max(found, key=lambda label: found[label].value)
    steady = all(ratio.grade != NOISY for ratio in found.values())
    return Finding(
        "Choosing and tuning the engine makes the model 5 times as fast (1.2 s to 0.23 s).",
        "A ResNet-18 in float32 at 224x224, batch 1, one thread: PyTorch called eagerly against each engine, with its own settings and "
        "with those that should be best or worst; fresh processes, interleaved, with the 95 % interval of the ratio.",
        ("engine", "p50 ms", "times as fast as eager torch", "grade"),
        rows,
        at_least(low, high, FASTER) if steady else OPEN,
        f"the best, {best}, is {times:.2f} [{low:.2f}, {high:.2f}] times as fast as eager torch, and "
        f"{found[worst].value / found[best].value:.1f} times as fast as the worst, {worst}.",
    )


def split(made: Made) -> Finding:
    camera = made()
    names = ("torch-fp32", "onnx-fp32", "tflite-fp32")
    rows, factors = [], {}
    for name in names:
        (whole, whole_all), *cut = [peaks(camera.subject(name + more)) for more in ("", "-3", "-4")]
        for parts, (above, everything) in zip((3, 4), cut, strict=True):
            factors[name, parts] = Span(whole.middle / above.middle, whole.low / above.high, whole.high / above.low)
            row = [name, str(parts), spanned(whole), spanned(above), f"{factors[name, parts].middle:.2f}"]
            rows.append([*row, less(whole_all.middle, everything.middle)])
    (name, parts), best = max(factors.items(), key=lambda item: item[1].middle)
    return Finding(
        "Loading the model in parts divides its memory by four.",
        "A ResNet-18 in float32, whole and in 3 and 4 parts of about equal bytes that are loaded, run and released one after the other; "
        "highest resident memory above what the import of the runtime takes, in fresh processes: median [lowest, highest].",
        ("variant", "parts", "whole, MB", "in parts, MB", "divided by", "peak of the whole process"),
        rows,
        at_least(best.low, best.high, DIVIDED),
        f"the most is a division by {best.middle:.2f} [{best.low:.2f}, {best.high:.2f}] ({name}, {parts} parts): the largest layers and "
        "what is computed between the parts do not shrink.",
    )


def free(made: Made) -> Finding:
    camera = made()
    files = [str(camera.models / name) for name in ("source", "inputs.npz")]
    camera.subject(camera.configuration.reference)  # writes the inputs
    command = [sys.executable, "-m", release.__name__, *files]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    runs = [json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout) for _ in range(RELEASES)]
    before = dict(zip(release.STEPS[1:], release.STEPS, strict=False))
    took = Span.of([(run[release.LOADED] - run[release.IMPORTED]) / 1e6 for run in runs])
    change = {step: Span.of([(run[step] - run[before[step]]) / 1e6 for run in runs]) for step in release.STEPS[1:]}
    resident = {step: Span.of([run[step] / 1e6 for run in runs]) for step in release.STEPS}
    rows = [[step, spanned(resident[step]), spanned(change[step]) if step in change else ""] for step in release.STEPS]
    shares = {step: (-change[step].high / took.middle, -change[step].low / took.middle) for step in (release.DELETED, release.EMPTIED)}
    verdicts = {step: at_least(low, high, FREED) for step, (low, high) in shares.items()}
    return Finding(
        "`del model` and `torch.cuda.empty_cache()` free memory on a CPU.",
        "A ResNet-18 is loaded and run once in a fresh process, then each step is done and resident memory read; "
        f"median [lowest, highest] of {RELEASES} processes. A step frees the model if it gives back at least {FREED:.0%} of what loading "
        "took.",
        ("after", "resident, MB", "change, MB"),
        rows,
        all_of(list(verdicts.values())),
        "; ".join(f"{step} gives back {max(0.0, -change[step].middle):.1f} of {took.middle:.1f} MB" for step in shares) + ".",
    )


def check_power(made: Made) -> Finding:
    found = power.find()
    readable = [source.name for source in found if not source.problem]
    claim = "The model takes 40 % less power (3.2 W to 1.9 W)."
    board = "dvc exp run -S device.name=ssh -S device.host=BOARD -S +bench.energy_s=10"
    how = f"Sensors of energy and power on this machine: {len(found)}, of which {len(readable)} can be read."
    if not readable:
        seen = "; ".join(f"{source.name}: {source.problem}" for source in found) or "no sensor here"
        return Finding(claim, how, (), (), UNTESTED, f"{seen}. An estimate would be no measurement.", board)
    return powered(made(), claim, how, board)


def powered(camera: Project, claim: str, how: str, board: str) -> Finding:
    """With a sensor: eager torch against the fastest int8 that Edgewise makes of it."""
    subjects = {"torch-fp32": camera.subject("torch-fp32"), "onnx-int8-static": camera.subject("onnx-int8-static")}
    measured = {name: make_energy(subject.energy(POWER_S)) for name, subject in subjects.items()}
    problems = [f"{name}: {energy.status}" for name, energy in measured.items() if energy.figures is None]
    if problems:
        return Finding(claim, how, (), (), UNTESTED, f"{'; '.join(problems)}.", board)
    figures = {name: energy.figures for name, energy in measured.items() if energy.figures}
    rows = [[name, f"{f.idle_w:.2f}", f"{f.mean_w:.2f}", f"{f.net_mj:.1f}"] for name, f in figures.items()]
    before, after = (found.mean_w for found in figures.values())
    return Finding(
        claim,
        f"{how} Mean power while the model runs without pause, {POWER_S:g} s each, by {figures['torch-fp32'].source}.",
        ("variant", "idle W", "W under load", "mJ an inference above idle"),
        rows,
        WRONG if 100 * (1 - after / before) < LESS_POWER else PARTLY if after >= before else RIGHT,
        f"power under load changed by {less(before, after)}; what an inference costs is in the last column.",
        board,
    )
