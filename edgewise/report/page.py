"""report.html: everything on one page that needs no network. The template is page/page.html; this is what it is filled with."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from edgewise.artifacts import artifact
from edgewise.artifacts import records as results
from edgewise.artifacts.figures import figure
from edgewise.artifacts.records import METRICS, Interval, Summary, VariantSummary
from edgewise.config import schema
from edgewise.config.schema import Config
from edgewise.plugins import PrimaryMetric
from edgewise.report import examples, findings, table, verdicts
from edgewise.report.changes import changes, steps
from edgewise.report.rows import Judge

NAME = "report.html"
MODELS = Path("models")
TEMPLATES = Path(__file__).with_name("page")
POINT_FIGURES = (  # names of artifacts.figures
    *("format", "scheme", "sqnr_db", "latency_p50_ms", "latency_p50_ci95_ms", "size_bytes"),
    *("latency_ratio_to_reference", "latency_ratio_ci95", "peak_rss_bytes", "peak_rss_above_baseline_bytes", "noise_grade"),
)
PAIRED = ("mcnemar_p", "agreement", "kl_nats")


def render(summary: Summary, settings: Config) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"signed": table.signed, "mb": megabytes, "yaml": plain_yaml, "flat": flat, "known": known_scores}
    environment.filters |= {"limit": findings.limit_cell, "throttling": findings.throttling, "running": findings.own_and_mapped}
    environment.globals |= {"marks": table.marks}
    return environment.get_template("page.html").render(context(summary, settings))


def write(summary: Summary, settings: Config, folder: Path) -> None:
    (folder / NAME).write_text(render(summary, settings), encoding="utf-8")


def context(summary: Summary, settings: Config) -> dict[str, Any]:
    """What the template names."""
    focus, task = focused(summary), Judge.of(settings.task).task
    return {
        "columns": table.columns(summary),
        "objectives": table.objectives(summary),
        "metric": schema.to_plain(summary.primary_metric),
        "summary": summary,
        "settings": settings,
        "rows": table.ordered(summary),
        "reading": table.explain(summary)[0],
        "unresolved": table.unresolved(summary),
        "on_device": table.on_device(summary),
        "focus": focus,
        "cards": list(cards(summary)),
        "changes": changes(summary.variants[summary.reference], summary.variants[focus], summary.primary_metric) if focus else [],
        "steps": steps(summary, focus) if focus else [],
        "points": [point(name, row, summary) for name, row in summary.variants.items() if row.ok and answered(row)],
        "most_memory": max((max(row.memory.steps.values()) for row in summary.variants.values() if row.memory), default=0),
        **findings.sections(summary),
        "engines": {name: (found.reason, list(findings.rows(found))) for name, found in findings.grids(summary).items()},
        "engine_titles": findings.TITLES,
        "classes": examples.classes(summary.reference, focus) if focus else [],
        "pictures": examples.pictures(summary.reference, focus, task) if focus else [],
        "files": {name: artifact.read(MODELS / "variants" / name) for name in summary.variants},
        "records": records(),
    }


def focused(summary: Summary) -> str | None:
    """The variant that the page sets against the reference: the chosen one, else the fastest that is ok."""
    if summary.chosen:
        return summary.chosen
    others = [name for name, row in table.ordered(summary) if row.ok and name != summary.reference and answered(row)]
    return others[0] if others else None


def answered(row: VariantSummary) -> bool:
    """Whether it was evaluated: with a score, or where nothing is judged with an agreement of outputs."""
    return row.quality.score is not None or row.quality.sqnr_db is not None


def cards(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Title, variant and figure of what is best in one thing; a speed is named only where it may be claimed."""
    ok = {name: row for name, row in summary.variants.items() if row.ok}
    base = summary.variants[summary.reference]
    fastest = verdicts.leaders({name: row for name, row in ok.items() if row.latency.verdict == verdicts.FASTER})
    if fastest:
        speed = f"at least {1 / verdicts.slowest(ok[fastest[0]]):.1f} times as fast as {summary.reference}"
        if len(fastest) == 1:
            yield "fastest", fastest[0], f"{speed}{but(ok[fastest[0]], summary.primary_metric)}"
        else:
            yield "fastest: cannot tell", " or ".join(fastest), f"their intervals overlap; {fastest[0]} is {speed}"
    sized = {name: row.file.size_bytes for name, row in ok.items() if row.file.size_bytes}
    if sized and base.file.size_bytes:
        name = min(sized, key=lambda n: sized[n])
        yield (
            "smallest",
            name,
            f"{sized[name] / 1e6:.1f} MB, {base.file.size_bytes / sized[name]:.1f} times smaller{but(ok[name], summary.primary_metric)}",
        )
    lean = {
        name: row.memory.peak_rss_above_baseline_bytes
        for name, row in ok.items()
        if row.memory and row.memory.peak_rss_above_baseline_bytes
    }
    if lean:
        name = min(lean, key=lambda n: lean[n])
        yield "least memory", name, f"{lean[name] / 1e6:.0f} MB above its runtime's own{but(ok[name], summary.primary_metric)}"


def but(row: VariantSummary, metric: PrimaryMetric | None) -> str:
    return f", {metric.title} {metric.worse}" if metric and row.quality.verdict == metric.worse else ""


def point(name: str, row: VariantSummary, summary: Summary) -> dict[str, Any]:
    """What the script draws."""
    shown = {name: figure(row, name) for name in POINT_FIGURES}
    judged = {"score": row.quality.score, "score_delta": row.quality.delta, "score_delta_ci95": row.quality.delta_ci95}
    marks = {"pareto": name in summary.pareto, "chosen": name == summary.chosen, "reference": name == summary.reference}
    return {"name": name, **shown, **judged, **marks, "verdict": table.verdict(row, summary.primary_metric)}


def records() -> Mapping[str, Any]:
    """Of the data and of the training, as far as they are there; without the curve."""
    found = {name: results.read_plain(path) for name in ("data", "train") if (path := METRICS / f"{name}.json").exists()}
    return {name: {key: value for key, value in record.items() if key not in ("schema", "curve")} for name, record in found.items()}


def megabytes(size: float | None, digits: int = 1) -> str:
    return "" if size is None else f"{size / 1e6:,.{digits}f}"


def known_scores(scores: Mapping[str, Any]) -> str:
    """The scores that stand on their own, each with its interval where it has one; what the pair tells is shown beside them."""
    shown = {key: value for key, value in scores.items() if isinstance(value, float) and key not in PAIRED}
    return ", ".join(f"{key.replace('_', ' ')} {value:.4g}{between(scores.get(f'{key}_ci95'))}" for key, value in shown.items())


def between(interval: Interval) -> str:
    return table.bracket(interval, lambda bound: f"{bound:.4g}")


def flat(value: Any) -> str:
    """A fact in one line: lists by comma, mappings as `key value`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {flat(inner)}" for key, inner in value.items())
    return ", ".join(map(flat, value)) if isinstance(value, (list, tuple)) else str(value)


def plain_yaml(content: Any) -> str:
    return yaml.safe_dump(schema.to_plain(content), sort_keys=False, allow_unicode=True)
