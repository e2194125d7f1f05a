"""Accuracy against multiply-adds: a net pruned to some shares, trained again with its source as teacher and without.

    python -m benchmarks.prune_curve                       a ResNet-18 of a quarter of the width on digits at 32x32; minutes a seed
    python -m benchmarks.prune_curve --seeds 0 1 2 --steps 1 --epochs 20
    python -m benchmarks.prune_curve --pictures FOLDER     a whole ResNet-18 on FOLDER/CLASS/*.jpg at 64x64; FOLDER/../groups.csv, if it is
                                                           there, names the pictures of a scene
    python -m benchmarks.prune_curve --model mobilenet_v2 --image-size 64 --shares 0.5       another net on digits

Prints a table, for docs/pruning.md. One thread, in a temporary folder. The row of 100 % is the source itself, trained for as many more
epochs as each pruned net is in all its steps. Accuracies are of the test split; differences are paired with that row, in points with a
95 % interval.
"""

import argparse
import contextlib
import dataclasses
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.agent import machine
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.compress import pruned_sources
from edgewise.compress.pruning import make_pruned
from edgewise.config.compose import Options, compose_choices, read_choices, write
from edgewise.config.prune_settings import Distillation, Prune
from edgewise.config.schema import Config
from edgewise.data.dataset import prepare
from edgewise.proof.making import SOURCE
from edgewise.sources import torch_source, training
from edgewise.sources.model_source import write_source
from edgewise.sources.objectives import choose
from edgewise.stats.paired import compare_shares

ROOT = Path(__file__).resolve().parents[1]
SHARES = (0.4, 0.25, 0.15)
MULTIPLE = 4  # of channels: the narrowest layers have 16; those of a whole ResNet-18 64
WIDE_MULTIPLE = 8
MODEL = {"hidden_sizes": [16, 32, 64, 128], "embedding_size": 16, "depths": [2, 2, 2, 2], "layer_type": "basic"}
NARROW = "resnet18"  # of a quarter of the width, if no other net is named
WHOLE = {"depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "embedding_size": 64, "layer_type": "basic"}
HEAD = "| seed | multiply-adds left | parameters left | teacher | accuracy | points to the source | training, s |\n" + "|---" * 7 + "|"


@dataclass(frozen=True)
class Row:
    seed: int
    share: float
    parameters: float
    taught: bool | None
    right: np.ndarray  # bool, one a test sample
    seconds: float

    def line(self, source: "Row") -> str:
        teacher = "" if self.taught is None else "yes" if self.taught else "no"
        found = compare_shares(source.right, self.right)
        low, high = (100 * bound for bound in found.delta_ci95)
        points = "" if self is source else f"{100 * found.delta:+.2f} [{low:+.2f}, {high:+.2f}]"
        cells = (f"{self.share:.1%}", f"{self.parameters:.1%}", teacher, f"{self.right.mean():.4f}", points, f"{self.seconds:.0f}")
        return "| " + " | ".join([str(self.seed), *cells]) + " |"


@contextlib.contextmanager
def project(seed: int, epochs: int, size: int = 32, **more: Any) -> Iterator[Config]:
    """A trained source in a temporary folder, which is the current one meanwhile. size: of the pictures. more: choices beside those."""
    before = Path.cwd()
    choices = read_choices(ROOT / "params.yaml")
    choices["seed"] = seed
    choices["data"] = {"name": "digits", "image_size": size}
    choices["model"] = {"name": "resnet18", "arguments": MODEL}
    choices["train"] = {"name": "default", "epochs": epochs, "threads": 1}
    choices |= more
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            config = compose_choices(choices, Options(ROOT / "conf"))
            write(config)
            prepare(config.data, config.seed)
            write_source(config)
            yield config
        finally:
            os.chdir(before)


def is_right(folder: Path, samples: Samples) -> np.ndarray:
    """Which test samples a source gets right."""
    import torch

    indices = samples.indices("test")
    program = torch.export.load(folder / "program.pt2").module(check_guards=False)
    with torch.no_grad():
        logits = training.run(program, samples.feeds(indices))[0].numpy()
    right: np.ndarray = logits.argmax(1) == samples.targets(indices)
    return right


def train_on(config: Config, samples: Samples, epochs: int, folder: Path) -> None:
    """Write the source, trained for some more epochs, into `folder`."""
    train = dataclasses.replace(config.train, epochs=epochs)
    objective = choose(samples, train)
    assert objective is not None
    with training.repeatable(config.seed, 1):
        net = torch_source.rebuild(config.model, SOURCE, artifact.read(pruned_sources.DATA))
        training.fit(net, samples, train, config.seed + 1, objective)
        torch_source.export(net, samples.feeds(samples.indices("calibration")[:16]), objective.outputs, folder)


def measure(config: Config, shares: Sequence[float], steps: int, epochs: int, multiple: int = MULTIPLE) -> list[Row]:
    samples = Samples.open(pruned_sources.DATA)
    started = time.monotonic()
    whole = Path("whole")
    whole.mkdir()
    train_on(config, samples, steps * epochs, whole)
    rows = [Row(config.seed, 1.0, 1.0, None, is_right(whole, samples), time.monotonic() - started)]
    for share in tqdm(shares, unit="share", disable=None):
        for weight in (0.7, 0.0):
            prune = Prune(macs_share=share, multiple=multiple, steps=steps, epochs=epochs, distillation=Distillation(weight=weight))
            folder, started = Path(f"{share}-{weight}"), time.monotonic()
            folder.mkdir()
            make_pruned(config.model, SOURCE, pruned_sources.DATA, prune, config.train, config.seed, folder)
            cut = artifact.read(folder).details["pruned"]
            macs, parameters = (cut[name] / cut[f"{name}_before"] for name in ("multiply_adds", "parameters"))
            rows.append(Row(config.seed, macs, parameters, bool(weight), is_right(folder, samples), time.monotonic() - started))
    return rows


def choices_of_digits(model: str, side: int) -> dict[str, Any]:
    """model: a name of conf/model/, or the narrow ResNet-18."""
    return {"data": {"name": "digits", "image_size": side}, "model": {"name": model, **({"arguments": MODEL} if model == NARROW else {})}}


def choices_of_pictures(folder: Path) -> dict[str, Any]:
    """Of a whole ResNet-18 on pictures in folders, one for each class."""
    groups = folder.parent / "groups.csv"
    data = {"name": "image_folder", "path": str(folder), "groups": str(groups) if groups.exists() else None, "image_size": 64}
    return {"data": {**data, "channels": 1}, "model": {"name": "resnet18", "arguments": WHOLE}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=list(SHARES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--model", default=NARROW, help="on digits: a name of conf/model/")
    parser.add_argument("--train", default="default", help="a name of conf/train/, such as transformer")
    parser.add_argument("--image-size", type=int, default=32, help="of digits")
    parser.add_argument("--pictures", type=Path, help="FOLDER/CLASS/*.jpg in place of digits")
    parser.add_argument("--source-epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4, help="after each step")
    arguments = parser.parse_args()
    pictures = arguments.pictures and arguments.pictures.resolve()
    choices = choices_of_pictures(pictures) if pictures else choices_of_digits(arguments.model, arguments.image_size)
    choices["train"] = {"name": arguments.train, "epochs": arguments.source_epochs, "threads": 1}
    multiple = WIDE_MULTIPLE if pictures or arguments.model != NARROW else MULTIPLE
    lines = []
    for seed in arguments.seeds:
        with project(seed, arguments.source_epochs, **choices) as config:
            rows = measure(config, arguments.shares, arguments.steps, arguments.epochs, multiple)
        lines += [row.line(rows[0]) for row in rows]
    print(
        f"{len(rows[0].right)} test pictures, source of {arguments.source_epochs} epochs,"
        f" steps: {arguments.steps} of {arguments.epochs} epochs, one thread of {machine.facts(())['cpu']}\n\n{HEAD}"
    )
    print("\n".join(lines))


if __name__ == "__main__":
    main()
