"""The calibration samples: which ones, and a hash that tells when they change."""

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.artifacts import artifact
from edgewise.artifacts.samples import CLASSES, Samples
from edgewise.config import schema
from edgewise.config.schema import Variant
from edgewise.errors import VariantFailed
from edgewise.proof import checks, isolation

DATA = Path("models/data")
CALIBRATION_SPLIT = "calibration"


def chosen(samples: Samples, wanted: int) -> np.ndarray:
    """Indices of the first samples of the calibration split, in its stored order; all of them where there are fewer."""
    return samples.indices(CALIBRATION_SPLIT)[:wanted]


def redrawn(samples: Samples, wanted: int, count: int, seed: int) -> list[np.ndarray]:
    """`count` other sets of as many samples, drawn with replacement from the whole calibration split: a bootstrap of the choice."""
    split, rng = samples.indices(CALIBRATION_SPLIT), np.random.default_rng(seed)
    return [rng.choice(split, min(wanted, len(split)), replace=True) for _ in range(count)]


def calibration_feeds(samples: Samples, indices: Sequence[int] | np.ndarray) -> list[dict[str, np.ndarray]]:
    """Feeds of batch 1, as quantizers take them."""
    return [samples.feeds(np.asarray([index])) for index in indices]


def described(indices: np.ndarray, data: Path = DATA) -> dict[str, Any]:
    """What a manifest says of a calibration set: its indices, and the sha256 over the sha256 of each sample in this order."""
    files = json.loads((data / "files.json").read_text(encoding="utf-8"))
    listing = "\n".join(files[index]["sha256"] for index in indices)
    return {"split": CALIBRATION_SPLIT, "indices": indices.tolist(), "sha256": hashlib.sha256(listing.encode()).hexdigest()}


# One variant in the making: everything that a call of the format's `quantize` needs, but the layers to keep float.

VALIDATION = 256  # samples of the validation split that a search judges by: a picture is 0.4 points


@dataclass(frozen=True)
class Job:
    """`parent` is the float model in the variant's format, `source` what it was made from."""

    variant: Variant
    parent: Path
    source: Path
    samples: Samples

    @property
    def layers(self) -> Mapping[str, Sequence[str]]:
        return json.loads((self.parent / "layers.json").read_text(encoding="utf-8"))

    def nodes(self, kept: Sequence[str]) -> list[str]:
        return checks.nodes_of(kept, self.layers)

    def write(self, folder: Path, indices: np.ndarray, kept: Sequence[str]) -> None:
        """Quantize into `folder`, calibrated with these samples, these source layers in float."""
        make, feeds = schema.part(self.variant.module, "make"), calibration_feeds(self.samples, indices)
        settings = {**schema.to_plain(self.variant), "keep_int8": self.nodes(self.in_int8())}
        make.quantize(self.parent, self.source, folder, self.variant.scheme, settings, feeds, self.nodes(kept), **self.judging())

    def in_float(self) -> list[str]:
        """The source layers that the user keeps float."""
        return checks.named_layers("keep_float", self.variant.keep_float, self.layers)

    def in_int8(self) -> list[str]:
        """The source layers that the user keeps in 8 bits where the scheme has fewer."""
        kept = checks.named_layers("keep_int8", self.variant.keep_int8, self.layers)
        both = sorted(set(kept) & set(self.in_float()))
        if both:
            raise VariantFailed(f"{', '.join(both)}: named by keep_int8 and by keep_float; take it out of one of them")
        return kept

    def judging(self) -> dict[str, Any]:
        """The labelled samples that tools get which themselves look at accuracy."""
        if self.variant.accuracy_control is None or self.variant.accuracy_control.drop_points is None:
            return {}
        self.require_classes("accuracy_control.drop_points")
        indices = self.validation()
        return {"validation": (calibration_feeds(self.samples, indices), self.samples.targets(indices))}

    def left_float(self, folder: Path) -> list[str]:
        """The source layers that the tool itself left in float. VariantFailed where that is all of them."""
        facts = schema.part(self.variant.module, "facts").facts(folder)
        floats = {node["name"] for node in facts["nodes"] if node["weights_dtype"].startswith("float")}
        if len(floats) == len(facts["nodes"]):
            raise VariantFailed("accuracy_control: the tool took every layer back to float; raise drop_points, or use int8-mixed")
        return [path for path, nodes in self.layers.items() if nodes and floats.issuperset(nodes)]

    def validation(self) -> np.ndarray:
        return self.samples.indices("validation")[:VALIDATION]

    def outputs(self, folder: Path, indices: np.ndarray) -> np.ndarray:
        """What the model in `folder` answers, in a process of its own: its first output, [n, ...]."""
        settings = {"threads": 1, **self.variant.engine}
        return next(iter(isolation.outputs(self.variant.module, folder, settings, self.samples.feeds(indices)).values()))

    def accuracy(self, outputs: np.ndarray, indices: np.ndarray) -> float:
        """The share of samples whose class is found. VariantFailed where the targets are no classes."""
        self.require_classes("accuracy")
        return float((outputs.argmax(axis=1) == self.samples.targets(indices)).mean())

    def require_classes(self, setting: str) -> None:
        if self.samples.kind != CLASSES:
            raise VariantFailed(f"{setting}: is judged by the class that is found, the targets are {self.samples.kind}; leave it out")


# How much the accuracy of a calibrated model depends on the pictures that it happened to be calibrated with.

BAND_SPLIT = "test"  # nothing is chosen by it


def band(job: Job, kept: Sequence[str], seed: int) -> dict[str, Any] | None:
    """Accuracy on the test split with each of `calibration.resamples` other calibration sets, and min and max; None for 0."""
    wanted = job.variant.calibration
    if wanted is None or wanted.resamples == 0:
        return None
    job.require_classes("calibration.resamples")
    indices, found = job.samples.indices(BAND_SPLIT), []
    sets = redrawn(job.samples, wanted.samples, wanted.resamples, seed)
    for drawn in tqdm(sets, desc=f"{job.variant.name}: calibrate again", unit="set", disable=None):
        with tempfile.TemporaryDirectory() as scratch:
            job.write(Path(scratch), drawn, kept)
            found.append(job.accuracy(job.outputs(Path(scratch), indices), indices))
    digests = [described(drawn)["sha256"] for drawn in sets]
    return {"accuracies": found, "min": min(found), "max": max(found), "sets": digests, "split": BAND_SPLIT}


# Where a variant is made from: the float model that is there already, or one that was trained for it.

MODELS = Path("models")
TUNED = MODELS / "qat"


@contextlib.contextmanager
def origin(variant: Variant, formats: Mapping[str, schema.Format]) -> Iterator[tuple[Path, Path]]:
    """The float model in the variant's format, and its source."""
    if variant.tuning is None:
        yield MODELS / variant.format, MODELS / "source"
        return
    artifact.require_ok(artifact.read(TUNED / variant.scheme), str(TUNED / variant.scheme))
    source = TUNED / variant.scheme / variant.tuning.key
    with tempfile.TemporaryDirectory() as scratch:
        yield converted(variant.format, formats, source, Path(scratch)), source


def converted(name: str, formats: Mapping[str, schema.Format], source: Path, place: Path) -> Path:
    """A folder with `source` as a float model of format `name`, through another format where this one does not read it."""
    make, folder = schema.part(formats[name].module, "make"), place / name
    read = artifact.read(source).format in make.SOURCES
    way = source if read else converted(make.SOURCES[0], formats, source, place)
    folder.mkdir()
    made = make.convert(way, folder, formats[name].convert)
    artifact.write_json(folder / "layers.json", dict(made["layers"]))
    return folder
