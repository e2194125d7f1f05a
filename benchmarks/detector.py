"""YOLOX-Nano in every format and scheme that its file reaches: mean average precision, what is lost of its detections, size and speed.

    python -m benchmarks.detector --shared FOLDER --prepare              make and score all variants, and measure nothing: at any time
    python -m benchmarks.detector --shared FOLDER --out docs/detectors-measured.md      the rest, on a quiet machine
    python -m benchmarks.detector --shared FOLDER --only onnx openvino --profile smoke

Reads   FOLDER/pretrained/yolox/yolox_nano.onnx; FOLDER/coco128, whose val is the test split and whose train the calibration
Writes  the tables of the page, below its heading Measured, or prints them; the project stays in .edgewise/detector

Of each format's int8-static there is also the variant `naive`: everything in 8 bits, ranges from the extremes, as the tool does it by
itself. A format whose packages are missing, or that reads no ONNX file, is named and left out. Latencies are shown where the profile has
intervals and the machine was quiet.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.own_models import ROOT, carry, make_project, repro, speed
from edgewise.agent import machine
from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.config import runtimes
from edgewise.config.compose import Options
from edgewise.config.schema import part
from edgewise.errors import DataError, run_main

HOME = ROOT / ".edgewise/detector"
MARK = "## Measured"
FILE, DATA = "pretrained/yolox/yolox_nano.onnx", "coco128/data.yaml"
STATIC = "int8-static"
EXPLAINED = (STATIC, "int8-mixed")
LEFT_OUT = ("int8-qat",)  # needs a torch source
REFERENCE = "onnx-fp32"
METHOD = "mean"  # of the extremes, where the format has it: minmax stays below the 3 dB that int8-static asks for
MIXED_DB = 14  # loses less than a twentieth of the detections; the 20 dB of conf/ leave little of this net in 8 bits
NAIVE = {"tail": "int8", "spread": "int8"}  # where the format has these settings
LEGEND = (
    f"Lost: of the detections above the reference's own threshold. Ratio: to {REFERENCE}. `int8-mixed` has `sqnr_db: {MIXED_DB}`, the"
    " others their defaults but for `calibration.method: mean`; `naive` has everything in 8 bits and ranges from the extremes."
)
COLUMNS = ("variant", "AP", "Δ points", "AP50", "lost", "score shift", "MB", "p50 ms", "ratio")


def reads_onnx(name: str, modules: Mapping[str, str]) -> bool:
    """Whether an ONNX file becomes a model of the format, by way of others if need be."""
    made_of = part(modules[name], "make").SOURCES
    return "onnx" in made_of or any(other in modules and other != name and reads_onnx(other, modules) for other in made_of)


def choose_variants(modules: Mapping[str, str], samples: int) -> dict[str, dict[str, Any]]:
    """The section `variants` of params.yaml. modules: of the formats, by name."""
    found: dict[str, dict[str, Any]] = {}
    for name, module in modules.items():
        make = part(module, "make")
        for scheme in (scheme for scheme in make.SCHEMES if scheme not in LEFT_OUT):
            allowed = make.SETTINGS.get(scheme, {})
            method = {"method": METHOD} if METHOD in allowed.get("calibration.method", ()) else {}
            calibrated = {"calibration": {"samples": samples, **method}} if "calibration.method" in allowed else {}
            limit = {"mixed": {"sqnr_db": MIXED_DB}} if scheme == "int8-mixed" else {}
            found[f"{name}-{scheme}"] = {"format": name, "scheme": scheme, **calibrated, **limit}
            if scheme == STATIC:
                plain: dict[str, Any] = {"calibration": {"samples": samples, "method": "minmax"}} if method else {}
                plain |= {key: value for key, value in NAIVE.items() if key in allowed}
                found |= {f"{name}-{scheme}-naive": {**found[f"{name}-{scheme}"], **plain}} if plain else {}
            if scheme == STATIC and "tool" in allowed:
                found[f"{name}-{scheme}-nncf"] = {**found[f"{name}-{scheme}"], "tool": "nncf"}
    return found


def find_formats() -> tuple[dict[str, str], dict[str, str]]:
    """Modules of the formats that can be tried, and why the others cannot, by name."""
    options = Options(ROOT / "conf")
    modules = {name: options.load("format", name, "benchmark")["module"] for name in options.names("format")}
    missing = {}
    for name, module in modules.items():
        absent = [package for package in runtimes.own_packages(module) if runtimes.version(package) == runtimes.MISSING]
        if absent:
            missing[name] = f"{', '.join(absent)} not installed"
        elif not reads_onnx(name, modules):
            missing[name] = "reads no ONNX file"
    return {name: module for name, module in modules.items() if name not in missing}, missing


def write_params(shared: Path, variants: Mapping[str, Mapping[str, Any]], profile: str) -> dict[str, Any]:
    data = {
        **{"name": "yolo", "path": str(shared / DATA), "image_size": 416, "range": [0, 255], "channel_order": "bgr"},
        **{"resize": "letterbox", "pad_anchor": "corner", "splits": {"validation": 0.25, "calibration": 0.5, "test": 0.25}},
    }
    decoding = {"head": "yolox", "outputs": {"predictions": "output"}, "channels_first": False, "strides": [8, 16, 32]}
    return {
        **{"seed": 0, "data": data, "task": {"name": "detection", "decoding": decoding}, "train": {"name": "default"}},
        **{"model": {"name": "onnx_file", "path": str(shared / FILE)}, "device": {"name": "local", "host": None, "threads": 1}},
        **{"bench": {"name": profile, "profile": True}, "budget": {"name": "none"}, "reference": REFERENCE, "variants": dict(variants)},
    }


def cells(name: str, row: VariantSummary) -> list[str]:
    quality, scores = row.quality, row.quality.scores
    low, high = quality.delta_ci95 or (0.0, 0.0)
    lost_low, lost_high = scores.get("lost_detections_share_ci95", (0.0, 0.0))
    reference = quality.delta is None or name == REFERENCE
    return [
        name,
        f"{quality.score:.3f}",
        "" if reference else f"{100 * (quality.delta or 0):+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]",
        f"{scores['ap50']:.3f}",
        "" if reference else f"{scores['lost_detections_share']:.0%} [{lost_low:.0%}, {lost_high:.0%}]",
        "" if reference else f"{scores['score_shift_median']:+.3f}",
        f"{row.file.size_bytes / 1e6:.2f}" if row.file.size_bytes else "",
        *speed(row),
    ]


def make_table(summary: Summary, missing: Mapping[str, str]) -> str:
    made = {name: row for name, row in summary.variants.items() if row.quality.score is not None}
    rows = [cells(name, row) for name, row in made.items()]
    lines = ["| " + " | ".join(line) + " |" for line in (COLUMNS, ["---"] * len(COLUMNS), *rows)]
    failed = [f"* {name}: {row.reason}" for name, row in summary.variants.items() if name not in made]
    left_out = [f"* {name}: {why}" for name, why in missing.items()]
    slow = [f"* {name}: {'; '.join(row.explanation)}" for name, row in made.items() if row.scheme in EXPLAINED and row.explanation]
    said = [
        (slow, "Where 8 bits are no faster than float, in the words of the report (`bench.profile: true`):"),
        (failed, "What cannot be made, or is not what it claims:"),
        (left_out, "Formats that were not tried:"),
    ]
    return "\n".join([*lines, *(line for entries, title in said if entries for line in ("", title, "", *entries)), ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.detector", description="YOLOX-Nano in every format and scheme")
    parser.add_argument("--shared", type=Path, required=True, help="the folder with pretrained/yolox and coco128")
    parser.add_argument("--out", type=Path, default=None, help="the page whose tables are written anew; without it they are printed")
    parser.add_argument("--only", nargs="*", default=(), help="formats and variants; without it all that are possible")
    parser.add_argument("--profile", default="quick", help="how to measure: smoke claims nothing, quick, standard")
    parser.add_argument("--prepare", action="store_true", help="make and score the variants, and measure nothing")
    parser.add_argument("--samples", type=int, default=64, help="pictures of the calibration")
    arguments = parser.parse_args()
    if not (arguments.shared / FILE).is_file():
        raise DataError(f"--shared: {arguments.shared} has no {FILE}; name the folder with the public files")
    modules, missing = find_formats()
    wanted = {*(arguments.only or modules), REFERENCE}
    every = choose_variants(modules, arguments.samples)
    variants = {name: chosen for name, chosen in every.items() if name in wanted or chosen["format"] in wanted}
    params = write_params(arguments.shared.resolve(), variants, arguments.profile)
    if arguments.prepare:
        make_project(params, HOME)
        repro(HOME, "evaluate")
        return
    summary = carry(params, HOME)
    facts = machine.facts(())
    head = f"{facts['cpu']} ({', '.join(facts['isa'])}), one thread, profile {arguments.profile}."
    text = f"{head} {LEGEND}\n\n{make_table(summary, missing)}"
    if arguments.out is None:
        print(text)
        return
    before, _, _ = arguments.out.read_text(encoding="utf-8").partition(MARK)
    arguments.out.write_text(f"{before}{MARK}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
