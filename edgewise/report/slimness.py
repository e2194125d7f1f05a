"""Variants with fewer channels: their multiply-adds and weights in the table, and what was cut, layer by layer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact
from edgewise.artifacts.records import Summary, VariantSummary

VARIANTS = Path("models/variants")
TITLE = "What was cut out of the source"


@dataclass(frozen=True)
class CutLayer:
    """Channels that a layer makes, before and after."""

    name: str
    before: int
    after: int

    @property
    def left(self) -> float:
        return self.after / self.before


@dataclass(frozen=True)
class Cut:
    """One pruned source: the variants that are made of it, what is left in one sentence, and the layers that lost channels."""

    variants: tuple[str, ...]
    sentence: str
    layers: tuple[CutLayer, ...]


def columns(summary: Summary) -> dict[str, Callable[[VariantSummary], str]]:
    """Millions of multiply-adds for one sample, and of weights in the file; none where all variants do the same arithmetic."""
    if len({row.file.multiply_adds for row in summary.variants.values() if row.ok}) < 2:
        return {}
    return {
        "M mult-adds": lambda row: format_millions(row.file.multiply_adds),
        "M weights": lambda row: format_millions(row.file.weights),
    }


def format_millions(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:.3g}" if count < 1e9 else f"{count / 1e6:.0f}"


def list_cuts(summary: Summary) -> list[Cut]:
    """The pruned sources of the variants that were made here, in their order; a clone that only has the metrics knows of none."""
    found: dict[str, tuple[list[str], dict[str, Any]]] = {}
    for name, row in summary.variants.items():
        made = row.ok and (VARIANTS / name / artifact.MANIFEST).is_file()
        details = artifact.read(VARIANTS / name).details if made else {}
        if "pruned" in details:
            found.setdefault(repr(details["pruned"]), ([], details["pruned"]))[0].append(name)
    return [Cut(tuple(names), describe(cut), list_layers(cut)) for names, cut in found.values()]


def describe(cut: dict[str, Any]) -> str:
    """What is left of multiply-adds and parameters."""
    macs, parameters = (cut[name] / cut[f"{name}_before"] for name in ("multiply_adds", "parameters"))
    settings = cut["settings"]
    epochs = sum(step["epochs"] for step in cut["steps"])
    steps = "one step" if len(cut["steps"]) == 1 else f"{len(cut['steps'])} steps"
    return (
        f"{macs:.1%} of the multiply-adds ({format_millions(cut['multiply_adds'])} of {format_millions(cut['multiply_adds_before'])} M) and"
        f" {parameters:.1%} of the parameters are left; criterion {settings['criterion']}, {steps}, {epochs} epochs"
    )


def list_layers(cut: dict[str, Any]) -> tuple[CutLayer, ...]:
    layers = (CutLayer(name, layer["before"][0], layer["after"][0]) for name, layer in cut["layers"].items())
    return tuple(layer for layer in layers if layer.after < layer.before)


def markdown_tables(summary: Summary) -> list[str]:
    """For report.md: one line for each pruned source; the layers are on the page."""
    cuts = list_cuts(summary)
    return ["", f"{TITLE}:", "", *(f"- {', '.join(cut.variants)}: {cut.sentence}" for cut in cuts)] if cuts else []
