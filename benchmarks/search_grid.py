"""A full grid of quantization settings, measured once, so that searches can be evaluated on it without running anything.

    python -m benchmarks.search_grid --out search-grid.json

Run in a project after `dvc repro`. Every recipe of int8-static in ONNX over calibration, per_channel, symmetric and keep_float is made from
models/onnx, scored on the test split and timed against onnx-fp32, A B B A within one process, in CPU time: good to compare
recipes, but no claim. benchmarks.search_replay evaluates a search on it.
"""

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.agent.sessions import run_batched
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.formats.onnx import make, run

MODELS = Path("models")
CHOICES: dict[str, tuple[Any, ...]] = {
    "calibration.method": ("minmax", "entropy", "percentile"),
    "calibration.samples": (8, 32, 128),
    "per_channel": (True, False),
    "symmetric": (True, False),
    "keep_float": ("none", "first", "last"),
}
ROUNDS, BLOCK_S = 6, 0.02


def layer_nodes(which: str) -> list[str]:
    layers: list[list[str]] = list(json.loads((MODELS / "onnx/layers.json").read_text()).values())
    return {"none": [], "first": layers[0], "last": layers[-1]}[which]


def quantize(folder: Path, point: dict[str, Any], samples: Samples) -> None:
    calibration = {"samples": point["calibration.samples"], "method": point["calibration.method"], "resamples": 0}
    settings = {"calibration": calibration, "per_channel": point["per_channel"], "symmetric": point["symmetric"]}
    feeds = [samples.feeds(samples.indices("calibration")[i : i + 1]) for i in range(calibration["samples"])]
    make.quantize(MODELS / "onnx", MODELS / "source", folder, "int8-static", settings, feeds, layer_nodes(point["keep_float"]))


def runs_per_s(session: Any, feeds: dict[str, np.ndarray]) -> float:
    start, runs = time.thread_time(), 0  # of the processor: with one thread that is the latency, without what neighbours add
    while time.thread_time() - start < BLOCK_S:
        session.run(feeds)
        runs += 1
    return runs / (time.thread_time() - start)


def ratio(session: Any, reference: Any, feeds: dict[str, np.ndarray]) -> float:
    """Latency over the reference's: the median of rounds, each A B B A."""
    found = []
    for _ in range(ROUNDS):
        a, b, c, d = (runs_per_s(each, feeds) for each in (session, reference, reference, session))
        found.append((b + c) / (a + d))
    return statistics.median(found)


def measure(point: dict[str, Any], samples: Samples, reference: Any) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        quantize(Path(folder), point, samples)
        session = run.load(folder, {"threads": 1})
        indices = samples.indices("test")
        answers = next(iter(run_batched(session, samples.feeds(indices)).values()))
        accuracy = float(np.mean(answers.argmax(axis=1) == samples.targets(indices)))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        found = ratio(session, reference, samples.feeds(indices[:1]))
        return {"accuracy_top1": accuracy, "latency_ratio_to_reference": found, "size_bytes": size}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    out = parser.parse_args().out
    samples, reference = Samples.open(MODELS / "data"), run.load(str(MODELS / "variants/onnx-fp32"), {"threads": 1})
    points = [dict(zip(CHOICES, values, strict=True)) for values in itertools.product(*CHOICES.values())]
    rows = [{"point": point, **measure(point, samples, reference)} for point in tqdm(points, unit="point")]
    artifact.write_json(out, {"schema": 1, "versions": run.versions(), "choices": CHOICES, "rows": rows})
    print(f"{len(rows)} points are in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
