"""A full grid of slim nets, made and measured once, so that the search for them can be evaluated without training anything.

    python -m benchmarks.slim_grid                                           a small net on digits; some minutes of one core
    python -m benchmarks.search_replay benchmarks/slim_grid.json --search slim

The grid has the settings and values of conf/sweep/search/slim.yaml. At each input size a source is trained; for each share it is pruned and
trained again, and then made into int8-static in ONNX by each recipe. latency_p50_ms is CPU time of one inference, all points in turns: good
to compare points, but no claim.
"""

import argparse
import itertools
import json
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.prune_curve import MULTIPLE, project
from benchmarks.search_grid import ROUNDS, runs_per_s
from edgewise.agent.sessions import run_batched
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.compress.float_models import convert_tuned
from edgewise.compress.pruning import make_pruned
from edgewise.config.prune_settings import Prune
from edgewise.config.schema import Config
from edgewise.formats.onnx import make, run
from edgewise.proof.making import SOURCE

DATA = Path("models/data")
SIZE, VARIANT = "data.image_size", "variants.onnx-int8-static-slim"
SHARE, PER_CHANNEL, SYMMETRIC = (f"{VARIANT}.{key}" for key in ("prune.macs_share", "per_channel", "symmetric"))
CHOICES: dict[str, tuple[Any, ...]] = {
    SIZE: (16, 32, 48),
    SHARE: (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875),
    PER_CHANNEL: (True, False),
    SYMMETRIC: (True, False),
}
MODEL = {"hidden_sizes": [16, 32, 64, 128], "embedding_size": 16, "depths": [1, 1, 1, 1], "layer_type": "basic"}
SOURCE_EPOCHS, EPOCHS, CALIBRATION = 6, 2, 64


@dataclass(frozen=True)
class Made:
    """One point as it was made. folder: its file, and the inputs of one inference."""

    point: Mapping[str, Any]
    accuracy_top1: float
    size_bytes: int
    folder: Path


def make_all(size: int, work: Path) -> Iterator[Made]:
    """All nets for one input size; those of a former run are found in `work`."""
    stored = work / f"{size}.json"
    if not stored.exists():
        with project(0, SOURCE_EPOCHS, size, model={"name": "resnet18", "arguments": MODEL}) as config:
            rows = [row for share in tqdm(CHOICES[SHARE], unit="net") for row in make_one(config, size, share, work)]
        artifact.write_json(stored, rows)
    for row in json.loads(stored.read_text(encoding="utf-8")):
        yield Made(row["point"], row["accuracy_top1"], row["size_bytes"], work / row["folder"])


def make_one(config: Config, size: int, share: float, work: Path) -> Iterator[dict[str, Any]]:
    """Prune and train one net, and quantize it by every recipe; what is known of each."""
    samples, prune = Samples.open(DATA), Prune(macs_share=share, multiple=MULTIPLE, steps=1, epochs=EPOCHS)
    source, scratch = Path(f"slim-{share}"), Path(f"float-{share}")
    for path in (source, scratch):
        path.mkdir()
    make_pruned(config.model, SOURCE, DATA, prune, config.train, config.seed, source)
    parent = convert_tuned("onnx", config.formats, source, scratch)
    feeds = [samples.feeds(samples.indices("calibration")[i : i + 1]) for i in range(CALIBRATION)]
    for per_channel, symmetric in itertools.product(CHOICES[PER_CHANNEL], CHOICES[SYMMETRIC]):
        folder = work / f"{size}-{share}-{per_channel}-{symmetric}"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        calibration = {"samples": CALIBRATION, "method": "minmax", "resamples": 0}
        settings = {"calibration": calibration, "per_channel": per_channel, "symmetric": symmetric}
        make.quantize(parent, source, folder, "int8-static", settings, feeds, [])
        size_bytes = sum(path.stat().st_size for path in folder.iterdir())
        np.savez(folder / "inputs.npz", **samples.feeds(samples.indices("test")[:1]))  # type: ignore[arg-type]
        point = {SIZE: size, SHARE: share, PER_CHANNEL: per_channel, SYMMETRIC: symmetric}
        yield {"point": point, "accuracy_top1": judge(folder, samples), "size_bytes": size_bytes, "folder": folder.name}


def judge(folder: Path, samples: Samples) -> float:
    """Accuracy on the test split."""
    indices = samples.indices("test")
    answers = next(iter(run_batched(run.load(str(folder), {"threads": 1}), samples.feeds(indices)).values()))
    return round(float(np.mean(answers.argmax(axis=1) == samples.targets(indices))), 4)


def time_all(made: list[Made]) -> list[float]:
    """Milliseconds of one inference: the median of rounds over all points."""
    sessions = [(run.load(str(each.folder), {"threads": 1}), dict(np.load(each.folder / "inputs.npz"))) for each in made]
    rounds = [[runs_per_s(*each) for each in sessions] for _ in range(ROUNDS)]
    return [1000 / statistics.median(speeds) for speeds in zip(*rounds, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/slim-grid"), help="for the nets; finished input sizes are not made again")
    parser.add_argument("--sizes", type=int, nargs="+", choices=CHOICES[SIZE], help="make these and end")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/slim_grid.json"))
    given = parser.parse_args()
    out, work = given.out.resolve(), given.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    made = [each for size in given.sizes or CHOICES[SIZE] for each in make_all(size, work)]
    if not given.sizes:
        write_grid(made, out)


def write_grid(made: list[Made], out: Path) -> None:
    rows = [
        {"point": each.point, "accuracy_top1": each.accuracy_top1, "latency_p50_ms": round(spent, 5), "size_bytes": each.size_bytes}
        for each, spent in zip(made, time_all(made), strict=True)
    ]
    out.write_text(json.dumps({"schema": 1, "versions": run.versions(), "choices": CHOICES, "rows": rows}) + "\n", encoding="utf-8")
    print(f"{len(rows)} points are in {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
