"""What half of the multiply-adds gains in latency, format by format: kernels do not follow arithmetic.

    python -m benchmarks.prune_latency --out docs/pruning.md      MobileNetV2 and ViT-Tiny; five minutes on a quiet machine
    python -m benchmarks.prune_latency --only mobilenet_v2 --formats onnx --multiple 16

Each variant with half of the multiply-adds takes turns with the same format and scheme of the whole net, in fresh processes, one thread.
What the weights are makes no difference to latency: the nets are trained for a few steps only, so that 8 bits can be proved. All layers
are quantized (`spread: int8`), since which ones the format would leave in float does depend on the weights.
"""

import argparse
import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.article.project import BENCH, Project
from benchmarks.readme import between
from edgewise.agent import machine

BEGIN, END = "<!-- latency: python -m benchmarks.prune_latency -->", "<!-- end of latency -->"
MODELS: Mapping[str, int] = {"mobilenet_v2": 160, "vit_tiny": 64}  # side of the picture
# a few steps are too few for the usual running statistics, which would leave the same answer for every picture
SETTINGS: Mapping[str, Mapping[str, Any]] = {"mobilenet_v2": {"batchnorm_momentum": 0.9}}
FORMATS = ("onnx", "openvino", "tflite", "torch")
SCHEMES = ("fp32", "int8-static")
NO_INT8 = ("torch",)
ALL_LAYERS = {"onnx": {"spread": "int8"}}
SHARE, EPOCHS, SLIM = 0.5, 2, "slim"
SHORT = dataclasses.replace(BENCH, processes=3, max_processes=3, blocks=25, max_s=12.0)
HEAD = "| model, input | variant | multiply-adds | whole, ms | half, ms | latency | noise |\n|---|---|---|---|---|---|---|"


def pairs(formats: Sequence[str]) -> Iterator[str]:
    """The names of the variants of the whole net."""
    for name in formats:
        yield from (f"{name}-{scheme}" for scheme in SCHEMES if name not in NO_INT8 or scheme == "fp32")


def choose_variants(formats: Sequence[str], multiple: int) -> dict[str, Any]:
    """Each variant, whole and with half of the multiply-adds. multiple: of which the channels that are left are."""
    prune = {"macs_share": SHARE, "multiple": multiple, "steps": 1, "epochs": 1}
    made: dict[str, Any] = {}
    for name in pairs(formats):
        form, _, scheme = name.partition("-")
        settings = {} if scheme == "fp32" else {"calibration": {"samples": 16}, **ALL_LAYERS.get(form, {})}
        plain = {"format": form, "scheme": scheme, **settings}
        made |= {name: plain, f"{name}-{SLIM}": {**plain, "prune": prune}}
    return made


def measure(model: str, formats: Sequence[str], multiple: int, folder: Path) -> list[str]:
    """One line for each variant of one model."""
    side = MODELS[model]
    data = {"name": "surface", "samples": 200, "image_size": side, "merge_defects": True, "defect_share": 0.5}
    project = Project(folder, data, {"name": model, **SETTINGS.get(model, {})}, choose_variants(formats, multiple), EPOCHS)
    lines = []
    for name in pairs(formats):
        found = project.against(project.subject(f"{name}-{SLIM}"), project.subject(name), SHORT)
        cut = project.manifest(f"{name}-{SLIM}").details["pruned"]
        macs = cut["multiply_adds"] / cut["multiply_adds_before"]
        ratio = f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"
        cells = (f"{model}, {side}x{side}", name, f"{macs:.2f}", f"{found.other_p50_ms:.3g}", f"{found.p50_ms:.3g}", ratio, found.grade)
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS))
    parser.add_argument("--multiple", type=int, default=8, help="of the channels that are left")
    parser.add_argument("--out", type=Path, help="replace what stands between the two markers in this page")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [line for model in given.only for line in measure(model, given.formats, given.multiple, Path(folder) / model)]
    how = f"channels in multiples of {given.multiple}, batch 1, one thread of {machine.facts(())['cpu']}"
    note = f"`python -m benchmarks.prune_latency`: {how}; latency: half over whole."
    text = "\n".join([note, "", HEAD, *lines])
    print(text)
    if given.out:
        before, _, after = between(given.out.read_text(encoding="utf-8"), BEGIN, END)
        given.out.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
