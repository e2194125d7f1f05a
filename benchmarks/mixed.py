"""What int8-mixed wins back where int8-static loses, beside NNCF's accuracy control and int8-qat.

    python -m stages.study mixed                                     trains a net that int8-static ruins, in .edgewise/studies/mixed
    cd .edgewise/studies/mixed && python -m benchmarks.mixed         prints the table; --out FILE writes the page

Run in a project after `dvc repro`. Scan, training and variants are made again here with a clock, and evaluations counted: one is a
candidate that was run over the validation samples. What stays float was chosen on validation; the table is of the test split.
"""

import argparse
import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np

from stages import quantize, scan_layers
from stages.compressing.job import Job
from stages.compressing.origin import origin
from stages.core import artifact, config
from stages.core.resampling import distribution, percentiles
from stages.core.samples import Samples
from stages.core.variant import Variant
from stages.importers import quantization_aware
from stages.payload import hostinfo

MODELS = Path("models")
WON_BACK, GIVEN_UP = 0.80, 0.15  # the target of int8-mixed: of the loss of accuracy, of the bytes that int8-static saves
SCHEMES = ("int8-static", "int8-mixed", "int8-qat")
COLUMNS = "| variant | accuracy | loss won back | MB | saving given up | layers in float | evaluations | seconds |"
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
    recipes = config.part(variant.module, "recipes")
    hits = recipes._hits

    def counted(compiled: Any, pairs: Any) -> tuple[float, list[float]]:
        found = hits(compiled, pairs)
        seen.append(len(found[1]))
        return found

    with mock.patch.object(recipes, "_hits", counted):
        yield seen


def remade(variant: Variant, configuration: config.Config, samples: Samples) -> Made:
    with tempfile.TemporaryDirectory() as scratch, judged(variant) as seen, origin(variant, configuration.formats) as (model, source):
        job, folder = Job(variant, model, source, samples), Path(scratch)
        (kept, found), seconds = clocked(quantize.made, job, quantize.calibration(variant, samples), folder)
        trials = found["mixed"]["trials"] if variant.mixed else seen
        size = sum(entry["bytes"] for entry in artifact.describe_files(folder).values())
        return Made(variant, right(job, folder), size, len(kept), len(trials), seconds)


def right(job: Job, folder: Path) -> np.ndarray:
    indices = job.samples.indices("test")
    return job.outputs(folder, indices).argmax(axis=1) == job.samples.targets(indices)


def float_model(name: str, variant: Variant, samples: Samples) -> Made:
    folder = MODELS / name
    job = Job(variant, folder, MODELS / "source", samples)
    size = artifact.read(folder).size_bytes - (folder / "layers.json").stat().st_size
    return Made(variant, right(job, folder), size, len(job.layers), 0, 0.0)


def won_back(made: Made, static: Made, whole: Made) -> tuple[float, float, float]:
    """The share of the accuracy that int8-static loses, and its 95 % interval over test samples."""

    def share(counts: np.ndarray) -> np.ndarray:
        gain, loss = (counts @ (m.right.astype(float) - static.right) for m in (made, whole))
        return gain / np.where(loss == 0, np.nan, loss)

    drawn = distribution(share, np.zeros(len(made.right), int))
    return float(share(np.ones((1, len(made.right))))[0]), *percentiles(drawn[np.isfinite(drawn)])


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
    missed = [f"{share:.0%} of the loss won back"] * (share < WON_BACK) + [f"{lost:.1%} of the saving given up"] * (lost > GIVEN_UP)
    return f"* {made.variant.name}: {'missed: ' + ' and '.join(missed) if missed else 'met'}"


def of_format(name: str, configuration: config.Config, samples: Samples) -> tuple[list[str], list[str]]:
    """Rows of the table, and verdicts on int8-mixed."""
    variants = [v for v in configuration.variants.values() if v.format == name and v.scheme in SCHEMES]
    whole = next(float_model(name, v, samples) for v in configuration.variants.values() if v.format == name and v.scheme == "fp32")
    found = [remade(variant, configuration, samples) for variant in variants]
    static = next(made for made in found if made.variant.scheme == "int8-static" and not made.controlled)
    rows = [row(made, static, whole) for made in (whole, *found)]
    return rows, [verdict(made, static, whole) for made in found if made.variant.mixed]


def preparing(configuration: config.Config) -> list[str]:
    """What the stages before quantize take, for all formats together."""
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        for key in configuration.scans["int8-mixed"]:
            manifest, seconds = clocked(scan_layers.scan, "int8-mixed", configuration, Path(scratch))
            lines.append(f"* scan-layers ({key}, on the {manifest.format} source): {seconds:.0f} s, once for all formats")
        for key, tuning in configuration.tunings["int8-qat"].items():
            (Path(scratch) / key).mkdir()
            arguments = MODELS / "source", MODELS / "data", tuning, configuration.train, configuration.seed, Path(scratch) / key
            _, seconds = clocked(quantization_aware.tune, *arguments)
            lines.append(f"* train-qat ({key}): {seconds:.0f} s, once for all formats")
    return lines


def page(configuration: config.Config) -> str:
    samples = Samples.open(MODELS / "data")
    prepared = preparing(configuration)
    wanted = {v.format for v in configuration.variants.values() if v.mixed}
    found = [of_format(name, configuration, samples) for name in configuration.formats if name in wanted]
    test, validation = (len(samples.indices(split)) for split in ("test", "validation"))
    facts = hostinfo.facts(())
    told = f"{configuration.model.name} on {configuration.data.name}; {test} test and {validation} validation samples; {facts['cpu']}."
    table = [COLUMNS, "|---" * (COLUMNS.count("|") - 1) + "|", *(line for rows, _ in found for line in rows)]
    target = f"Target of int8-mixed: at least {WON_BACK:.0%} of the loss won back for at most {GIVEN_UP:.0%} of the saving."
    return "\n".join([told, "", *table, "", *prepared, "", target, "", *(line for _, verdicts in found for line in verdicts), ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="a page to write the table into, below what stands there before the first table")
    arguments = parser.parse_args()
    text = page(config.read())
    print(text)
    if arguments.out:
        head = arguments.out.read_text(encoding="utf-8").partition(MARK)[0]
        arguments.out.write_text(f"{head}{MARK}\n\n{text}", encoding="utf-8")


MARK = "## Measured"

if __name__ == "__main__":
    main()
