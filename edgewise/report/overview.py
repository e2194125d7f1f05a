"""The report stage: all results of a run as one summary, and the files that are made of it.

metrics/points.json and the confusion lists are what `dvc plots show` draws; metrics/variants is what `dvc metrics show` lists.
"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest, building, write_json
from edgewise.artifacts.records import METRICS, Summary, VariantSummary
from edgewise.config import schema
from edgewise.measure import collecting, threads
from edgewise.plugins import Decisions, PrimaryMetric
from edgewise.report import choice, explain, figure, page, rows, sanity, table, verdicts

REPORT = Path("models/report")
COMPARED = METRICS / "variants"


def summarize(settings: schema.Config) -> Summary:
    """Read all results, judge them and choose. Raises EdgewiseError where results do not belong together: run `dvc repro`."""
    device = read_device(settings)
    metric = rows.Judge.of(settings.task).task.PRIMARY_METRIC
    trust = collecting.read_trust()
    pooled = rows.pool_rows(rows.read_rows(settings), collecting.read_visits(), trust, settings.reference)
    found = verdicts.add_verdicts(pooled, settings.reference, metric, settings.margins)
    answers = read_class_answers(settings)
    judged = sanity.add_warnings(explain.explain_rows(found, device["facts"]), answers, settings.reference)
    reference = judged[settings.reference]
    chosen = choice.choose(judged, settings.budget, metric, reference.quality.score)
    problems = (
        [] if reference.ok else [f"the reference {settings.reference} failed, so nothing could be compared with it: {reference.reason}"]
    )
    problems += sanity.warn_of_source(settings.reference, answers.get(settings.reference))
    problems += sanity.warn_of_low_score(settings.reference, reference.quality.score, metric)
    problems += verdicts.warn_of_other_devices(judged, device["fingerprint"])
    problems += warn_of_crowded_cores(judged, device)
    return Summary(
        margins=settings.margins,
        reference=settings.reference,
        device=device,
        variants=judged,
        pareto=verdicts.pareto_front(judged, metric, settings.margins),
        chosen=chosen.chosen,
        chosen_reason=chosen.reason,
        budget=settings.budget,
        primary_metric=metric,
        runners_up=chosen.runners_up,
        losers=dict(chosen.losers or {}),
        nearest_miss=chosen.nearest_miss,
        aa_ratio_ci95=reference.latency.ratio_ci95,
        trust=trust,
        warnings=(*problems, *rows.read_data_notes(), *records.read_plain(METRICS / "train.json").get("warnings", ())),
    )


def warn_of_crowded_cores(found: verdicts.Rows, device: Mapping[str, Any]) -> list[str]:
    """Where variants were timed with more threads than the device has cores."""
    most = max((row.conditions.threads for row in found.values() if row.conditions and not row.conditions.emulated), default=1)
    warning = threads.warn_of_threads(most, device["facts"], device["name"])
    return [warning] if warning else []


def read_class_answers(settings: schema.Config) -> dict[str, Decisions]:
    """The class that each variant gives each test sample; empty where the task asks for something else."""
    task = rows.Judge.of(settings.task).task
    found = {name: rows.read_decisions(name, task) for name in settings.variants} if task.TARGETS == "classes" else {}
    return {name: decisions for name, decisions in found.items() if decisions}


def read_device(settings: schema.Config) -> dict[str, Any]:
    """metrics/device.json, with the versions of metrics/runtimes.json as `packages`; the name alone where the pipeline ran without a
    device."""
    path = METRICS / "device.json"
    if not path.exists():
        return {"name": settings.device.name, "fingerprint": None, "facts": {}, "packages": {}}
    packages = records.read_plain(METRICS / "runtimes.json")["packages"]
    return {**{key: value for key, value in records.read_plain(path).items() if key != "schema"}, "packages": packages}


def write_report(summary: Summary, settings: schema.Config) -> None:
    """Write models/report, metrics/report.md, points.json and summary.json."""
    with building(REPORT) as folder:
        figure.draw_figure(summary, folder)
        page.write_page(summary, settings, folder)
        for name in summary.variants:
            decided = rows.read_decisions(name, rows.Judge.of(settings.task).task)
            if decided:
                write_json(folder / "confusion" / f"{name}.json", list(confusion_pairs(decided)))
        artifact.write(folder, Manifest(kind="report"))
    (METRICS / "report.md").write_text(table.markdown_report(summary), encoding="utf-8")
    write_json(METRICS / "points.json", scatter_points(summary))
    write_compared(summary)
    records.write_summary(summary)


def write_compared(summary: Summary) -> None:
    """Write COMPARED: one small file for each variant, which `dvc metrics show` and `dvc exp show` take their columns from."""
    shutil.rmtree(COMPARED, ignore_errors=True)
    for name, row in summary.variants.items():
        write_json(COMPARED / f"{name}.json", compared_values(row, summary.primary_metric))


def compared_values(row: VariantSummary, metric: PrimaryMetric | None) -> dict[str, Any]:
    """What a user compares, as numbers with the digits that the table shows; of a failed variant what is known."""
    values = {
        metric.name if metric else "sqnr_db": verdicts.score_or_agreement(row, metric),
        "ratio": row.latency.ratio_to_reference,
        "size_mb": None if row.file.size_bytes is None else row.file.size_bytes / 1e6,
        "peak_mb": row.memory.peak_rss_bytes / 1e6 if row.memory else None,
    }
    return {key: float(f"{value:.4g}") for key, value in values.items() if value is not None} or {"status": row.status}


def scatter_points(summary: Summary) -> list[dict[str, Any]]:
    """One point for each variant with a latency: score against latency. The score also stands under the metric's own name.

    Where the task judges nothing the agreement stands for the score, also under `sqnr_db`.
    """
    named = summary.primary_metric.name if summary.primary_metric else "sqnr_db"
    return [
        {
            "variant": name,
            "format": row.format,
            "scheme": row.scheme,
            **dict.fromkeys(("score", named), verdicts.score_or_agreement(row, summary.primary_metric)),
            "latency_p50_ms": row.latency.p50_ms,
            "size_mb": round((row.file.size_bytes or 0) / 1e6, 3),
            "pareto": name in summary.pareto,
        }
        for name, row in summary.variants.items()
        if row.ok and row.latency.p50_ms is not None
    ]


def confusion_pairs(decided: Decisions) -> Iterator[dict[str, str]]:
    """{"actual", "predicted"} of every test sample, as DVC's confusion template reads them."""
    for truth, said in zip(decided.truth, decided.decided, strict=True):
        yield {"actual": truth, "predicted": said}
