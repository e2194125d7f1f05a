"""How MLflow's UI shows an experiment: a shared view of the runs' table, kept as a tag of the experiment, and the link that opens it.

MLflow has no interface for such views. The tag's name and the form of its value are those that the UI of MLflow 3 writes itself when a
user shares a view: JSON of name, times and state; the state is "deflate;" and base64 of the zlib stream of the table's own JSON.
"""

import base64
import json
import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from edgewise.artifacts.flat_metrics import score_metric_name
from edgewise.plugins import PrimaryMetric

NAME = "edgewise"  # of the view of the last run's variants
LOCAL_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens unless told otherwise
RATIO = "latency_ratio_to_reference"
FIGURES = (RATIO, "size_bytes", "peak_rss_bytes", "latency_p50_ms")


def make_view(
    metric: PrimaryMetric | None, order: str = RATIO, ascending: bool = True, shown: str = "tags.current = 'true'"
) -> dict[str, Any]:
    """The state of the table. metric: the task's; None: the agreement with the reference is shown in place of a score."""
    verdicts = ("latency_verdict", *([score_metric_name(metric, "verdict")] if metric else []))
    columns = [*as_columns("metrics", list_main_metrics(metric)), *as_columns("tags", ("chosen", *verdicts))]
    return {
        "searchFilter": shown,
        "orderByKey": f"metrics.`{order}`",
        "orderByAsc": ascending,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "datasetsFilter": [],
        "modelVersionFilter": "All Runs",
        "selectedColumns": columns,
    }


def make_sweep_view(sweep: str, objectives: Mapping[str, str], keys: Iterable[str], unranked: Collection[str] = ()) -> dict[str, Any]:
    """The state of the table for the points of one sweep: what was optimized, beside the keys that were swept.

    objectives: metric -> `minimize` or `maximize`; the latency ratio orders the rows, else the first one. unranked: those that order
    nothing.
    """
    ranked = [name for name in objectives if name not in unranked] or list(objectives)
    order = RATIO if RATIO in ranked else ranked[0]
    current = f"tags.`sweep` = '{sweep}' and tags.`sweep.current` = 'true'"
    table = make_view(None, order, objectives[order] == "minimize", current)
    return {**table, "selectedColumns": [*as_columns("params", keys), *as_columns("metrics", objectives), *as_columns("tags", ("pareto",))]}


def name_tag(name: str) -> str:
    """The experiment's tag that holds the view of this name."""
    return f"mlflow.sharedViewState.{name}"


def list_main_metrics(metric: PrimaryMetric | None) -> tuple[str, ...]:
    """Names of the metrics that a reader looks for first."""
    score = ("sqnr_db",) if metric is None or metric.relative else (metric.name, score_metric_name(metric, "delta"))
    return (*score[:1], *FIGURES, *score[1:])


def as_columns(kind: str, names: Iterable[str]) -> list[str]:
    return [f"{kind}.`{name}`" for name in names]


def encode_view(view: dict[str, Any], now_ms: int, name: str = NAME) -> str:
    """The value of the tag."""
    state = base64.b64encode(zlib.compress(json.dumps(view).encode())).decode()
    return json.dumps({"name": name, "createdAt": now_ms, "updatedAt": now_ms, "state": f"deflate;{state}"})


def decode_view(value: str) -> dict[str, Any]:
    """The state in a value of the tag."""
    state = json.loads(value)["state"].removeprefix("deflate;")
    view: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(state)))
    return view


def link_to_view(uri: str, experiment: str, name: str = NAME) -> str:
    """The address that opens the view. uri: of the store; for a database that of the UI that `mlflow ui` starts. experiment: its id."""
    server = uri.rstrip("/") if uri.startswith("http") else LOCAL_UI
    return f"{server}/#/experiments/{experiment}/runs?workflowType=machine_learning&viewStateShareKey={name}"
