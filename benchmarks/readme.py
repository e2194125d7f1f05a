"""The README's table and figure, from the metrics that are committed.

    python -m benchmarks.readme            writes the part of README.md between the two markers, and docs/accuracy-latency.png
    python -m benchmarks.readme --check    writes nothing; exit code 1 where the README says something else

Reads metrics/summary.json of the last commit (`git show HEAD:...`): a run overwrites the file, and the README describes what is committed.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from edgewise.artifacts.records import Summary, summary_of
from edgewise.report import table
from edgewise.report.figure import draw_figure

ROOT = Path(__file__).parents[1]
README, FIGURE = ROOT / "README.md", ROOT / "docs/accuracy-latency.png"
COMMITTED = "HEAD:metrics/summary.json"
BEGIN, END = "<!-- results: python -m benchmarks.readme -->", "<!-- end of results -->"


def committed(name: str = COMMITTED, root: Path = ROOT) -> Summary | None:
    """The summary in the last commit; None where that commit has none."""
    done = subprocess.run(["git", "show", name], cwd=root, capture_output=True, text=True)
    return summary_of(json.loads(done.stdout), name) if done.returncode == 0 else None


def results(summary: Summary) -> str:
    """The table, the figure, and on what it was measured."""
    rows = [line for line in table.markdown_report(summary).splitlines() if line.startswith("|")]
    figure = f"![Accuracy against latency, size as area, intervals as bars](docs/{FIGURE.name})"
    return "\n\n".join(["\n".join(rows), figure, describe_device(summary)])


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


def between(text: str) -> tuple[str, str, str]:
    """What stands before, between and after the markers. ValueError where they are not there once each."""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"README.md must have the lines {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    inside, after = rest.split(END)
    return before, inside.strip(), after


def main() -> int:
    summary = committed()
    if summary is None:
        print(f"error: {COMMITTED} is not there: commit metrics/ and dvc.lock of a default run first", file=sys.stderr)
        return 2
    before, inside, after = between(README.read_text(encoding="utf-8"))
    if sys.argv[1:] == ["--check"]:
        return 0 if inside == results(summary) else 1
    README.write_text(f"{before}{BEGIN}\n\n{results(summary)}\n\n{END}{after}", encoding="utf-8")
    with tempfile.TemporaryDirectory() as workshop:
        draw_figure(summary, Path(workshop))
        shutil.copyfile(Path(workshop) / FIGURE.name, FIGURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
