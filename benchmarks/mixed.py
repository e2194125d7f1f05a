"""What int8-mixed recovers where int8-static loses accuracy, beside NNCF's accuracy control and int8-qat.

    python -m benchmarks.mixed --out docs/mixed-precision.md      trains conf/studies/mixed.yaml, spreads its weights (benchmarks/spread.py)
    python -m benchmarks.mixed --here                             the table of the project in this folder, after `dvc repro`

Scan, training and variants are timed, and evaluations counted: one is a candidate that runs over the validation
samples. The layers to keep float are chosen on validation; the table shows the test split.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np
import yaml
from tqdm import tqdm

from edgewise.agent import machine
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.compress import variants
from edgewise.compress.build import Build
from edgewise.compress.float_models import open_parent
from edgewise.config import schema
from edgewise.config.schema import Variant
from edgewise.stats.resampling import bootstrap, percentile_interval
from stages import scan_layers, train_qat

ROOT = Path(__file__).resolve().parents[1]
STUDY = ROOT / "conf/studies/mixed.yaml"
FORMATS = ("onnx", "tflite", "openvino")
MODELS = Path("models")
MARK = "## Measured"
RECOVERED, GIVEN_UP = 0.80, 0.15  # the target of int8-mixed: of the loss of accuracy, of the bytes that int8-static saves
SCHEMES = ("int8-static", "int8-mixed", "int8-qat")
COLUMNS = "| variant | accuracy | loss recovered | MB | saving given up | layers in float | evaluations | seconds |"
T = TypeVar("T")


@dataclass(frozen=True)
class Made:
    variant: Variant
    right: np.ndarray  # bool, one a test sample
    size_bytes: int
    kept: int
    evaluations: int
    seconds: float

    @property
    def controlled(self) -> bool:
        control = self.variant.accuracy_control
        return control is not None and control.drop_points is not None


def clocked(work: Callable[..., T], *arguments: Any) -> tuple[T, float]:
    start = time.perf_counter()
    return work(*arguments), time.perf_counter() - start


@contextlib.contextmanager
def judged(variant: Variant) -> Iterator[list[int]]:
    """Counts how often a tool that looks at accuracy itself does so: the list grows by the number of samples each time."""
    seen: list[int] = []
    if variant.accuracy_control is None:
        yield seen
        return
    recipes = schema.part(variant.module, "recipes")
    hits = recipes._hits

    def counted(compiled: Any, pairs: Any) -> tuple[float, list[float]]:
        found: tuple[float, list[float]] = hits(compiled, pairs)
        seen.append(len(found[1]))
        return found

    with mock.patch.object(recipes, "_hits", counted):
        yield seen


def remade(variant: Variant, configuration: schema.Config, samples: Samples) -> Made:
    with tempfile.TemporaryDirectory() as scratch, judged(variant) as seen, open_parent(variant, configuration.formats) as (model, source):
        build, folder = Build(variant, model, source, samples), Path(scratch)
        (kept, found), seconds = clocked(variants.quantize, build, variants.select_calibration(variant, samples), folder)
        trials = found["mixed"]["trials"] if variant.mixed else seen
        size = sum(entry["bytes"] for entry in artifact.describe_files(folder).values())
        return Made(variant, right(build, folder), size, len(kept), len(trials), seconds)


def right(build: Build, folder: Path) -> np.ndarray:
    indices = build.samples.indices("test")
    hits: np.ndarray = next(iter(build.run(folder, indices).values())).argmax(axis=1) == build.samples.targets(indices)
    return hits


def float_model(name: str, variant: Variant, samples: Samples) -> Made:
    folder = MODELS / name
    build = Build(variant, folder, MODELS / "source", samples)
    size = artifact.read(folder).size_bytes - (folder / "layers.json").stat().st_size
    return Made(variant, right(build, folder), size, len(build.layers), 0, 0.0)


def won_back(made: Made, static: Made, whole: Made) -> tuple[float, float, float]:
    """The share of the accuracy that int8-static loses, and its 95 % interval over test samples."""

    def share(counts: np.ndarray) -> np.ndarray:
        gain, loss = (counts @ (m.right.astype(float) - static.right) for m in (made, whole))
        shares: np.ndarray = gain / np.where(loss == 0, np.nan, loss)
        return shares

    drawn = bootstrap(share, np.zeros(len(made.right), int))
    return float(share(np.ones((1, len(made.right))))[0]), *percentile_interval(drawn[np.isfinite(drawn)])


def given_up(made: Made, static: Made, whole: Made) -> float:
    """The share of the bytes that int8-static saves."""
    return (made.size_bytes - static.size_bytes) / (whole.size_bytes - static.size_bytes)


def row(made: Made, static: Made, whole: Made) -> str:
    cells = [made.variant.name, f"{made.right.mean():.2%}", "", f"{made.size_bytes / 1e6:.2f}", "", "", "", ""]
    if made is not whole:
        cells[5:] = [str(made.kept), str(made.evaluations or "-"), f"{made.seconds:.0f}"]
    if made is not whole and made is not static:
        share, low, high = won_back(made, static, whole)
        cells[2], cells[4] = f"{share:.0%} [{low:.0%}, {high:.0%}]", f"{given_up(made, static, whole):.1%}"
    return f"| {' | '.join(cells)} |"


def verdict(made: Made, static: Made, whole: Made) -> str:
    share, lost = won_back(made, static, whole)[0], given_up(made, static, whole)
    missed = [f"{share:.0%} of the loss recovered"] * (share < RECOVERED) + [f"{lost:.1%} of the saving given up"] * (lost > GIVEN_UP)
    return f"* {made.variant.name}: {'missed: ' + ' and '.join(missed) if missed else 'met'}"


def of_format(name: str, configuration: schema.Config, samples: Samples) -> tuple[list[str], list[str]]:
    """Rows of the table, and verdicts on int8-mixed."""
    variants = [v for v in configuration.variants.values() if v.format == name and v.scheme in SCHEMES]
    whole = next(float_model(name, v, samples) for v in configuration.variants.values() if v.format == name and v.scheme == "fp32")
    found = [remade(variant, configuration, samples) for variant in tqdm(variants, desc=name, unit="variant", disable=None)]
    static = next(made for made in found if made.variant.scheme == "int8-static" and not made.controlled)
    rows = [row(made, static, whole) for made in (whole, *found)]
    return rows, [verdict(made, static, whole) for made in found if made.variant.mixed]


def preparing() -> list[str]:
    """What the stages before quantize take, for all formats together."""
    stages = {"scan-layers": scan_layers.main, "train-qat": train_qat.main}
    return [f"* {name}: {clocked(stage)[1]:.0f} s, once for all formats" for name, stage in stages.items()]


def page(configuration: schema.Config) -> str:
    samples = Samples.open(MODELS / "data")
    prepared = preparing()
    wanted = {v.format for v in configuration.variants.values() if v.mixed}
    found = [of_format(name, configuration, samples) for name in configuration.formats if name in wanted]
    test, validation = (len(samples.indices(split)) for split in ("test", "validation"))
    facts = machine.facts(())
    told = f"{configuration.model.name} on {configuration.data.name}; {test} test and {validation} validation samples; {facts['cpu']}."
    table = [COLUMNS, "|---" * (COLUMNS.count("|") - 1) + "|", *(line for rows, _ in found for line in rows)]
    target = f"Target of int8-mixed: at least {RECOVERED:.0%} of the loss recovered for at most {GIVEN_UP:.0%} of the saving."
    return "\n".join([told, "", *table, "", *prepared, "", target, "", *(line for _, verdicts in found for line in verdicts), ""])


def staged(folder: Path, choices: Mapping[str, Any]) -> Path:
    """A project with these choices, up to the float models; returns the weights of its source."""
    folder.mkdir()
    (folder / "conf").symlink_to(ROOT / "conf")
    (folder / "params.yaml").write_text(yaml.safe_dump(choices), encoding="utf-8")
    for stage in ("compose", "prepare_data", "train_export", *(f"convert {name}" for name in FORMATS)):
        module, *arguments = stage.split()
        run(folder, f"stages.{module}", *arguments)
    return folder / "models/source/weights.safetensors"


def run(folder: Path, module: str, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout


def study(scratch: Path, octaves: float) -> str:
    """The page's table, of the study's net with spread weights."""
    choices = yaml.safe_load(STUDY.read_text(encoding="utf-8"))
    weights = staged(scratch / "trained", choices)
    run(scratch, "benchmarks.spread", str(weights), str(scratch / "spread.safetensors"), "--octaves", str(octaves))
    model, train = (
        {**choices[key], **change}
        for key, change in (("model", {"weights": str(scratch / "spread.safetensors")}), ("train", {"epochs": 0}))
    )
    staged(scratch / "spread", {**choices, "model": model, "train": train})
    return run(scratch / "spread", "benchmarks.mixed", "--here")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--here", action="store_true", help="the project in this folder instead of the study")
    parser.add_argument(
        "--octaves", type=float, default=6.0, help="how far the study's channels are spread: the largest factor is 2 to this power"
    )
    parser.add_argument("--out", type=Path, help="the page whose part `Measured` is written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        text = page(schema.read()) if arguments.here else study(Path(scratch), arguments.octaves)
    print(text)
    if arguments.out:
        head = arguments.out.read_text(encoding="utf-8").partition(MARK)[0].rstrip()
        arguments.out.write_text(f"{head}\n\n{MARK}\n\n{text}", encoding="utf-8")


if __name__ == "__main__":
    main()
