"""All results of a run as one summary, and what is written of it."""

from pathlib import Path

from edgewise.artifacts import artifact, records
from edgewise.artifacts.artifact import Manifest, building, write_json
from edgewise.artifacts.records import METRICS, SUMMARY, Summary
from edgewise.config import schema
from edgewise.report import choice, examples, explain, figure, page, rows, table, verdicts

REPORT = Path("models/report")
NEXT = f"""where to look next:
  {REPORT}/{page.NAME} (open it in a browser)  {REPORT}/{figure.NAME}.png  {METRICS}/report.md  {SUMMARY}
  mlflow ui --backend-store-uri sqlite:///$PWD/mlflow.db      the runs of every repro, side by side
  dvc metrics diff        dvc plots show        python -m stages.report --check"""


def summarize(settings: schema.Config) -> Summary:
    where = device(settings)
    metric = rows.Judge.of(settings.task).task.PRIMARY_METRIC
    judged = explain.explain(verdicts.judge(rows.rows(settings), settings.reference, metric), where["facts"])
    reference = judged[settings.reference]
    chosen = choice.choose(judged, settings.budget, metric, reference.quality.score)
    trouble = (
        [] if reference.ok else [f"the reference {settings.reference} failed, so nothing could be compared with it: {reference.reason}"]
    )
    trouble += verdicts.elsewhere(judged, where["fingerprint"])
    return Summary(
        reference=settings.reference,
        device=where,
        variants=judged,
        pareto=verdicts.pareto(judged, metric),
        chosen=chosen.chosen,
        chosen_reason=chosen.reason,
        budget=settings.budget,
        primary_metric=metric,
        runners_up=chosen.runners_up,
        losers=dict(chosen.losers or {}),
        nearest_miss=chosen.nearest_miss,
        aa_ratio_ci95=reference.latency.ratio_ci95,
        warnings=(*trouble, *records.read_plain(METRICS / "train.json").get("warnings", ())),
    )


def device(settings: schema.Config) -> dict:
    """metrics/device.json; the name alone where the pipeline ran without a device."""
    path = METRICS / "device.json"
    if not path.exists():
        return {"name": settings.device.name, "fingerprint": None, "facts": {}}
    return {key: value for key, value in records.read_plain(path).items() if key != "schema"}


def write(summary: Summary, settings: schema.Config) -> None:
    with building(REPORT) as folder:
        figure.draw(summary, folder)
        page.write(summary, settings, folder)
        for name in summary.variants:
            decided = examples.decisions(name, rows.Judge.of(settings.task).task)
            if decided:
                write_json(folder / "confusion" / f"{name}.json", list(figure.confusion(decided)))
        artifact.write(folder, Manifest(kind="report"))
    (METRICS / "report.md").write_text(table.markdown(summary), encoding="utf-8")
    write_json(METRICS / "points.json", figure.points(summary))
    records.write_summary(summary)


def check(summary: Summary) -> int:
    """The exit code for a user's CI, with one line for each thing that is wrong."""
    faults = [f"{name} failed: {row.reason}" for name, row in summary.failed.items()]
    if summary.chosen is None and choice.limits(summary.budget):
        faults.append(f"the budget '{summary.budget.name}' is missed: {summary.chosen_reason}")
        faults += [f"  {name}: {'; '.join(found)}" for name, found in summary.losers.items() if summary.variants[name].ok]
    print("\n".join(faults) or f"all {len(summary.variants)} variants are ok; chosen: {summary.chosen or 'none'}, {summary.chosen_reason}")
    return 1 if faults else 0
