"""A sweep in MLflow: a parent run, and below it one run for each of its rows, from metrics/sweeps/NAME.json alone.

The parent is known by the sweep's name, a child by the sweep, the point and the variant: writing it again adds nothing. Children of
points that the sweep no longer has (the code or the data changed) stay, with the tag sweep.current = false.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgewise.artifacts import records
from edgewise.artifacts.figures import PATHS
from edgewise.artifacts.records import METRICS
from edgewise.config.settings import nearest
from edgewise.errors import ConfigError
from edgewise.track import registry, writer
from edgewise.track.book import KEY, Book, Candidate, Record, Registration, digest, numbers, registration, word

FOLDER = METRICS / "sweeps"
PARENT, CURRENT = "mlflow.parentRunId", "sweep.current"


def book(name: str) -> Book:
    """The parent as the first record, then the children."""
    path = FOLDER / f"{name}.json"
    if not path.exists():
        raise ConfigError(f"there is no sweep {name!r}; {nearest(name, (p.stem for p in FOLDER.glob('*.json')))}")
    sweep = records.read_plain(path, "repeat the command of the sweep, which writes it anew from the points that are done")
    points = {point["name"]: point for point in sweep["points"]}
    children = tuple(child(sweep, points[row["point"]], row) for row in sweep["rows"])
    pictures = tuple(file for file in (path, path.with_suffix(".png")) if file.exists())
    return Book(sweep["experiment"], (parent(sweep), *children), pictures, data_set(sweep), registered(sweep, points))


def registered(sweep: Mapping[str, Any], points: Mapping[str, Any]) -> tuple[Registration, ...]:
    """The front, by what the points are about: a sweep over models or devices is about several."""
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for row in (row for row in sweep["rows"] if row["front"]):
        point = points[row["point"]]
        candidate = Candidate(child(sweep, point, row).key, row["variant"], row["result"], point["revision"])
        groups.setdefault((point["experiment"], point["device"]), []).append(candidate)
    score = score_of(sweep["objectives"])
    return tuple(registration(name, f"{device}-{sweep['name']}", front, {}, score) for (name, device), front in groups.items())


def score_of(objectives: Mapping[str, str]) -> tuple[str, bool] | None:
    """The objective that is a score of the task, and no figure that every task has, and whether more of it is better."""
    return next(((name, direction == "maximize") for name, direction in objectives.items() if name not in PATHS), None)


def parent(sweep: Mapping[str, Any]) -> Record:
    """What is the same for every writing of the sweep; what changes is set by `refresh`."""
    name, key = sweep["name"], digest({"sweep": sweep["name"]})
    params = {"arguments": " ".join(sweep["arguments"]), "keys": " ".join(sweep["keys"]), "objectives": json.dumps(sweep["objectives"])}
    rows = sweep["rows"]
    counts = {
        "points": len(sweep["points"]),
        "failed": sum(row["values"] is None for row in rows),
        "front": sum(row["front"] for row in rows),
    }
    tags = {KEY: key, "sweep": name}
    return Record(f"sweep {name}", key, True, params, {k: float(v) for k, v in counts.items()}, tags, {"git.tree": sweep["tree"]}, ())


def child(sweep: Mapping[str, Any], point: Mapping[str, Any], row: Mapping[str, Any]) -> Record:
    """The overrides are the params, as in `dvc exp run -S`; the results of the variant are the metrics."""
    pairs = (override.lstrip("+~").partition("=") for override in point["overrides"])
    tags = {
        "sweep": sweep["name"],
        "point": row["point"],
        "variant": row["variant"],
        "status": row["status"],
        "reason": row["reason"],
        "experiment.revision": point["revision"],
        "mlflow.note.content": f"`{point['apply']}` makes this point the workspace" if point["apply"] else None,
    }
    key = digest({"sweep": sweep["name"], "point": row["point"], "variant": row["variant"], "revision": point["revision"]})
    return Record(
        variant=f"{row['point']} {row['variant']}".strip(),
        key=key,
        ok=row["values"] is not None,
        params={key: value for key, _, value in pairs} | {"variant": row["variant"]},
        metrics=dict(numbers(row["result"])),
        tags={KEY: key, **{tag: str(value) for tag, value in tags.items() if value is not None}},
        marks={"pareto": word(row["front"])},
        files=(),
    )


def data_set(sweep: Mapping[str, Any]) -> dict[str, str]:
    found = sweep["data"]
    name, source = str(found.get("name", "none")), json.dumps(found, sort_keys=True)
    return {"name": name, "digest": str(found.get("digest", ""))[:36], "source_type": "edgewise", "source": source, "profile": source}


def write(book: Book, uri: str, artifacts: Path | None) -> int:
    """Write what is missing, refresh what changes; returns the number of children. InfrastructureError as of `store.write`."""
    with writer.connected(uri) as client:
        experiment = writer.experiment_id(client, book.experiment, artifacts)
        return writer.persist(lambda: write_runs(client, experiment, book))


def write_runs(client: Any, experiment: str, book: Book) -> int:
    for record in book.records:
        writer.ensure_run(client, experiment, record, book)
    run, *children = (writer.the_one(client, experiment, record) for record in book.records)
    refresh(client, run, book.records[0], book)
    below = dict(zip(children, book.records[1:], strict=True))
    for old in client.search_runs([experiment], f"tags.`{PARENT}` = '{run}'"):
        if old.info.run_id not in below:
            client.set_tag(old.info.run_id, CURRENT, word(False))
    for identity, record in below.items():
        for tag, text in {**record.marks, PARENT: run, CURRENT: word(True)}.items():
            client.set_tag(identity, tag, text)
    registry.register(client, book.registrations, {record.key: identity for identity, record in below.items()})
    return len(below)


def refresh(client: Any, run: str, top: Record, book: Book) -> None:
    """The counts and the picture as they are now."""
    known = client.get_run(run).data.metrics
    for name, value in top.metrics.items():
        if known.get(name) != value:
            client.log_metric(run, name, value)
    for tag, text in top.marks.items():
        client.set_tag(run, tag, text)
    for file in book.shared:
        client.log_artifact(run, str(file), "sweep")
