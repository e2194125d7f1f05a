"""Public models and data, used as a user would: each runs through the full pipeline; writes docs/own-models.md.

    python -m benchmarks.own_models --data DIR [--profile quick] [--out docs/own-models.md] [mnist resnet8 mobilenet sst2]

Reads   DIR: mnist_test, cifar10_test, sst2, pretrained (see benchmarks/own_cases.py)
Writes  the page; the projects stay in .edgewise/own-models, so the same command goes on from there, and another profile
        only measures again

The page shows latencies of profiles with intervals (quick, standard) if the run was not noisy.
"""

import argparse
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.own_cases import Case, cases
from edgewise.agent import machine
from edgewise.artifacts import artifact
from edgewise.artifacts.records import SUMMARY, Summary, VariantSummary, read_summary
from edgewise.errors import DataError, InfrastructureError, run_main
from edgewise.sweep import clone
from edgewise.sweep.clone import DVC, environment, take_snapshot
from edgewise.sweep.start import dvc_cache_folder

ROOT = Path(__file__).parents[1]
HOME = ROOT / ".edgewise/own-models"
HEAD = """# Public models, brought as a user would

Good for: what to expect of a small ONNX file, a Keras model, a quantized TFLite file and a text model. Each ran through the whole pipeline.

Sizes are of all files of a variant, changes against the float32 of the same format. Δ is the difference to the model's reference (the row
with [+0.00, +0.00]), on the same samples, in points with its 95 % interval. A dash: not measured yet.

Written by `python -m benchmarks.own_models --data DIR` from public files that are not part of this repository.
"""
COLUMNS = ("model", "variant", "accuracy", "Δ points", "kB", "size", "p50 ms", "ratio")
POINTS, SHARE = 2.0, 0.75  # target of an int8 text model: at most so many points lost, at least this share smaller


def make_project(params: Mapping[str, Any], folder: Path) -> None:
    """A clone that shares the project's cache. params: the content of params.yaml."""
    parent = clone.Parent(ROOT, take_snapshot(ROOT), dvc_cache_folder(ROOT))
    clone.make_clone(parent, folder, yaml.safe_dump(dict(params), sort_keys=False))


def repro(folder: Path, stage: str) -> None:
    """What a stage needs, and the stage. InfrastructureError if it fails."""
    done = subprocess.run((*DVC, "repro", stage), cwd=folder, env=environment(folder))
    if done.returncode:
        raise InfrastructureError(f"{folder.name}: `dvc repro` ended with exit code {done.returncode}, see above")


def carry(params: Mapping[str, Any], folder: Path) -> Summary:
    """The whole pipeline in a clone."""
    make_project(params, folder)
    repro(folder, "report")
    return read_summary(folder / SUMMARY)


def shrunk(name: str, summary: Summary) -> float | None:
    """Size of a variant as a share of the float32 of its format."""
    row = summary.variants[name]
    whole = summary.variants.get(f"{row.format}-fp32")
    return (
        row.file.size_bytes / whole.file.size_bytes
        if whole and whole.file.size_bytes and row.file.size_bytes and name != f"{row.format}-fp32"
        else None
    )


def cells(label: str, name: str, summary: Summary) -> list[str]:
    row, share = summary.variants[name], shrunk(name, summary)
    if row.quality.score is None:
        return [label, name, f"failed: {row.reason}", *["-"] * 5]
    change = "-" if share is None else f"{100 * (share - 1):+.1f} %"
    return [
        label,
        name,
        f"{row.quality.score:.2%}",
        loss(row),
        f"{row.file.size_bytes / 1000:,.1f}" if row.file.size_bytes else "-",
        change,
        *speed(row),
    ]


def loss(row: VariantSummary) -> str:
    if row.quality.delta is None or row.quality.delta_ci95 is None:
        return "-"
    low, high = row.quality.delta_ci95
    return f"{100 * row.quality.delta:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]"


def speed(row: VariantSummary) -> list[str]:
    """p50 and ratio, where the profile has intervals."""
    if row.latency.p50_ms is None or row.latency.ratio_ci95 is None or (row.noise and row.noise.grade == "noisy"):
        return ["-", "-"]
    low, high = row.latency.ratio_ci95
    return [f"{row.latency.p50_ms:.3g}", f"{row.latency.ratio_to_reference:.3f} [{low:.3f}, {high:.3f}]"]


def table(case: Case, found: dict[str, Summary]) -> str:
    rows = [cells(label, name, summary) for label, summary in found.items() for name in summary.variants]
    lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    warned = [f"* {label}: {warning}" for label, summary in found.items() for warning in summary.warnings if "preprocessed" in warning]
    return "\n".join([f"\n## {case.title}\n", f"{case.description}\n", *lines, *warned, ""])


def verdict(found: dict[str, Summary]) -> str:
    """Which 8-bit variants of the text model are as small as is said of them, to the nearest percent, and as good."""
    ((_, summary),) = found.items()
    eight = {n: (row, shrunk(n, summary)) for n, row in summary.variants.items() if "int8" in n and row.quality.delta is not None}
    good = [n for n, (row, share) in eight.items() if share and round(1 - share, 2) >= SHARE and 100 * -(row.quality.delta or 0) <= POINTS]
    short = [f"{n} ({100 * (share - 1):+.1f} %)" for n, (_, share) in eight.items() if share and round(1 - share, 2) < SHARE]
    worse = [
        f"{n} ({100 * (row.quality.delta or 0):+.2f} points)" for n, (row, _) in eight.items() if 100 * -(row.quality.delta or 0) > POINTS
    ]
    said = {f"{SHARE:.0%} smaller with at most {POINTS:.0f} points lost": good, "Not as small": short, "Loses more": worse}
    return "\n" + " ".join(f"{what}: {', '.join(names) or 'none'}." for what, names in said.items()) + "\n"


def answers(found: dict[str, Summary]) -> str:
    """What the model took each photograph for, and with which certainty."""
    folder = HOME / "mobilenet-0/models/evaluate/tflite-int8-static"
    labels = artifact.read(folder).labels
    pairs = zip(np.load(folder / "targets.npy"), np.load(folder / "outputs.npz")["logits"], strict=True)
    lines = [f"| {labels[target]} | {labels[scores.argmax()]} | {scores.max():.0%} |" for target, scores in pairs]
    return "\n".join(["", "| what it is | what it was taken for | score |", "| --- | --- | --- |", *lines, ""])


FINDINGS = {"sst2": verdict, "mobilenet": answers}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.own_models", description="public models through the whole pipeline")
    parser.add_argument("--data", type=Path, required=True, help="the folder with mnist_test, cifar10_test, sst2 and pretrained")
    parser.add_argument("--profile", default="smoke", help="how to measure: smoke claims nothing, quick, standard")
    parser.add_argument("--out", type=Path, default=None, help="the page to write; without it the tables are printed")
    parser.add_argument("names", nargs="*", help="which; all without it")
    arguments = parser.parse_args()
    if not (arguments.data / "pretrained").is_dir():
        raise DataError(f"--data: {arguments.data} has no folder pretrained; name the folder with the public files")
    chosen = cases(arguments.data.resolve(), HOME / "photographs")
    facts = machine.facts(())
    page = [HEAD, f"\nMachine: {facts['cpu']} ({', '.join(facts['isa'])}), profile {arguments.profile}.\n"]
    for name in arguments.names or chosen:
        runs = {
            label: carry(run.params(arguments.profile), HOME / f"{name}-{n}") for n, (label, run) in enumerate(chosen[name].runs.items())
        }
        page += [table(chosen[name], runs), FINDINGS[name](runs) if name in FINDINGS else ""]
    text = "".join(page)
    arguments.out.write_text(text, encoding="utf-8") if arguments.out else print(text)


if __name__ == "__main__":
    run_main(main)
