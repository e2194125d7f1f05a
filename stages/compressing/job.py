"""One variant in the making: everything that a call of the format's `quantize` needs, but the layers to keep float."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stages.core import calibrating, config, isolation, proof
from stages.core.errors import VariantFailed
from stages.core.samples import Samples
from stages.core.targets import CLASSES
from stages.core.variant import Variant

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
        return proof.nodes_of(kept, self.layers)

    def write(self, folder: Path, indices: np.ndarray, kept: Sequence[str]) -> None:
        """Quantize into `folder`, calibrated with these samples, these source layers in float."""
        make, feeds = config.part(self.variant.module, "make"), calibrating.feeds(self.samples, indices)
        settings = {**config.to_plain(self.variant), "keep_int8": self.nodes(self.in_int8())}
        make.quantize(self.parent, self.source, folder, self.variant.scheme, settings, feeds, self.nodes(kept), **self.judging())

    def in_float(self) -> list[str]:
        """The source layers that the user keeps float."""
        return proof.named_layers("keep_float", self.variant.keep_float, self.layers)

    def in_int8(self) -> list[str]:
        """The source layers that the user keeps in 8 bits where the scheme has fewer."""
        kept = proof.named_layers("keep_int8", self.variant.keep_int8, self.layers)
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
        return {"validation": (calibrating.feeds(self.samples, indices), self.samples.targets(indices))}

    def left_float(self, folder: Path) -> list[str]:
        """The source layers that the tool itself left in float. VariantFailed where that is all of them."""
        facts = config.part(self.variant.module, "facts").facts(folder)
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
