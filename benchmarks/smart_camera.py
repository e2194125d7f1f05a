"""docs/smart-camera.md from the results of its study: what was measured, on which processor, and which goals are met.

    make case-study                         # or, in a project with the choices of the study: dvc repro
    python -m benchmarks.smart_camera       --results metrics/studies/smart-camera, --out docs/smart-camera.md

Writes the part of the page between the two markers. The results are a folder of the study, or metrics/ of such a project. A goal is met
only if the whole 95 % interval lies within it, and missed only if the whole interval lies beyond it.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.readme import between, variants_table, vector_instructions
from edgewise.artifacts.records import Summary, VariantSummary, read_plain, read_summary
from edgewise.config.compose import read_choices
from edgewise.report import changes, slimness
from edgewise.report.table import format_signed
from edgewise.stats.claims import NOT_RESOLVED

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "metrics/studies/smart-camera", ROOT / "docs/smart-camera.md"
BEGIN, END = "<!-- results: python -m benchmarks.smart_camera -->", "<!-- end of results -->"
CHOSEN, FASTEST, SMALLEST = "chosen", "fastest", "smallest"
TOP1 = "accuracy_top1_delta"


@dataclass(frozen=True)
class Span:
    """A change or a loss with its 95 % interval; less is better. Both ends are the value where it is counted."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Goal:
    """limit: the largest change against the reference in per cent, or the largest loss in points."""

    what: str
    role: str
    limit: float
    unit: str
    measure: Callable[[VariantSummary, VariantSummary], Span | None]

    def judge(self, found: Span) -> str:
        return "met" if found.high <= self.limit else "missed" if found.low > self.limit else NOT_RESOLVED


def size_change(after: VariantSummary, before: VariantSummary) -> Span | None:
    return counted(after.file.size_bytes, before.file.size_bytes)


def memory_change(after: VariantSummary, before: VariantSummary) -> Span | None:
    peaks = [row.memory.peak_rss_bytes if row.memory else None for row in (after, before)]
    return counted(*peaks)


def counted(after: int | None, before: int | None) -> Span | None:
    if after is None or not before:
        return None
    change = 100 * (after / before - 1)
    return Span(change, change, change)


def latency_change(after: VariantSummary, before: VariantSummary) -> Span | None:
    """By the interleaved ratio."""
    ratio, interval = after.latency.ratio_to_reference, after.latency.ratio_ci95
    if ratio is None or interval is None:
        return None
    return Span(*(100 * (each - 1) for each in (ratio, *interval)))


def auroc_loss(after: VariantSummary, before: VariantSummary) -> Span | None:
    return loss(after.quality.delta, after.quality.delta_ci95)


def top1_loss(after: VariantSummary, before: VariantSummary) -> Span | None:
    scores = after.quality.scores
    return loss(scores.get(TOP1), scores.get(f"{TOP1}_ci95"))


def loss(delta: float | None, interval: Sequence[float] | None) -> Span | None:
    """Points lost, of a score that is better when it is higher."""
    if delta is None or interval is None:
        return None
    return Span(-100 * delta, -100 * interval[1], -100 * interval[0])


GOALS = (
    Goal("size", CHOSEN, -95.0, "%", size_change),
    Goal("latency p50", CHOSEN, -95.0, "%", latency_change),
    Goal("peak memory", CHOSEN, -82.0, "%", memory_change),
    Goal("AUROC lost", CHOSEN, 0.3, "points", auroc_loss),
    Goal("top-1 lost", CHOSEN, 0.3, "points", top1_loss),
    Goal("latency p50", FASTEST, -97.0, "%", latency_change),
    Goal("size", SMALLEST, -97.0, "%", size_change),
    Goal("AUROC lost", SMALLEST, 0.5, "points", auroc_loss),
    Goal("top-1 lost", SMALLEST, 0.5, "points", top1_loss),
)


def find_variant(summary: Summary, role: str) -> str | None:
    """The variant of a role; where the budget chooses none, the one that comes nearest to it."""
    if role == CHOSEN:
        return summary.chosen or summary.nearest_miss
    return next((name for name, roles in changes.pick_variants(summary).items() if any(role in given for given in roles)), None)


def goals_table(summary: Summary) -> str:
    lines = ["| goal | variant | measured | |", "|---|---|---|---|"]
    before = summary.variants[summary.reference]
    for goal in GOALS:
        name = find_variant(summary, goal.role)
        found = goal.measure(summary.variants[name], before) if name else None
        asked = f"{goal.what}, {goal.role}: at most {format_amount(goal.limit, goal)}"
        measured, said = (format_span(found, goal), goal.judge(found)) if found else ("not measured", "")
        lines.append(f"| {asked} | {name or 'none'} | {measured} | {said} |")
    return "\n".join(lines)


def format_span(found: Span, goal: Goal) -> str:
    interval = "" if found.low == found.high else f" [{show(found.low, goal)}, {show(found.high, goal)}]"
    return f"{show(found.value, goal)}{interval} {goal.unit}"


def format_amount(value: float, goal: Goal) -> str:
    return f"{show(value, goal)} {goal.unit}"


def show(value: float, goal: Goal) -> str:
    """A change is signed; a loss only where it is a gain."""
    digits = 1 if goal.unit == "%" else 2
    return format_signed(value, digits) if goal.unit == "%" or value < 0 else f"{value:.{digits}f}"


def describe_run(summary: Summary, training: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """On what machine every figure of this part was measured, and how the source was trained. choices: params.yaml of the run."""
    facts: dict[str, Any] = summary.device["facts"]
    conditions = next(row.conditions for row in summary.variants.values() if row.conditions)
    amx = "with AMX" if "amx_int8" in facts["isa"] else "without AMX"
    threads = "one thread" if conditions.threads == 1 else f"{conditions.threads} threads"
    samples, side = summary.variants[summary.reference].quality.samples or 0, choices["data"]["image_size"]
    return (
        f"Every figure from here to the next line was measured on {facts['cpu']} ({facts['machine']}, {vector_instructions(facts['isa'])};"
        f" {amx}), batch 1, {threads}, profile {conditions.profile}; each variant was judged on {samples:,} test pictures."
        f" Pictures of {side}x{side}; the source was trained for {training['epochs']} epochs, and each slim net for as many more as its"
        " line below says, with the same augmentation. Brackets: 95 % intervals."
    )


def cut_lines(report: str) -> list[str]:
    """What report.md says of each pruned source."""
    after = report.partition(f"{slimness.TITLE}:")[2]
    lines = [line for line in after.strip().splitlines() if line]
    end = next((i for i, line in enumerate(lines) if not line.startswith("- ")), len(lines))
    return lines[:end]


def write_results(folder: Path) -> str:
    """The part of the page between the markers."""
    summary, training = read_summary(folder / "summary.json"), read_plain(folder / "train.json")
    report = (folder / "report.md").read_text(encoding="utf-8")
    parts = [
        describe_run(summary, training, read_choices(find_choices(folder))),
        "## Before and after",
        changes.gains_table(summary).strip(),
        "## What was asked for",
        goals_table(summary),
        "## Every variant",
        variants_table(summary),
        *([f"{slimness.TITLE}:", "\n".join(cut_lines(report))] if cut_lines(report) else []),
        "---",
    ]
    return "\n\n".join(parts)


def find_choices(folder: Path) -> Path:
    """A study keeps its params.yaml beside its results, a project one folder above metrics/."""
    own = folder / "params.yaml"
    return own if own.exists() else folder.resolve().parent / "params.yaml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="of the study, or metrics/ of a project")
    parser.add_argument("--out", type=Path, default=PAGE)
    given = parser.parse_args()
    before, _, after = between(given.out.read_text(encoding="utf-8"), BEGIN, END)
    given.out.write_text(f"{before}{BEGIN}\n\n{write_results(given.results)}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
