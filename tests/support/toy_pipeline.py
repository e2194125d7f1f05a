"""A pipeline with the shape of the real one whose stages take no time: its results are formulas of the settings.

    python -m tests.support.toy_pipeline train | quantize V | report      the stages
    make(folder)                                                   a workspace that has them

Every stage adds a line to the file that TOY_LOG names. 13 calibration samples make quantize fail, 600 make it wait for five
minutes, or for TOY_SLOW_S seconds.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from tests.support.workspace import TINY, Workspace

VARIANT = "onnx-int8-static"
CHOICES = {**TINY, "variants": {name: TINY["variants"][name] for name in ("onnx-fp32", VARIANT)}}
STAGES: dict[str, Any] = {
    "train-export": {
        "cmd": "python -m tests.support.toy_pipeline train",
        "params": [{"models/config.yaml": ["model", "train", "seed"]}],
        "deps": ["metrics/data.json", "tests/support/toy_pipeline.py"],
        "outs": ["models/source"],
    },
    "quantize": {
        "foreach": "${variants}",
        "do": {
            "cmd": "python -m tests.support.toy_pipeline quantize ${key}",
            "params": [{"models/config.yaml": ["variants.${key}"]}],
            "deps": ["models/source"],
            "outs": ["models/variants/${key}"],
        },
    },
    "report": {
        "cmd": "python -m tests.support.toy_pipeline report",
        "params": [{"models/config.yaml": ["variants", "reference"]}],
        "deps": ["models/variants", "metrics/device.json"],
        "metrics": [{"metrics/summary.json": {"cache": False}}],
    },
}


def make(folder: Path) -> Workspace:
    """A committed workspace with the toy's dvc.yaml; compose and the probes are the real ones."""
    made = Workspace(folder, CHOICES)

    def rewrite(text: str) -> str:
        real = yaml.safe_load(text)["stages"]
        return yaml.safe_dump({"stages": {**{n: real[n] for n in ("compose", "probe-device", "probe-data")}, **STAGES}})

    made.edit("dvc.yaml", rewrite)
    made.run("git", "commit", "-qam", "Toy")
    return made


def accuracy(samples: int) -> float:
    return 0.9 - 1 / samples


def train() -> None:
    Path("models/source").mkdir(parents=True)
    np.savez("models/source/probe.npz", **{"in:image": np.zeros((2, 4), np.float32), "out:logits": np.zeros((2, 3), np.float32)})


def quantize(name: str) -> None:
    from edgewise.artifacts import artifact
    from edgewise.config import schema

    calibration = schema.read().variant(name).calibration
    if calibration and calibration.samples == 13:
        sys.exit("error: the toy takes no 13 samples")
    if calibration and calibration.samples == 600:
        time.sleep(float(os.environ.get("TOY_SLOW_S", "300")))
    folder = Path("models/variants", name)
    folder.mkdir(parents=True)
    (folder / "model").write_text(repr(schema.read().variant(name)))
    tensors = (artifact.Port("image", (None, 4), "float32"),), (artifact.Port("logits", (None, 3), "float32"),)
    artifact.write(folder, artifact.Manifest("variant", inputs=tensors[0], outputs=tensors[1]))


def bench() -> None:
    """Hold the device for TOY_BENCH_S seconds, and log from when to when: lines `bench START END` in TOY_LOG."""
    from edgewise.config import schema
    from edgewise.devices import access

    with access.lock(schema.read().device):
        start = time.time()
        time.sleep(float(os.environ.get("TOY_BENCH_S", "0")))
        log(f"bench {start:.3f} {time.time():.3f}")


def log(line: str) -> None:
    with Path(os.environ["TOY_LOG"]).open("a") as stream:
        stream.write(line + "\n")


def report() -> None:
    from edgewise.artifacts import records
    from edgewise.artifacts.records import FileFacts, JudgedLatency, Quality, Summary, VariantSummary
    from edgewise.config import schema
    from edgewise.tasks.classification import PRIMARY_METRIC

    settings, rows = schema.read(), {}
    for name, variant in settings.variants.items():
        calibration = variant.calibration
        result = (accuracy(calibration.samples), 0.4) if calibration else (0.95, 1.0)
        rows[name] = VariantSummary(
            *(variant.format, variant.scheme, "ok"),
            file=FileFacts(size_bytes=1000),
            quality=Quality(score=result[0]),
            latency=JudgedLatency(ratio_to_reference=result[1], ratio_ci95=(0.98 * result[1], 1.02 * result[1])),
        )
    device = records.read_plain(records.METRICS / "device.json")
    records.write_summary(Summary(settings.reference, device, rows, (), None, "", settings.budget, PRIMARY_METRIC))


if __name__ == "__main__":
    log(" ".join(sys.argv[1:]))
    match sys.argv[1:]:
        case ["train"]:
            train()
        case ["quantize", name]:
            quantize(name)
        case ["report"]:
            if "TOY_BENCH_S" in os.environ:
                bench()
            report()
