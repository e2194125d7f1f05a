"""Detectors and a segmenter that learn from nothing, through the whole pipeline: what is found, what 8 bits lose, and how fast each is.

    python -m benchmarks.from_nothing surface                          # generated pictures; nothing else is needed
    python -m benchmarks.from_nothing --shared FOLDER bccd camvid      # FOLDER/bccd (Pascal VOC), FOLDER/camvid (pictures and masks)
    python -m benchmarks.from_nothing --profile quick resnet18

Prints a table for each, for docs/detectors-measured.md. The projects stay in .edgewise/from-nothing. All latencies are measured in turns
with onnx-fp32, on one thread; "faster" is how many times as fast a variant is as the float file of its own format.
"""

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.own_models import ROOT, make_project, repro
from edgewise.agent import machine
from edgewise.artifacts.records import SUMMARY, Summary, VariantSummary, read_summary
from edgewise.errors import DataError, run_main

HOME = ROOT / ".edgewise/from-nothing"
FORMATS = ("onnx", "openvino", "tflite")
REFERENCE = "onnx-fp32"
DETECTOR = {"task": {"name": "detection"}, "model": {"name": "tiny_detector"}, "train": {"name": "detection"}}
RESNET18 = {"embedding_size": 64, "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
COLUMNS = ("variant", "AP50", "Δ points", "lost", "MB", "ratio", "faster")


@dataclass(frozen=True)
class Case:
    """choices: sections of params.yaml. folder: of --shared, that holds the data. slim: settings of `prune` for more variants, if any."""

    choices: Mapping[str, Any]
    folder: str | None = None
    slim: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)

    def params(self, shared: Path, profile: str) -> dict[str, Any]:
        data = {**self.data, **({"path": str(shared / self.folder)} if self.folder else {})}
        fixed = {"device": {"name": "local", "host": None, "threads": 1}, "budget": {"name": "none"}, "reference": REFERENCE}
        return {"seed": 0, **self.choices, "data": data, "bench": {"name": profile}, **fixed, "variants": variants(self.slim)}


CASES = {
    "surface": Case(  # many scenes, each seen a few times: an epoch has ten times as many pictures as with the default settings
        {**DETECTOR, "train": {"name": "detection", "epochs": 6, "ema": 0.995}},
        slim={"macs_share": 0.5, "steps": 1, "epochs": 1},
        data={"name": "surface", "samples": 20_000, "exposures": 1, "splits": {"validation": 0.03, "calibration": 0.02, "test": 0.06}},
    ),
    "bccd": Case(DETECTOR, "bccd", data={"name": "voc", "image_size": [192, 256], "resize": "stretch"}),
    "resnet18": Case(  # how fast it is does not depend on what it has learned, but scores that are all the same fail the proof
        {**DETECTOR, "model": {"name": "tiny_detector", "arguments": RESNET18}, "train": {"name": "detection", "epochs": 8}},
        data={"name": "surface", "samples": 400},
    ),
    "camvid": Case(  # 50 s of one core for an epoch
        {"task": {"name": "segmentation"}, "model": {"name": "segformer_b0"}, "train": {"name": "segmentation", "epochs": 16}},
        "camvid",
        data={"name": "masks", "image_size": [180, 240], "ignore": [11]},
    ),
}


def variants(slim: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Float and 8 bits in each format, and the same pruned. slim: settings of `prune`; empty: not pruned."""
    whole = {f"{name}-{scheme}": {"format": name, "scheme": scheme} for name in FORMATS for scheme in ("fp32", "int8-static")}
    return {**whole, **({f"{name}-slim": {**made, "prune": dict(slim)} for name, made in whole.items()} if slim else {})}


def carry(case: Case, shared: Path, profile: str, folder: Path) -> tuple[Summary, float]:
    """The whole pipeline, and the seconds of its training."""
    make_project(case.params(shared, profile), folder)
    repro(folder, "prepare-data")
    started = time.perf_counter()
    repro(folder, "train-export")
    seconds = time.perf_counter() - started
    repro(folder, "report")
    return read_summary(folder / SUMMARY), seconds


def cells(name: str, summary: Summary) -> list[str]:
    row = summary.variants[name]
    scores = row.quality.scores
    boxes = "ap50" in scores
    score, change, limits = (scores["ap50"], scores.get("ap50_delta"), scores.get("ap50_delta_ci95")) if boxes else of_masks(row)
    lost = scores.get("lost_detections_share")
    low, high = limits or (0.0, 0.0)
    return [
        name,
        f"{score:.3f}",
        "" if name == REFERENCE or change is None else f"{100 * change:+.2f} [{100 * low:+.2f}, {100 * high:+.2f}]",
        "" if name == REFERENCE or lost is None else f"{lost:.1%}",
        f"{(row.file.size_bytes or 0) / 1e6:.2f}",
        *speed(row, summary.variants[f"{row.format}-fp32"]),
    ]


def of_masks(row: VariantSummary) -> tuple[Any, Any, Any]:
    return row.quality.score, row.quality.delta, row.quality.delta_ci95


def speed(row: VariantSummary, whole: VariantSummary) -> list[str]:
    ratio, own = row.latency.ratio_to_reference, whole.latency.ratio_to_reference
    return [f"{ratio:.3f}" if ratio else "-", f"{own / ratio:.2f}" if ratio and own else "-"]


def make_table(summary: Summary) -> str:
    metric = summary.primary_metric
    columns = [metric.title if name == "AP50" and metric and metric.name != "map_50_95" else name for name in COLUMNS]
    made = [name for name, row in summary.variants.items() if row.quality.score is not None]
    lines = ["| " + " | ".join(line) + " |" for line in (columns, ["---"] * len(columns), *(cells(name, summary) for name in made))]
    failed = [f"* {name}: {row.reason}" for name, row in summary.variants.items() if name not in made]
    return "\n".join([*lines, *failed, ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.from_nothing", description="detectors and a segmenter from nothing")
    parser.add_argument("--shared", type=Path, default=Path(), help="the folder with bccd and camvid")
    parser.add_argument("--profile", default="smoke", help="how to measure: smoke claims nothing, quick, standard")
    parser.add_argument("names", nargs="+", choices=CASES, help="which")
    arguments = parser.parse_args()
    facts = machine.facts(())
    for name in arguments.names:
        folder = CASES[name].folder
        if folder and not (arguments.shared / folder).is_dir():
            raise DataError(f"--shared: {arguments.shared} has no folder {folder}; name the folder with the public data")
        summary, seconds = carry(CASES[name], arguments.shared.resolve(), arguments.profile, HOME / name)
        print(f"\n{name}: {facts['cpu']}, profile {arguments.profile}, training {seconds:.0f} s\n\n{make_table(summary)}", flush=True)


if __name__ == "__main__":
    run_main(main)
