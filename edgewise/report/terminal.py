"""What a run prints at its end: the answer, a table that fits the terminal, remarks, where to look next.

A terminal that is too narrow for one line a variant gets two: the verdict stands under the name, intervals under their values. Where that
is too wide as well, columns are left out, and a line says which.
"""

import os
import re
import shlex
import subprocess
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import filterfalse
from pathlib import Path

from edgewise.artifacts.records import Summary, VariantSummary
from edgewise.config.choices import TRACKING_URI
from edgewise.config.compose import read_profile
from edgewise.config.schema import PATH, read
from edgewise.report import answer, explain, findings, page, table, verdicts
from edgewise.report.overview import REPORT

UNLIMITED = 150  # columns of what is no terminal: a file or a pipe
GAPS = (2, 1)  # characters between columns, if the terminal has room for them
SCORE_LAST = 1  # columns of the score that are never left out: its difference, or the agreement
DISPENSABLE = ("grade", "peak +MB", "p50 ms", "MB")  # in the order in which they are left out; the score goes before the last
KEPT = ("ratio", "verdict")
LEFT_ALIGNED = ("variant", "grade", "verdict")
Arrange = Callable[[Sequence[str], Sequence[str], dict[str, list[str]]], "tuple[Column, ...]"]  # names, marks, cells by title
VERDICT_WIDTH = 22  # "latency not resolved", indented; a longer verdict is wrapped
MOST_REMARKS = 5
LONGEST_REMARK = 320  # characters: four lines of 80
COMMAND = re.compile(r"`[^`]+`")
NO_BREAK = "\N{NO-BREAK SPACE}"
CLAUSE_END = re.compile(r"[;.] ")
REST_OF_REMARK = " (the rest: edgewise report --verbose)"


LOCAL_RUNS = 'mlflow ui --backend-store-uri "sqlite:///$PWD/mlflow.db"  all runs'
SERVER_RUNS = "$MLFLOW_TRACKING_URI                                      all runs"
DATABASE_RUNS = 'mlflow ui --backend-store-uri "$MLFLOW_TRACKING_URI"      all runs'
IN_BROWSER = f"{REPORT}/{page.NAME}                                 in a browser"
CHANGES = "dvc metrics diff   dvc exp show --only-changed            what changed"
GATE = "edgewise report --check                                   a gate for CI"
CHANGED = ("params.yaml", "conf", "metrics")  # dvc.lock is written when the run has ended
RESULTS = ("params.yaml", "conf", "dvc.lock", "metrics")
KEEP = f"keep this run (models/ stays in DVC's cache):\n  git add {' '.join(RESULTS)} && git commit -m 'First run'"
KEEP_AGAIN = f"keep this run: git add {' '.join(RESULTS)} && git commit"
PARAMS = Path("params.yaml")
OTHER_PROFILE = "profile {measured}, but params.yaml says {chosen}: `dvc repro` before you commit"
NOT_YET = (
    "before you commit this run: it was measured with the profile {measured}, but params.yaml says {chosen}, so colleagues would measure"
    " again. Run `dvc repro`, or keep it with `bench: {{name: {measured}}}` in params.yaml"
)
WIDTH = 80  # columns of the last lines


@dataclass(frozen=True)
class Column:
    """cells: of each row, with its lines."""

    title: tuple[str, ...]
    cells: tuple[tuple[str, ...], ...]

    @property
    def width(self) -> int:
        return max(len(line) for lines in (self.title, *self.cells) for line in lines)

    @property
    def left(self) -> bool:
        return self.title[0] in LEFT_ALIGNED


@dataclass(frozen=True)
class Layout:
    columns: tuple[Column, ...]
    gap: int
    left_out: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        return sum(column.width for column in self.columns) + self.gap * (len(self.columns) - 1)


def print_report(summary: Summary, verbose: bool = False) -> None:
    """Print the answer, the table and the remarks; verbose: every line on all variants in place of the remarks."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=UNLIMITED)

    def say(text: str, style: str | None = None) -> None:
        console.print(text, style=style, markup=False, soft_wrap=True)

    for line in (*(wrap(text, console.width) for text in table.describe_hold(summary)), *format_answer(summary, console.width)):
        say(line)
    say("")
    layout = choose_layout(summary, console.width)
    styles = [style_of(name, row, summary) for name, row in table.sort_variants(summary)]
    head, *body = format_rows(layout)
    for line in [*head, "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * min(layout.width, console.width)]:
        say(line)
    for lines, style in zip(body, styles, strict=True):
        for line in lines:
            say(line, style)
    say("")
    for paragraph in [
        *captions(summary, layout, console.width),
        *(table.explain_table(summary)[1:] if verbose else pick_remarks(summary)),
    ]:
        say(wrap(paragraph, console.width))


def style_of(name: str, row: VariantSummary, summary: Summary) -> str | None:
    return "red" if not row.ok else "bold green" if name == summary.chosen else "bold" if name in summary.pareto else None


def wrap(text: str, width: int, indent: str = "  ") -> str:
    """Paragraphs for a terminal. Names, paths and commands are not broken."""
    whole = COMMAND.sub(lambda command: command[0].replace(" ", NO_BREAK) if len(command[0]) < width - len(indent) else command[0], text)
    lines = textwrap.fill(whole, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
    return lines.replace(NO_BREAK, " ")


def format_answer(summary: Summary, width: int) -> Iterator[str]:
    """For each role the variant and why, then the path of its file on a line of its own, to be copied."""
    for roles, name, why in answer.describe_answer(summary):
        yield wrap(f"{roles[:1].upper()}{roles[1:]}: {f'{name}, ' if name else ''}{why}", width)
        if name in summary.variants:
            path = answer.find_file(name)
            yield f"  {path}{'/' if path.is_dir() or not path.suffix else ''}"


def captions(summary: Summary, layout: Layout, width: int) -> Iterator[str]:
    """How to read the table, and what it leaves out."""
    ranked = verdicts.makes_claims(summary.variants)
    order = (
        "Fastest first, by the upper end of the ratio's interval"
        if ranked
        else "In the order of names, since this profile makes no claim about latency"
    )
    yield f"{order}. {table.explain_table(summary)[0]}"
    if layout.left_out:
        yield f"Left out at {width} columns: {', '.join(layout.left_out)}; metrics/report.md has them, and a wider terminal"


def choose_layout(summary: Summary, width: int) -> Layout:
    """The fullest layout that fits: one line a variant, two, then two without the columns that a reader misses least."""
    one_line = make_layout(summary, line_columns)
    if one_line.width <= width:
        return one_line
    titles = list(table.table_columns(summary))
    score = list(table.score_columns(summary.primary_metric))
    of_some = [title for title in titles if title not in (*score, *DISPENSABLE, *KEPT)]  # columns that only some runs have
    dispensable = [*of_some, *DISPENSABLE[:-1], *score[:-SCORE_LAST], DISPENSABLE[-1]]
    tries = [[title for title in dispensable[:count] if title in titles] for count in range(len(dispensable) + 1)]
    layouts = [make_layout(summary, stack_columns, left_out, gap) for left_out in tries for gap in GAPS]
    return next((layout for layout in layouts if layout.width <= width), layouts[-1])


def make_layout(summary: Summary, arrange: Arrange, left_out: Sequence[str] = (), gap: int = GAPS[0]) -> Layout:
    rows = table.sort_variants(summary)
    cells = {title: [cell(row) for _, row in rows] for title, cell in table.brief_columns(summary).items()}
    kept = {title: texts for title, texts in cells.items() if any(texts) and title not in left_out}
    names = [name + (" *" if name in summary.pareto else "") for name, _ in rows]
    return Layout(arrange(names, marks(summary), kept), gap, tuple(left_out))


def marks(summary: Summary) -> list[str]:
    """What a row is besides a variant: the reference, chosen."""
    return [table.format_marks(name, summary).removeprefix(" *").strip(" ()") for name, _ in table.sort_variants(summary)]


def line_columns(names: Sequence[str], marked: Sequence[str], cells: dict[str, list[str]]) -> tuple[Column, ...]:
    shown = [f"{name} ({mark})" if mark else name for name, mark in zip(names, marked, strict=True)]
    return tuple(Column((title,), tuple((text,) for text in texts)) for title, texts in {"variant": shown, **cells}.items())


def stack_columns(names: Sequence[str], marked: Sequence[str], cells: dict[str, list[str]]) -> tuple[Column, ...]:
    """The verdict under the name, the grade under the latency, intervals under their values."""
    rest = dict(cells)
    claims = rest.pop("verdict", [""] * len(names))
    grades = rest.pop("grade", None) if "p50 ms" in rest else None
    width = max(VERDICT_WIDTH, *map(len, names))
    said = [", ".join(dict.fromkeys(filter(None, pair))) for pair in zip(marked, claims, strict=True)]
    first = tuple(
        (name, *textwrap.wrap(text, width, initial_indent=" ", subsequent_indent=" ")) for name, text in zip(names, said, strict=True)
    )
    columns = [Column(("variant", " verdict"), first)]
    for title, texts in rest.items():
        if title == "p50 ms" and grades:
            columns.append(Column((title, "grade"), tuple(zip(texts, grades, strict=True))))
        else:
            columns.append(Column(tuple(title.split(" ", 1)), tuple(tuple(table.BREAK.sub("\n", text).split("\n")) for text in texts)))
    return tuple(columns)


def format_rows(layout: Layout) -> list[list[str]]:
    """The lines of the head and of each row."""
    rows = [[column.title for column in layout.columns], *zip(*(column.cells for column in layout.columns), strict=True)]
    return [[format_line(layout, row, number) for number in range(max(map(len, row)))] for row in rows]


def format_line(layout: Layout, row: Sequence[tuple[str, ...]], number: int) -> str:
    texts = []
    for column, lines in zip(layout.columns, row, strict=True):
        text = lines[number] if number < len(lines) else ""
        texts.append(text.ljust(column.width) if column.left else text.rjust(column.width))
    return (" " * layout.gap).join(texts).rstrip()


def pick_remarks(summary: Summary) -> list[str]:
    """The first MOST_REMARKS remarks; the last one of them says how many lines there are besides."""
    found = [shorten_remark(text) for text in find_remarks(summary)]
    rest = len(table.explain_table(summary)) - 1  # without how to read the table
    more = f"all {rest} remarks: edgewise report --verbose"
    return [*found[: MOST_REMARKS - 1], more]


def shorten_remark(text: str) -> str:
    """The whole clauses that fit into LONGEST_REMARK, and where the rest is; all of a text whose first clause is longer."""
    if len(text) <= LONGEST_REMARK:
        return text
    ends = [end.start() for end in CLAUSE_END.finditer(text) if end.start() <= LONGEST_REMARK]
    return f"{text[: ends[-1]]}{REST_OF_REMARK}" if ends else text


def find_remarks(summary: Summary) -> Iterator[str]:
    """What failed, what a detector loses, what is wrong with the source or the data, then what limits the claims."""
    yield from describe_failures(summary)
    yield from table.describe_lost(summary)
    yield from summary.warnings
    yield from describe_profile(summary)
    yield from describe_warnings(summary)
    yield from findings.describe_disturbances(summary)
    yield from table.describe_unresolved(summary, explain.name_some)


def describe_failures(summary: Summary) -> Iterator[str]:
    failed = summary.failed
    if failed:
        first, *others = failed
        more = f"; also {explain.name_some(others)}" if others else ""
        yield f"{len(failed)} of {len(summary.variants)} variants failed: {first}: {failed[first].reason}{more}"


def describe_profile(summary: Summary) -> Iterator[str]:
    """That a short profile claims nothing, and what measures longer: the profile is in params.yaml, or came from the environment."""
    if not verdicts.makes_claims(summary.variants):
        profile = find_profile(summary)
        scored = " (only the timing is brief: scores are of all test samples)" if summary.primary_metric else ""
        yield (
            f"profile {profile} gives no intervals, so nothing is claimed about latency{scored}."
            " `dvc exp run -S bench.name=quick` measures longer,"
            f" and writes that into params.yaml; if {profile} came from EDGEWISE_PROFILE, a plain `dvc repro` is enough"
        )


def find_profile(summary: Summary) -> str:
    """With which the variants were measured; empty where none was."""
    return next((row.conditions.profile for row in summary.variants.values() if row.conditions), "")


def describe_warnings(summary: Summary) -> Iterator[str]:
    """The warnings of variants; those with the same text together."""
    same: dict[str, list[str]] = {}
    for name, row in table.sort_variants(summary):
        for warning in filterfalse(verdicts.is_about_noise, row.warnings):
            same.setdefault(warning, []).append(name)
    for warning, names in same.items():
        yield f"{explain.name_some(names)}: {warning}"


def next_steps(summary: Summary) -> str:
    """Where to look next, and what to know before a commit; of a clone in which nothing has run yet, whose the figures are."""
    if REPORT.is_dir():
        steps = "\n  ".join(("where to look next:", IN_BROWSER, name_runs(), CHANGES, GATE))
        return "\n".join(filter(None, (steps, say_before_commit(summary, first=not is_committed("dvc.lock")))))
    cpu = summary.device["facts"].get("cpu") or "an unknown processor"
    return f"these figures came with the repository and were measured on {cpu};\n`dvc repro` makes and measures the variants here"


def say_before_commit(summary: Summary, first: bool) -> str | None:
    """After the first run what to commit. Of a run with another profile than params.yaml has, as by EDGEWISE_PROFILE, that it should not
    be committed: DVC compares the profile, so everyone who pulls it would measure again."""
    measured, chosen = find_profile(summary), read_profile(PARAMS) if PARAMS.exists() else None
    if not measured or not chosen or measured == chosen:
        return KEEP if first else KEEP_AGAIN if has_changed(*CHANGED) else None
    return wrap((NOT_YET if first else OTHER_PROFILE).format(measured=measured, chosen=chosen), WIDTH)


def name_runs() -> str:
    """Where the runs can be looked at, and how."""
    if os.environ.get(TRACKING_URI):
        return SERVER_RUNS if os.environ[TRACKING_URI].startswith("http") else DATABASE_RUNS
    uri = read().tracking_uri if PATH.exists() else None
    if uri is None:
        return LOCAL_RUNS
    place = uri if uri.startswith("http") else f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
    return f"{place:<58}all runs"


def has_changed(*names: str) -> bool:
    """Whether files of these names differ from the last commit; False where there is no git to tell."""
    try:
        done = subprocess.run(["git", "status", "--porcelain", "--", *names], capture_output=True, text=True, check=False)
    except OSError:
        return False
    return done.returncode == 0 and bool(done.stdout.strip())


def is_committed(name: str, folder: Path = Path()) -> bool:
    """Whether the last commit has the file; True too where there is no git to tell."""
    try:
        done = subprocess.run(["git", "ls-tree", "--name-only", "HEAD", name], cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return True
    return done.returncode != 0 or bool(done.stdout.strip())
