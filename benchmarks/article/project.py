"""A project in a temporary folder, made by the stages, and measurements of its variants."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.trust import profile
from edgewise.artifacts import artifact
from edgewise.artifacts.samples import Samples
from edgewise.config import schema
from edgewise.devices import local
from edgewise.measure.pairs import make_pair_runner, measure_pairs
from edgewise.measure.passes import make_memory
from edgewise.measure.results import gather_evidence, grade
from edgewise.measure.runs import PlacedVariant, blocks_by_process, place_variant, store_inputs
from edgewise.stats.timing import median_ratio, pool_samples, ratio_interval

ROOT = Path(__file__).resolve().parents[2]
BENCH = profile("quick")
EAGER = "benchmarks.article.eager"
MEMORY_PROCESSES = 3
CHOICES = {"seed": 0, "device": {"name": "local", "threads": 1}, "bench": {"name": "quick"}, "budget": {"name": "none"}}


@dataclass(frozen=True)
class Ratio:
    """Latency against another subject, interleaved in fresh processes. p50_ms: of the variant; other_p50_ms: of that subject."""

    value: float
    low: float
    high: float
    p50_ms: float
    other_p50_ms: float
    grade: str


@dataclass(frozen=True)
class Span:
    """Median and extremes over processes."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Span":
        return cls(float(np.median(values)), min(values), max(values))


class Project:
    def __init__(self, folder: Path, data: Mapping[str, Any], model: Mapping[str, Any], variants: Mapping[str, Any], epochs: int = 0):
        """Make it. Size, speed and memory do not depend on what the weights are, so they need not be trained."""
        folder.mkdir()
        self.models = folder / "models"
        (folder / "conf").symlink_to(ROOT / "conf")
        train, reference = {"name": "default", "epochs": epochs, "shift_pixels": 0}, next(iter(variants))
        choices = {**CHOICES, "data": data, "model": model, "train": train, "reference": reference, "variants": variants}
        (folder / "params.yaml").write_text(yaml.safe_dump(choices), encoding="utf-8")
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, "-m", "benchmarks.article.make"], cwd=folder, env=environment, check=True, stdout=sys.stderr)
        self.configuration = schema.read(self.models / "config.yaml")

    def manifest(self, name: str) -> artifact.Manifest:
        return artifact.read(self.models / "variants" / name)

    def subject(self, name: str, engine: Mapping[str, Any] | None = None) -> PlacedVariant:
        """A variant, where `engine` is given with these settings instead of its own."""
        variant = self.configuration.variant(name)
        used = variant if engine is None else replace(variant, engine=dict(engine))
        return place_variant(used, self.models, self._inputs, self._samples, BENCH, self.configuration.device, local.LocalDevice())

    def eager(self, **settings: Any) -> PlacedVariant:
        """The module itself, as the advice begins with it."""
        model = self.subject(self.configuration.reference)
        fields = {**model.fields, "runner": EAGER, "model": str(self.models / "source"), "settings": {"threads": 1, **settings}}
        return replace(model, name="eager", fields=fields)

    @cached_property
    def _samples(self) -> Samples:
        return Samples.open(self.models / "data")

    @cached_property
    def _inputs(self) -> str:
        store_inputs(self._samples, BENCH.scope, self.models)
        return str(self.models / "inputs.npz")

    def against_eager(self, measured: PlacedVariant) -> Ratio:
        return self.against(measured, self.eager())

    def against(self, measured: PlacedVariant, other: PlacedVariant, bench: schema.Bench = BENCH) -> Ratio:
        found = measure_pairs(make_pair_runner(measured, other, bench), bench, measured.name)
        sides = blocks_by_process(found.variant), blocks_by_process(found.reference)
        noise, _ = grade(gather_evidence(found.variant, found.reference))
        p50, other_p50 = (float(np.median(pool_samples(side))) for side in sides)
        return Ratio(median_ratio(*sides), *ratio_interval(*sides), p50, other_p50, noise)


Made = Callable[[], Project]  # makes the camera's project at the first call


def peaks(measured: PlacedVariant) -> tuple[Span, Span]:
    """Peak memory above the runtime's import, and in all; MB."""
    found = [make_memory(measured.memory()) for _ in range(MEMORY_PROCESSES)]
    above, whole = ([getattr(memory, key) / 1e6 for memory in found] for key in ("peak_rss_above_baseline_bytes", "peak_rss_bytes"))
    return Span.of(above), Span.of(whole)
