"""A sweep in MLflow: a parent run, and below it a run for each row of metrics/sweeps/NAME.json.

The parent is identified by the sweep's name, a child by sweep, point and variant: writing a sweep again adds nothing. Children of points
that are no longer in the sweep, since code or data changed, stay with the tag sweep.current = false.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.artifacts import records
from edgewise.artifacts.flat_metrics import PATHS
from edgewise.artifacts.records import METRICS
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError
from edgewise.track import registry, view, writer
from edgewise.track.run_set import (
    KEY,
    Candidate,
    Registration,
    RunRecord,
    RunSet,
    bool_tag,
    content_digest,
    make_registration,
    metric_values,
)

FOLDER = METRICS / "sweeps"
PARENT, CURRENT = "mlflow.parentRunId", "sweep.current"


def write_sweep(run_set: RunSet, uri: str, artifacts: Path | None) -> tuple[str, int]:
    """Write what is missing and update what changed. Returns the experiment's id and the number of children.

    Raises InfrastructureError as `write_run_set` does.
    """
    with writer.open_client(uri) as client:
        experiment = writer.ensure_experiment(client, run_set.experiment, artifacts)
        return experiment, writer.retry_on_conflict(lambda: write_parent_and_children(client, experiment, run_set))


def write_parent_and_children(client: Any, experiment: str, run_set: RunSet) -> int:
    for record in run_set.records:
        writer.ensure_run(client, experiment, record, run_set)
    run, *children = (writer.keep_oldest(client, experiment, record) for record in run_set.records)
    update_parent(client, run, run_set.records[0], run_set)
    below = dict(zip(children, run_set.records[1:], strict=True))
    for old in client.search_runs([experiment], f"tags.`{PARENT}` = '{run}'"):
        if old.info.run_id not in below:
            client.set_tag(old.info.run_id, CURRENT, bool_tag(False))
    for identity, record in below.items():
        for tag, text in {**record.marks, PARENT: run, CURRENT: bool_tag(True)}.items():
            client.set_tag(identity, tag, text)
    writer.share_view(client, experiment, run_set)
    registry.register(client, run_set.registrations, {record.key: identity for identity, record in below.items()})
    return len(below)


def update_parent(client: Any, run: str, top: RunRecord, run_set: RunSet) -> None:
    """Update the counts, tags and files of the parent run."""
    known = client.get_run(run).data.metrics
    for name, value in top.metrics.items():
        if known.get(name) != value:
            client.log_metric(run, name, value)
    for tag, text in top.marks.items():
        client.set_tag(run, tag, text)
    for file in run_set.shared:
        client.log_artifact(run, str(file), "sweep")


def make_sweep_runs(name: str) -> RunSet:
    """The parent as the first record, then the children. Raises ConfigError for an unknown sweep."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        raise ConfigError(f"unknown sweep {name!r}; {nearest(name, (p.stem for p in FOLDER.glob('*.json')))}")
    sweep = records.read_plain(path, "repeat the command of the sweep, which writes the file again from its finished points")
    points = {point["name"]: point for point in sweep["points"]}
    children = tuple(make_child(sweep, points[row["point"]], row) for row in sweep["rows"])
    pictures = tuple(file for file in (path, path.with_suffix(".png")) if file.exists())
    return RunSet(
        experiment=sweep["experiment"],
        records=(make_parent(sweep), *children),
        shared=pictures,
        data=make_dataset(sweep),
        registrations=make_sweep_registrations(sweep, points),
        view=view.make_sweep_view(name, sweep["objectives"], sweep["keys"], sweep.get("unranked", ())),
        view_name=f"{view.NAME}-{name}",
    )


def make_parent(sweep: Mapping[str, Any]) -> RunRecord:
    """The parent run. `update_parent` sets what changes from one write to the next."""
    name, key = sweep["name"], content_digest({"sweep": sweep["name"]})
    params = {"arguments": " ".join(sweep["arguments"]), "keys": " ".join(sweep["keys"]), "objectives": json.dumps(sweep["objectives"])}
    rows = sweep["rows"]
    counts = {
        "points": len(sweep["points"]),
        "failed": sum(row["values"] is None for row in rows),
        "front": sum(row["front"] for row in rows),
    }
    tags = {KEY: key, "sweep": name}
    marks = {"git.tree": sweep["tree"], "mlflow.note.content": describe_sweep(sweep, counts)}
    return RunRecord(f"sweep {name}", key, True, params, {k: float(v) for k, v in counts.items()}, tags, marks, ())


def describe_sweep(sweep: Mapping[str, Any], counts: Mapping[str, int]) -> str:
    """The head of the parent run: what was swept, and what limits its figures."""
    swept = f" over {', '.join(f'`{key}`' for key in sweep['keys'])}" if sweep["keys"] else ""
    return "\n\n".join((f"{counts['points']} points{swept}; {counts['front']} on the Pareto front.", *sweep.get("warnings", ())))


def make_child(sweep: Mapping[str, Any], point: Mapping[str, Any], row: Mapping[str, Any]) -> RunRecord:
    """The run of one row: the overrides as params, the figures of the variant as metrics."""
    pairs = (override.lstrip("+~").partition("=") for override in point["overrides"])
    tags = {
        "sweep": sweep["name"],
        "point": row["point"],
        "variant": row["variant"],
        "status": row["status"],
        "reason": row["reason"],
        "experiment.revision": point["revision"],
        "mlflow.note.content": f"`{point['apply']}` brings this point into the workspace" if point["apply"] else None,
    }
    key = content_digest({"sweep": sweep["name"], "point": row["point"], "variant": row["variant"], "revision": point["revision"]})
    return RunRecord(
        variant=f"{row['point']} {row['variant']}".strip(),
        key=key,
        ok=row["values"] is not None,
        params={key: value for key, _, value in pairs} | {"variant": row["variant"]},
        metrics=dict(metric_values(row["result"])),
        tags={KEY: key, **{tag: str(value) for tag, value in tags.items() if value is not None}},
        marks={"pareto": bool_tag(row["front"])},
        files=(),
    )


def make_dataset(sweep: Mapping[str, Any]) -> dict[str, str]:
    found = sweep["data"]
    name, source = str(found.get("name", "none")), json.dumps(found, sort_keys=True)
    return {"name": name, "digest": str(found.get("digest", ""))[:36], "source_type": "edgewise", "source": source, "profile": source}


def make_sweep_registrations(sweep: Mapping[str, Any], points: Mapping[str, Any]) -> tuple[Registration, ...]:
    """A registration of the front for each model and device of the sweep."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for row in (row for row in sweep["rows"] if row["front"]):
        point = points[row["point"]]
        candidate = Candidate(make_child(sweep, point, row).key, row["variant"], row["result"], point["revision"])
        groups.setdefault((point["experiment"], point["device"]), []).append(candidate)
    score = score_objective(sweep["objectives"])
    return tuple(make_registration(name, f"{device}-{sweep['name']}", front, {}, score) for (name, device), front in groups.items())


def score_objective(objectives: Mapping[str, str]) -> tuple[str, bool] | None:
    """The objective that is a score of the task, and whether more is better; None where all objectives are general figures."""
    return next(((name, direction == "maximize") for name, direction in objectives.items() if name not in PATHS), None)
