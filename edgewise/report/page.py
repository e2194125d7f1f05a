"""report.html: the report as one page that needs no network.

The template is page/page.html; `build_context` gives the values that it names. Beside the figures the page shows which classes changed,
and test pictures that one of two variants gets right and the other wrong.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from edgewise.artifacts import artifact, targets
from edgewise.artifacts.flat_metrics import get_metric
from edgewise.artifacts.records import METRICS, Interval, Summary, VariantSummary, read_plain
from edgewise.config import schema
from edgewise.config.choices import subject
from edgewise.config.schema import Config
from edgewise.plugins import PrimaryMetric
from edgewise.report import answer, findings, gallery, slimness, table, verdicts
from edgewise.report.changes import find_steps, list_changes, score_heading
from edgewise.report.rows import Judge, read_data_notes
from edgewise.stats.claims import FASTER, IDENTICAL, WORSE

NAME = "report.html"
MODELS = Path("models")
TEMPLATES = Path(__file__).with_name("page")
POINT_FIGURES = (  # names of artifacts.flat_metrics
    *("format", "scheme", "sqnr_db", "latency_p50_ms", "latency_p50_ci95_ms", "size_bytes"),
    *("latency_ratio_to_reference", "latency_ratio_ci95", "peak_rss_bytes", "peak_rss_above_baseline_bytes", "noise_grade"),
)
PAIRED = ("mcnemar_p", "agreement", "kl_nats")
MOST_CLASSES = 20
FEW = 10  # samples or objects of a class, below which a change says little
PER_CLASS = {  # in details.json -> what it is, and what is counted beside it
    "recall_per_class": ("Recall", "samples"),
    "map_50_95_per_class": ("Average precision (50:95)", "objects"),
    "iou_per_class": ("Intersection over union", "pixels"),
}
LEAK = "are in two of the data's own splits"  # in the one note on the data that makes scores wrong


def write_page(summary: Summary, settings: Config, folder: Path) -> None:
    (folder / NAME).write_text(render(summary, settings), encoding="utf-8")


def render(summary: Summary, settings: Config) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "signed": table.format_signed,
        "mb": format_megabytes,
        "yaml": format_yaml,
        "flat": format_fact,
        "installed": keep_installed,
        "known": format_scores,
        "code": mark_code,
    }
    environment.filters |= {
        "limit": findings.format_limited_run,
        "throttling": findings.describe_throttling,
        "running": findings.format_memory,
    }
    environment.globals |= {"marks": table.format_marks}
    return environment.get_template("page.html").render(build_context(summary, settings))


def mark_code(text: str) -> Any:
    """A line of ours as HTML: what stands in backticks as code."""
    from markupsafe import Markup, escape

    parts = [escape(part) for part in text.split("`")]
    return Markup("").join(part if i % 2 == 0 else Markup("<code>{}</code>").format(part) for i, part in enumerate(parts))


def build_context(summary: Summary, settings: Config) -> dict[str, Any]:
    """The values that the template names."""
    focus, task = choose_focus(summary), Judge.of(settings.task).task
    return {
        "columns": table.brief_columns(summary),
        "objectives": table.name_objectives(summary),
        "metric": schema.to_plain(summary.primary_metric),
        "score_heading": score_heading(summary.primary_metric),
        "summary": summary,
        "settings": settings,
        "subject": f"{subject(settings.model)} on {subject(settings.data)}",
        "rows": table.sort_variants(summary),
        "hold": table.describe_hold(summary),
        "alarms": [text for text in summary.warnings if not is_calm(text)],
        "notes": [text for text in summary.warnings if is_calm(text)],
        "disturbances": findings.describe_disturbances(summary),
        "reading": table.explain_table(summary)[0],
        "unresolved": table.describe_margins(summary) + table.describe_lost(summary) + table.describe_unresolved(summary),
        "on_device": table.describe_agreement(summary),
        "focus": focus,
        "focus_is": describe_focus(summary, focus),
        "cards": list(make_cards(summary)),
        "changes": list_changes(summary.variants[summary.reference], summary.variants[focus], summary.primary_metric) if focus else [],
        "steps": find_steps(summary, focus) if focus else [],
        "points": [plot_point(name, row, summary) for name, row in summary.variants.items() if row.ok and was_evaluated(row)],
        "most_memory": max((max(row.memory.steps.values()) for row in summary.variants.values() if row.memory), default=0),
        **findings.page_sections(summary),
        "engines": {name: (found.reason, list(findings.engine_rows(found))) for name, found in findings.engine_grids(summary).items()},
        "engine_titles": findings.TITLES,
        "output_title": table.OUTPUTS_TITLE,
        "output_tables": table.output_tables(summary),
        "cuts": slimness.list_cuts(summary),
        "cut_title": slimness.TITLE,
        "classes": class_changes(summary.reference, focus) if focus else [],
        "by_class": read_by_class(focus) if focus else None,
        "few": FEW,
        "pictures": gallery.pick_pictures(summary.reference, focus, task) if focus else [],
        "views": describe_views(summary, focus),
        "drawn": gallery.draw_changes(summary.reference, focus, task) if focus else [],
        "files": {name: artifact.read(MODELS / "variants" / name) for name in summary.variants},
        "records": read_run_records(),
    }


def choose_focus(summary: Summary) -> str | None:
    """What the page compares with the reference: the chosen variant; where none is, or the reference itself, the first other one of the
    table that is ok. None: there is none."""
    if summary.chosen not in (None, summary.reference):
        return summary.chosen
    others = [name for name, row in table.sort_variants(summary) if row.ok and name != summary.reference and was_evaluated(row)]
    return others[0] if others else None


def describe_focus(summary: Summary, focus: str | None) -> str:
    """What the compared variant is where it is not the chosen one, to follow its name."""
    if focus in (None, summary.chosen):
        return ""
    return ", the fastest of the others" if verdicts.makes_claims(summary.variants) else ", the first of the others in the table"


def describe_views(summary: Summary, focus: str | None) -> str:
    """What the drawn pictures show: boxes, of each of the two above its own threshold, or classes of pixels."""
    if focus is None:
        return ""
    shown = [(name, table.format_threshold(summary.variants[name])) for name in (summary.reference, focus)]
    before, after = (f"{name} with its boxes above {threshold}" if threshold else name for name, threshold in shown)
    if not shown[0][1]:
        return f"The truth, {before} and {after}{describe_focus(summary, focus)}, with the class of each pixel."
    return (
        f"The truth, {before}, and {after}{describe_focus(summary, focus)}: each has its own threshold here and in a bundle. What only one"
        " of the two has, and the share of detections lost, are counted at that of the reference."
    )


def is_calm(warning: str) -> bool:
    """Whether a warning of the summary is a note on the data that leaves the figures right."""
    return warning in read_data_notes() and LEAK not in warning


def was_evaluated(row: VariantSummary) -> bool:
    """Whether the variant has a score or, where the task judges nothing, an agreement of outputs."""
    return row.quality.score is not None or row.quality.sqnr_db is not None


def make_cards(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """(title, variant, figure) of the fastest, the smallest and the leanest variant; the fastest only where a claim holds."""
    ok = {name: row for name, row in summary.variants.items() if row.ok}
    fastest = verdicts.fastest_group({name: row for name, row in ok.items() if row.latency.verdict == FASTER})
    if fastest:
        first = ok[fastest[0]]
        least = answer.format_least_times(1 / verdicts.worst_ratio(first))
        speed = f"at least {least} times as fast as {summary.reference}{verdicts.say_within(first.latency)}"
        if len(fastest) == 1:
            yield "fastest", fastest[0], f"{speed}{score_caveat(first, summary.primary_metric)}"
        else:
            yield "fastest: cannot tell", " or ".join(fastest), f"their intervals overlap; {fastest[0]} is {speed}"
    yield from least_cards(summary)


def least_cards(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """The smallest variant and the one with the least memory: those that the terminal names."""
    roles = answer.find_roles(summary)
    for role in (answer.SMALLEST, answer.LEAST_MEMORY):
        name, why = roles.get(role, (None, ""))
        if name is not None:
            yield role, name, f"{why}{score_caveat(summary.variants[name], summary.primary_metric)}"


def score_caveat(row: VariantSummary, metric: PrimaryMetric | None) -> str:
    """Says so where the score is worse than the reference's; else empty. Where the task judges nothing, the agreement, unless identical."""
    if metric is None:
        agreement = table.format_sqnr(row)
        return f", outputs: SQNR {agreement} dB" if agreement not in ("", IDENTICAL) else ""
    return f", {metric.title} {WORSE}" if row.quality.verdict == WORSE else ""


def plot_point(name: str, row: VariantSummary, summary: Summary) -> dict[str, Any]:
    """The values of a variant that page.js draws."""
    shown = {figure_name: get_metric(row, figure_name) for figure_name in POINT_FIGURES}
    judged = {"score": row.quality.score, "score_delta": row.quality.delta, "score_delta_ci95": row.quality.delta_ci95}
    marks = {"pareto": name in summary.pareto, "chosen": name == summary.chosen, "reference": name == summary.reference}
    return {"name": name, **shown, **judged, **marks, "verdict": table.format_verdict(row, summary.primary_metric)}


def read_run_records() -> Mapping[str, Any]:
    """metrics/data.json and train.json, as far as they exist, without the training curve."""
    found = {name: read_plain(path) for name in ("data", "train") if (path := METRICS / f"{name}.json").exists()}
    return {name: {key: value for key, value in record.items() if key not in ("schema", "curve")} for name, record in found.items()}


@dataclass(frozen=True)
class ClassChange:
    """The figure of one class before and after, as shares; None for a class without test samples. samples: or objects, or pixels."""

    label: str
    samples: int
    before: float | None
    after: float | None

    @property
    def delta(self) -> float:
        return (self.after or 0.0) - (self.before or 0.0)


def class_changes(reference: str, variant: str) -> list[ClassChange]:
    """At most MOST_CLASSES classes, the largest change first, those with fewer than FEW samples or objects after the others; none where the
    task has no figure by class."""
    before, after = read_by_class(reference), read_by_class(variant)
    if before is None or after is None:
        return []
    found = [ClassChange(label, after.counts.get(label, 0), before.figures.get(label), value) for label, value in after.figures.items()]
    return sorted(found, key=lambda change: (change.samples < FEW, -abs(change.delta), change.label))[:MOST_CLASSES]


@dataclass(frozen=True)
class ByClass:
    """title: what the figures are; counted: samples, objects or pixels, see PER_CLASS. figures, counts: of each class that has them."""

    title: str
    counted: str
    figures: Mapping[str, float | None]
    counts: Mapping[str, int]


def read_by_class(name: str) -> ByClass | None:
    """The figures by class of a variant; None where it failed or the task has none."""
    folder = MODELS / "evaluate" / name
    made = artifact.read(folder)
    if not made.ok:
        return None
    details = json.loads((folder / "details.json").read_text(encoding="utf-8"))
    key = next((key for key in PER_CLASS if details.get(key)), None)
    if key is None:
        return None
    if "objects_per_class" in details:
        counts = details["objects_per_class"]
    elif "recall_per_class" in details:
        counts = dict(zip(made.labels, count_labels(np.load(folder / targets.FILE), len(made.labels)).tolist(), strict=True))
    else:
        counts = dict(zip(made.labels, np.sum(details["confusion"], axis=1).tolist(), strict=True))
    return ByClass(*PER_CLASS[key], details[key], counts)


def count_labels(targets: np.ndarray, labels: int) -> np.ndarray:
    """Samples of each label, int [labels], from targets [n] or [n, labels]."""
    return np.bincount(targets, minlength=labels) if targets.ndim == 1 else (targets > 0).sum(axis=0)


def format_megabytes(size: float | None, digits: int = 1) -> str:
    return "" if size is None else f"{size / 1e6:,.{digits}f}"


def format_scores(scores: Mapping[str, Any]) -> str:
    """The variant's own scores, each with its interval where it has one, without those that compare it with the reference."""
    shown = {key: value for key, value in scores.items() if isinstance(value, float) and key not in PAIRED}
    return ", ".join(
        f"{key.replace('_', ' ')} {value:.4g}{format_score_interval(scores.get(f'{key}_ci95'))}" for key, value in shown.items()
    )


def format_score_interval(interval: Interval) -> str:
    return table.format_interval(interval, lambda bound: f"{bound:.4g}")


def format_fact(value: Any) -> str:
    """A fact in one line: lists separated by commas, mappings as `key value`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {format_fact(inner)}" for key, inner in value.items())
    return ", ".join(map(format_fact, value)) if isinstance(value, (list, tuple)) else str(value)


def keep_installed(versions: Mapping[str, str | None]) -> dict[str, str]:
    return {package: version for package, version in versions.items() if version}


def format_yaml(content: Any) -> str:
    return yaml.safe_dump(schema.to_plain(content), sort_keys=False, allow_unicode=True)
