"""One variant while it is being made: what a call of its format's `quantize` needs, except for the layers to keep in float."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from edgewise.agent.ports import PORTS_FILE
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.artifacts.targets import CLASSES
from edgewise.compress import calibration
from edgewise.config import schema
from edgewise.config.schema import Variant
from edgewise.errors import VariantFailed
from edgewise.proof import checks, isolation

VALIDATION_SAMPLES = 256  # of the validation split, for searches: one sample is 0.4 percentage points of accuracy
MAX_STEPS = 512  # of sequences that a model with state is calibrated with
BAND_SPLIT = "test"  # nothing is chosen by the band, so the test split may be used


@dataclass(frozen=True)
class Build:
    """`parent` is the float model in the variant's format, `source` what the float model was converted from."""

    variant: Variant
    parent: Path
    source: Path
    samples: Samples

    @property
    def layers(self) -> Mapping[str, Sequence[str]]:
        """Source layer -> names of the nodes of the float model that it became."""
        layers: Mapping[str, Sequence[str]] = json.loads((self.parent / "layers.json").read_text(encoding="utf-8"))
        return layers

    def nodes_of(self, layers: Sequence[str]) -> list[str]:
        return checks.list_nodes(layers, self.layers)

    def quantize(self, folder: Path, calibration_indices: np.ndarray, float_layers: Sequence[str]) -> list[str]:
        """Quantize the float model into `folder`, calibrated with these samples; `float_layers` (of the source) stay float. Returns the
        layers that the format left float by a rule of its own."""
        make, feeds = schema.part(self.variant.module, "make"), self.file_feeds(calibration_indices)
        settings = {**schema.to_plain(self.variant), "keep_int8": self.nodes_of(self.int8_layers())}
        nodes, labelled = self.nodes_of(float_layers), self.accuracy_control_arguments()
        left = make.quantize(self.parent, self.source, folder, self.variant.scheme, settings, feeds, nodes, **labelled)
        if (self.parent / PORTS_FILE).exists():
            shutil.copyfile(self.parent / PORTS_FILE, folder / PORTS_FILE)
        return [layer for layer, its in self.layers.items() if its and {*its} <= {*(left or ())}]

    def file_feeds(self, indices: np.ndarray) -> Sequence[Mapping[str, np.ndarray]]:
        """What the file itself is fed for these samples, one at a time: of a model with state also its state before each step."""
        feeds = calibration.load_feeds(self.samples, indices)
        if not (self.parent / PORTS_FILE).exists() or not feeds:
            return feeds
        settings = {"threads": 1, **self.variant.engine}
        return calibration.thin_out(isolation.compute_file_feeds(self.variant.module, self.parent, settings, feeds), MAX_STEPS)

    def tail(self) -> dict[str, Any] | None:
        """What stays float behind the last layers: {"operators": names, "bytes": of their constants}; None where nothing does."""
        if self.variant.tail != "float" or artifact.read(self.source).details.get("quantized"):
            return None
        found = schema.part(self.variant.module, "facts").find_tail(self.parent)
        return {"operators": list(found.operators), "bytes": found.bytes} if found.operators else None

    def layers_behind(self, output: str, total: int, start: int, stop: int) -> list[str]:
        """The last source layers behind indices start to stop of an output's axis of `total` elements; [] where the format cannot tell."""
        if self.variant.tail is None:
            return []
        nodes = schema.part(self.variant.module, "facts").find_layers_behind(self.parent, output, total, start, stop)
        return [layer for layer, its in self.layers.items() if set(its) & set(nodes)]

    def float_layers(self) -> list[str]:
        """The source layers that the user keeps in float (keep_float)."""
        return checks.select_layers("keep_float", self.variant.keep_float, self.layers)

    def int8_layers(self) -> list[str]:
        """The source layers that the user keeps at 8 bits where the scheme has fewer (keep_int8)."""
        kept = checks.select_layers("keep_int8", self.variant.keep_int8, self.layers)
        both = sorted(set(kept) & set(self.float_layers()))
        if both:
            raise VariantFailed(f"{', '.join(both)}: named by keep_int8 and by keep_float; remove it from one of them")
        return kept

    def accuracy_control_arguments(self) -> dict[str, Any]:
        """Labelled validation samples, for tools that control accuracy themselves; {} without accuracy_control."""
        if self.variant.accuracy_control is None or self.variant.accuracy_control.drop_points is None:
            return {}
        self.require_classes("accuracy_control.drop_points")
        indices = self.validation_indices()
        return {"validation": (self.file_feeds(indices), self.samples.targets(indices))}

    def layers_reverted_to_float(self, folder: Path) -> list[str]:
        """The source layers that the tool itself left in float in `folder`. VariantFailed where that is all of them."""
        facts = schema.part(self.variant.module, "facts").facts(folder)
        floats = {node["name"] for node in facts["nodes"] if node["weights_dtype"].startswith("float")}
        if len(floats) == len(facts["nodes"]):
            raise VariantFailed("accuracy_control: the tool reverted every layer to float; raise drop_points, or use int8-mixed")
        return [path for path, nodes in self.layers.items() if nodes and floats.issuperset(nodes)]

    def validation_indices(self) -> np.ndarray:
        """The samples by which a search chooses layers. VariantFailed without any."""
        indices = self.samples.indices("validation")[:VALIDATION_SAMPLES]
        if not len(indices):
            raise VariantFailed(
                "data.splits.validation: the split is empty, but the layers that stay in float are chosen on it; give it a share, for"
                " example 0.1"
            )
        return indices

    def run(self, folder: Path, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The outputs of the model in `folder` for these samples, each [n, ...], computed in a process of its own."""
        settings = {"threads": 1, **self.variant.engine}
        return dict(isolation.compute_outputs(self.variant.module, folder, settings, self.samples.feeds(indices)))

    def accuracy(self, outputs: Mapping[str, np.ndarray], indices: np.ndarray) -> float:
        """Top-1 accuracy by the first output, 0..1. VariantFailed where the targets are not classes."""
        self.require_classes("accuracy")
        return float((next(iter(outputs.values())).argmax(axis=1) == self.samples.targets(indices)).mean())

    def require_classes(self, setting: str) -> None:
        if self.samples.kind != CLASSES:
            raise VariantFailed(f"{setting}: needs the accuracy of classes, but the targets are {self.samples.kind}; remove the setting")

    def accuracy_band(self, float_layers: Sequence[str], seed: int) -> dict[str, Any] | None:
        """How much accuracy depends on which samples the model was calibrated with.

        Accuracies on the test split with each of `calibration.resamples` other calibration sets, their min and max; None for 0.
        """
        settings = self.variant.calibration
        if settings is None or settings.resamples == 0:
            return None
        self.require_classes("calibration.resamples")
        indices, accuracies = self.samples.indices(BAND_SPLIT), []
        sets = calibration.resample(self.samples, settings.samples, settings.resamples, seed)
        for drawn in tqdm(sets, desc=f"{self.variant.name}: recalibrate", unit="set", disable=None):
            with tempfile.TemporaryDirectory() as scratch:
                self.quantize(Path(scratch), drawn, float_layers)
                accuracies.append(self.accuracy(self.run(Path(scratch), indices), indices))
        digests = [calibration.describe(drawn)["sha256"] for drawn in sets]
        return {"accuracies": accuracies, "min": min(accuracies), "max": max(accuracies), "sets": digests, "split": BAND_SPLIT}
