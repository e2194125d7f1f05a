"""What was gained: the reference beside the chosen, the fastest and the smallest variant, each change with its interval."""

import math
from collections.abc import Mapping

from stages.core.results import Summary
from stages.reporting.changes import Change, changes, steps
from stages.reporting.verdicts import leaders

NOT_MEASURED = "not measured"


def markdown(summary: Summary) -> str:
    """A table of changes against the reference, one column for each of the variants that stand out, and the way to each of them."""
    reference = summary.variants[summary.reference]
    others = standing_out(summary)
    found = {name: {c.what: c for c in changes(reference, summary.variants[name], summary.primary_metric)} for name in others}
    lines = [row("", f"{summary.reference} (before)", *(f"{name} ({', '.join(roles)})" for name, roles in others.items()))]
    lines.append("|---" * (len(others) + 2) + "|")
    for what in dict.fromkeys(what for column in found.values() for what in column):
        cells = [column.get(what) for column in found.values()]
        lines.append(row(what, next(c.before for c in cells if c) or NOT_MEASURED, *map(cell, cells)))
    return "\n".join([*lines, "", *ways(summary, others), f"chosen: {summary.chosen or 'none'}, {summary.chosen_reason}", ""])


def row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def cell(change: Change | None) -> str:
    if change is None:
        return NOT_MEASURED
    return f"{change.after} ({change.change})" if change.change else change.after


def ways(summary: Summary, names: Mapping[str, list[str]]) -> list[str]:
    """Which step moved what, for each of these variants: every step against the one before."""
    score = summary.primary_metric.title if summary.primary_metric else "score"
    lines = []
    for name in names:
        way = steps(summary, name)
        if way:
            lines += [f"The way to {name}, each step against the one before:", ""]
            lines += [row("step", "variant", "size", "latency p50", "peak memory", score), "|---" * 6 + "|"]
            lines += [row(s.what, s.name, *(each or NOT_MEASURED for each in (s.size, s.latency, s.memory, s.score))) for s in way]
            lines.append("")
    return lines


def standing_out(summary: Summary) -> Mapping[str, list[str]]:
    """The chosen, the fastest (by the least favourable end of its interval) and the smallest variant, with what each is."""
    ready = {name: row for name, row in summary.variants.items() if row.ok and name != summary.reference}
    roles: dict[str, list[str]] = {}
    if summary.chosen in ready:
        roles.setdefault(str(summary.chosen), []).append("chosen")
    fastest = leaders(ready)
    if fastest:
        roles.setdefault(fastest[0], []).append("fastest" if len(fastest) == 1 else "among the fastest")
    if ready:
        roles.setdefault(min(ready, key=lambda name: ready[name].file.size_bytes or math.inf), []).append("smallest")
    return roles
