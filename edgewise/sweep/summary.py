"""The summary of a sweep: one row for each variant of each point, the Pareto front, the effects of the keys.

It is written to metrics/sweeps/NAME.json.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgewise.artifacts.flat_metrics import flatten_summary, may_claim
from edgewise.artifacts.records import METRICS, SCHEMA, summary_of
from edgewise.report.verdicts import dominates
from edgewise.sweep.effects import Effect, main_effects
from edgewise.sweep.execution import Outcome
from edgewise.sweep.plan import MAXIMIZE, Plan
from edgewise.sweep.points import settings_by_key

FOLDER = METRICS / "sweeps"
LATENCY = "latency_"  # objectives that begin so need an interval to rank by
RELATIVE = (
    "_to_reference",
    "_delta",
    "sqnr_db",
    "agreement",
    "kl_nats",
    "flips_gained",
    "flips_lost",
)  # suffixes of figures that are relative to the reference


@dataclass(frozen=True)
class Row:
    """One variant at one point. settings: the swept keys only. values: the objectives; None where it failed or one was not measured.
    reference: a digest of the point's own reference."""

    point: str
    variant: str
    settings: Mapping[str, str]
    status: str
    reason: str | None
    values: tuple[float, ...] | None
    result: Mapping[str, Any]
    reference: str = ""
    front: bool = False

    @property
    def title(self) -> str:
        return f"{self.point} {self.variant}"


@dataclass(frozen=True)
class SweepSummary:
    """metrics/sweeps/NAME.json. effects: by objective, then by key. importances: of a search, by objective. unranked: objectives that
    count neither in the front nor in effects and importances."""

    name: str
    experiment: str
    arguments: tuple[str, ...]
    keys: tuple[str, ...]
    objectives: Mapping[str, str]
    head: str
    tree: str
    carried: tuple[str, ...]
    rows: tuple[Row, ...]
    points: tuple[Mapping[str, Any], ...]
    data: Mapping[str, Any]
    effects: Mapping[str, Mapping[str, Effect]]
    importances: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    unranked: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def front(self) -> list[Row]:
        return [row for row in self.rows if row.front]


def summarize(plan: Plan, outcomes: Sequence[Outcome], importances: Mapping[str, Mapping[str, float]]) -> SweepSummary:
    made = [row for outcome in outcomes for row in make_rows(outcome, plan)]
    unranked = find_unranked(made, plan.objectives)
    rows = mark_fronts(made, plan.objectives, unranked)
    finished = [outcome for outcome in outcomes if outcome.ok]
    return SweepSummary(
        name=plan.name,
        experiment=outcomes[0].experiment,
        arguments=plan.arguments,
        keys=plan.keys,
        objectives=plan.objectives,
        head=plan.code.head,
        tree=plan.code.tree,
        carried=plan.code.carried,
        rows=tuple(rows),
        points=tuple(point_record(outcome) for outcome in outcomes),
        data=finished[0].data if finished else {},
        effects={name: compute_effects(rows, i, plan.keys) for i, name in enumerate(plan.objectives) if name not in unranked},
        importances=importances,
        warnings=(*warn_of_noise(rows, unranked), *warn_of_references(rows, plan.objectives), *collect_warnings(finished)),
        unranked=unranked,
    )


def make_rows(outcome: Outcome, plan: Plan) -> list[Row]:
    """One row for each variant that the point is about; one without a variant where the pipeline failed."""
    given = settings_by_key(outcome.overrides)
    swept = {key: given[key] for key in plan.keys if key in given}
    if not outcome.ok:
        return [Row(outcome.name, "", swept, "failed", outcome.reason, None, {})]
    rows = []
    summary = summary_of(outcome.summary, f"the summary of the point {outcome.name}")
    for name in outcome.subjects:
        result = flatten_summary(summary.variants[name], summary.primary_metric)
        known = [
            value for field in plan.objectives if (value := result.get(field)) is not None
        ]  # one that failed has no scores of the task
        complete = len(known) == len(plan.objectives) and result["status"] == "ok"
        rows.append(
            Row(
                outcome.name,
                name,
                swept,
                result["status"],
                result["reason"],
                tuple(known) if complete else None,
                result,
                outcome.reference,
            )
        )
    return rows


def point_record(outcome: Outcome) -> dict[str, Any]:
    """What metrics/sweeps/NAME.json holds of a point."""
    names = ("name", "overrides", "status", "reason", "revision", "experiment", "seconds")
    more = {"apply": f"dvc exp apply {outcome.name}", "device": outcome.summary["device"]["name"]} if outcome.ok else {"apply": None}
    return {name: getattr(outcome, name) for name in names} | more


def mark_fronts(rows: Sequence[Row], objectives: Mapping[str, str], unranked: Collection[str] = ()) -> list[Row]:
    """Mark the Pareto front; a front for each reference where an objective is relative to the reference."""
    if not relative_objectives(objectives):
        return mark_front(rows, objectives, unranked)
    keys = {row.reference for row in rows}
    marked = {row.title: row for key in keys for row in mark_front(with_reference(rows, key), objectives, unranked)}
    return [marked[row.title] for row in rows]


def mark_front(rows: Sequence[Row], objectives: Mapping[str, str], unranked: Collection[str] = ()) -> list[Row]:
    """Mark the rows that no other row dominates: as good in all objectives and better in one, by point estimates."""
    costs = [row_cost(row.values, objectives, unranked) for row in rows]
    return [
        Row(**{**vars(row), "front": row.values is not None and not any(dominates(other, own) for other in costs)})
        for row, own in zip(rows, costs, strict=True)
    ]


def row_cost(values: tuple[float, ...] | None, objectives: Mapping[str, str], unranked: Collection[str] = ()) -> tuple[float, ...]:
    """The objectives with their signs turned so that less is better; infinite where there are no values. Without those of `unranked`."""
    given = (math.inf,) * len(objectives) if values is None else values
    return tuple(
        -value if values and direction == MAXIMIZE else value
        for value, (name, direction) in zip(given, objectives.items(), strict=True)
        if name not in unranked
    )


def find_unranked(rows: Iterable[Row], objectives: Iterable[str]) -> tuple[str, ...]:
    """The latencies among the objectives, where no row has an interval of its latency: a profile that is too short claims nothing."""
    return () if may_claim(row.result for row in rows) else tuple(name for name in objectives if name.startswith(LATENCY))


def warn_of_noise(rows: Iterable[Row], unranked: Sequence[str]) -> list[str]:
    if not unranked:
        return []
    return [f"{say_too_short(rows)}, so latency counts neither for the front nor in what matters; measure with `++bench.name=quick`"]


def say_too_short(rows: Iterable[Row]) -> str:
    """In the words of a run's report."""
    profile = next(filter(None, (row.result.get("profile") for row in rows)), "of this sweep")
    return f"profile {profile} is too short to say which point is faster"


def relative_objectives(objectives: Iterable[str]) -> list[str]:
    """Those that are relative to the reference."""
    return [name for name in objectives if name.endswith(RELATIVE)]


def with_reference(rows: Sequence[Row], reference: str) -> list[Row]:
    return [row for row in rows if row.reference == reference]


def warn_of_references(rows: Sequence[Row], objectives: Mapping[str, str]) -> list[str]:
    """A warning where relative objectives are about more than one reference."""
    number = len({row.reference for row in rows if row.values is not None})
    if number < 2 or not relative_objectives(objectives):
        return []
    return [
        f"the swept keys change the reference: there are {number}, and {', '.join(relative_objectives(objectives))} cannot be compared "
        "between them; each reference has its own front, and effects on these objectives mean little"
    ]


def compute_effects(rows: Sequence[Row], objective: int, keys: Sequence[str]) -> dict[str, Effect]:
    """The main effects on one objective; the variant counts as a key where the points are about more than one."""
    known = [row for row in rows if row.values is not None]
    settings = [{**row.settings, "variant": row.variant} for row in known]
    return main_effects(settings, [row.values[objective] for row in known if row.values], [*keys, "variant"]) if known else {}


def collect_warnings(outcomes: Sequence[Outcome]) -> list[str]:
    devices = {outcome.inputs.get("device") for outcome in outcomes} | {
        outcome.summary["device"].get("fingerprint") for outcome in outcomes
    }
    found = [f"measured on {len(devices)} different devices: compare ratios, not milliseconds"] if len(devices) > 1 else []
    grades = [(o.summary["variants"][name]["noise"] or {}).get("grade", "clean") for o in outcomes for name in o.subjects]
    noisy = sum(grade != "clean" for grade in grades)
    return found + ([f"the machine was busy while {noisy} of the rows were measured"] if noisy else [])
