"""The end of a sweep: its summary as a file, a picture and a table; MLflow; what failed and where its log is."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from edgewise.artifacts.artifact import write_json
from edgewise.config.schema import to_plain
from edgewise.errors import SurroundingsError
from edgewise.sweep import outcome, picture
from edgewise.sweep.clone import environment
from edgewise.sweep.effects import Effect, importances
from edgewise.sweep.outcome import Outcome
from edgewise.sweep.plan import Plan
from edgewise.sweep.points import settings
from edgewise.sweep.summary import FOLDER, Row, SweepSummary, summarize

MOST_ROWS = 40  # in the terminal; the file has all


def conclude(plan: Plan) -> int:
    """Write and show what there is. The exit code: 0, or 1 where a point failed."""
    outcomes = outcome.read_all(plan.folder / "points")
    if not outcomes:
        raise SurroundingsError(f"no point of the sweep {plan.name} came to an end: the launcher started none; see {plan.folder}")
    summary = summarize(plan, outcomes, found_importances(plan, outcomes))
    write_json(FOLDER / f"{plan.name}.json", to_plain(summary))
    picture.draw(summary, FOLDER / f"{plan.name}.png")
    show(summary)
    track(plan.name)
    failed = [done for done in outcomes if not done.ok]
    for done in outcomes:
        for reason in [done.reason] if not done.ok else [f"{name}: {why}" for name, why in done.failed_subjects.items()]:
            print(f"failed: {' '.join(done.overrides)}: {reason}", file=sys.stderr)
    return 1 if failed else 0


def finished(folder: Path) -> int:
    """How many points of an interrupted sweep the next call restores."""
    return sum(done.ok for done in outcome.read_all(folder / "points"))


def found_importances(plan: Plan, outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Only of a search: in a grid the effects' shares say the same, and say it exactly."""
    if not plan.searched:
        return {}
    rows = [row for row in summarize(plan, outcomes, {}).rows if row.values is not None]
    points = [row.settings for row in rows]
    return {name: importances(points, [row.values[i] for row in rows if row.values], plan.keys) for i, name in enumerate(plan.objectives)}


def track(name: str) -> None:
    """Once, by one process, for all points. A store that is down is no reason to lose the sweep: the command can be repeated."""
    command = [sys.executable, "-m", "stages.track", "--sweep", name]
    if subprocess.run(command, env=environment(Path.cwd())).returncode:
        print(f"not in MLflow yet: run `python -m stages.track --sweep {name}` when the store is there", file=sys.stderr)


def show(summary: SweepSummary) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=150)
    console.print(table(summary))
    for line in [*effect_lines(summary), *summary.warnings, *promotions(summary)]:
        console.print(line, markup=False, soft_wrap=True)


def table(summary: SweepSummary):
    """The rows, front first, then by the first objective. Words of a heading may be broken into lines; values are shown as they are."""
    from rich import box
    from rich.table import Table

    names = sorted({row.variant for row in summary.rows if row.variant})
    several = len(names) > 1
    of = f" of {names[0]}" if len(names) == 1 else ""
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, title=f"{len(summary.points)} points{of}; *: Pareto front", title_justify="left")
    made.add_column("point", no_wrap=True)
    for heading in [*(key.rpartition(".")[2] for key in summary.keys), *(["variant"] if several else [])]:
        made.add_column(heading.replace("_", " "))
    for name in summary.objectives:
        made.add_column(name.replace("_", " "), justify="right")
    rows = sorted(summary.rows, key=lambda row: (not row.front, row.values is None, row.values or ()))
    for row in rows[:MOST_ROWS]:
        style = "bold" if row.front else "red" if row.values is None else None
        made.add_row(*cells(row, summary, several), style=style)
    if len(rows) > MOST_ROWS:
        made.caption = f"{len(rows) - MOST_ROWS} more in {FOLDER}/{summary.name}.json"
    return made


def cells(row: Row, summary: SweepSummary, several: bool) -> list[str]:
    """several: whether the rows are about more than one variant."""
    from rich.markup import escape  # [classifier] is a value, no style

    values = [f"{value:.4g}" for value in row.values] if row.values else ["failed" if row.status != "ok" else "not measured"]
    chosen = [escape(row.settings.get(key, "")) for key in summary.keys]
    return [row.point + (" *" if row.front else ""), *chosen, *([row.variant] if several else []), *values]


def effect_lines(summary: SweepSummary) -> list[str]:
    """For each objective its keys, the weightiest first, with the level that is best for it."""
    lines = []
    for objective, effects in summary.effects.items():
        known = {key: effect for key, effect in effects.items() if effect.share is not None}
        ranked = sorted(known.items(), key=lambda item: -(item[1].share or 0))
        said = [f"{key.rpartition('.')[2]} {effect.share:.0%} ({levels(effect)})" for key, effect in ranked]
        lines += [f"{objective}: share of the variance by key: {'; '.join(said)}"] if said else []
        weights = ", ".join(f"{key.rpartition('.')[2]} {share:.0%}" for key, share in summary.importances.get(objective, {}).items())
        lines += [f"{objective}: importance in a forest of trees (Optuna): {weights}"] if weights else []
    if not lines and len(summary.points) > 1:
        lines.append(f"which choice matters: {len(summary.points)} points are too few, or too much alike, to tell")
    return lines


def levels(effect: Effect) -> str:
    def text(name: str) -> str:
        level = effect.levels[name]
        interval = f" [{level.ci95[0]:+.2g}, {level.ci95[1]:+.2g}]" if level.ci95 else ""
        return f"{name} {level.effect:+.2g}{interval}"

    return ", ".join(text(name) for name in effect.levels)


def promotions(summary: SweepSummary) -> list[str]:
    """The command that makes each member of the front the workspace."""
    points = {point["name"]: point for point in summary.points}
    names = list(dict.fromkeys(row.point for row in summary.front))
    given = {name: settings(points[name]["overrides"]) for name in names}
    said = [
        f"  {points[name]['apply']}    # {', '.join(f'{k.rpartition(chr(46))[2]}={given[name].get(k)}' for k in summary.keys)}"
        for name in names
    ]
    return ["to make a member of the front your workspace (then `dvc repro`):", *said] if said else []
