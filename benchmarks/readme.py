"""The README's table and figure, and the page of the default run, from the metrics that are committed.

    python -m benchmarks.readme            writes the part of README.md between the two markers, docs/default-run.md and its figure
    python -m benchmarks.readme --check    writes nothing; exit code 1 where one of them says something else

Reads metrics/summary.json of the last commit (`git show HEAD:...`): a run overwrites the file, and the README describes what is committed.
"""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgewise.artifacts.records import Summary, VariantSummary, summary_of
from edgewise.plugins import PrimaryMetric
from edgewise.report import answer, table, verdicts
from edgewise.report.figure import draw_figure

ROOT = Path(__file__).parents[1]
README, PAGE, FIGURE = ROOT / "README.md", ROOT / "docs/default-run.md", ROOT / "docs/accuracy-latency.png"
COMMITTED = "HEAD:metrics/summary.json"
WHEN = {  # role of report.answer -> when a reader takes the variant that has it
    answer.FASTEST: "speed matters most",
    answer.SMALLEST: "the download must be small",
    answer.LEAST_MEMORY: "memory is short",
}
SCHEMES = {  # of which the fastest is taken -> when
    ("int8-dynamic", "int8-weight", "int4-weight"): "you have no calibration samples",
    ("fp32", "fp16"): "outputs must stay the same up to rounding",
}
BEGIN, END = "<!-- results: python -m benchmarks.readme -->", "<!-- end of results -->"


def committed(name: str = COMMITTED, root: Path = ROOT) -> Summary | None:
    """The summary in the last commit; None where that commit has none."""
    done = subprocess.run(["git", "show", name], cwd=root, capture_output=True, text=True)
    return summary_of(json.loads(done.stdout), name) if done.returncode == 0 else None


def results(summary: Summary) -> str:
    """The variants that a reader would take, when, and on what they were measured."""
    return f"{short_table(summary)}\n\n{describe_device(summary)}"


def short_table(summary: Summary) -> str:
    """A row for each variant that is best in something."""
    when: dict[str, list[str]] = {}
    for name, text in find_reasons(summary):
        when.setdefault(name, []).append(text)
    metric = summary.primary_metric
    rows = [("take this when", "variant", metric.title if metric else "SQNR, dB", "times as fast", "MB", "peak MB", "file"), ("---",) * 7]
    rows += [
        (", ".join(texts), f"`{name}`", *figures(summary.variants[name], metric), f"`{answer.VARIANTS / name}/`")
        for name, texts in when.items()
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def find_reasons(summary: Summary) -> Iterator[tuple[str, str]]:
    """(variant, when to take it)."""
    roles = answer.find_roles(summary)
    for role, text in WHEN.items():
        name = roles.get(role, (None, ""))[0]
        if name:
            yield name, text
    for schemes, text in SCHEMES.items():
        rows = {name: row for name, row in summary.variants.items() if row.ok and row.scheme in schemes}
        if rows and verdicts.makes_claims(rows):
            yield verdicts.fastest_group(rows)[0], text
    yield summary.reference, "you need a baseline"


def figures(row: VariantSummary, metric: PrimaryMetric | None) -> tuple[str, str, str, str]:
    """Score, speed with its interval, size and peak memory."""
    score = table.format_score(row, metric) if metric else table.format_sqnr(row)
    ratio, interval = row.latency.ratio_to_reference, row.latency.ratio_ci95
    speed = "" if ratio is None else f"{1 / ratio:.2f}"
    if interval and row.latency.verdict != "reference":
        speed += f" [{1 / interval[1]:.2f}, {1 / interval[0]:.2f}]"
    return score, speed, table.format_size(row), answer.format_total(row)


def full_page(summary: Summary) -> str:
    """docs/default-run.md: every variant of the default run."""
    parts = [
        "<!-- Written by `python -m benchmarks.readme` from the committed metrics. -->",
        "# The default run",
        "What `make repro` measured when it was last committed: a ResNet-18 at 64x64 on scans of handwritten digits. Your machine gives "
        "other numbers, and another processor another order; that is why Edgewise measures on yours.",
        variants_table(summary),
        f"![Accuracy against latency, size as area, intervals as bars]({FIGURE.name})",
        describe_device(summary),
        "`*`: on the Pareto front. Brackets: 95 % intervals. How to read it: [Words](glossary.md), [How it works](architecture.md).",
    ]
    return "\n\n".join(parts) + "\n"


def variants_table(summary: Summary) -> str:
    """The table of every variant, as in metrics/report.md."""
    lines = table.markdown_report(summary).splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    return "\n".join(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))


def describe_device(summary: Summary) -> str:
    facts: dict[str, Any] = summary.device["facts"]
    conditions = next(row.conditions for row in summary.variants.values() if row.conditions)
    threads = "one thread" if conditions.threads == 1 else f"{conditions.threads} threads"
    return (
        f"The default run as it is committed (`git log -p metrics/`): {facts['cores_allowed']} cores of {facts['cpu']} "
        f"({facts['machine']}, {vector_instructions(facts['isa'])}), batch 1, {threads}, profile {conditions.profile}."
    )


def vector_instructions(isa: list[str]) -> str:
    """Those that decide how fast 8 bits are."""
    telling = [name for name in ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm", "sve") if name in isa]
    return " ".join(telling) or "no vector instructions known"


def between(text: str, begin: str = BEGIN, end: str = END) -> tuple[str, str, str]:
    """What stands before, between and after the markers. ValueError where they are not there once each."""
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"the page must have the lines {begin} and {end} once each")
    before, rest = text.split(begin)
    inside, after = rest.split(end)
    return before, inside.strip(), after


def main() -> int:
    summary = committed()
    if summary is None:
        print(f"error: {COMMITTED} is not there: commit metrics/ and dvc.lock of a default run first", file=sys.stderr)
        return 2
    before, inside, after = between(README.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--check"]:
        return 0 if inside == results(summary) and PAGE.read_text(encoding="utf-8") == full_page(summary) else 1
    PAGE.write_text(full_page(summary), encoding="utf-8")
    README.write_text(f"{before}{BEGIN}\n\n{results(summary)}\n\n{END}{after}", encoding="utf-8")
    with tempfile.TemporaryDirectory() as workshop:
        draw_figure(summary, Path(workshop))
        shutil.copyfile(Path(workshop) / FIGURE.name, FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
