"""Run a study, and show and keep what it gained."""

from collections.abc import Sequence
from pathlib import Path

from edgewise.report import changes
from edgewise.study import questions


def run(name: str, overrides: Sequence[str]) -> None:
    """overrides: Hydra's, over the choices of conf/studies/NAME.yaml."""
    root = Path.cwd()
    summary = questions.conduct(root, name, overrides)
    table = changes.gains_table(summary)
    (root / questions.RESULTS / name / "gains.md").write_text(table, encoding="utf-8")
    print(f"{table}\nall of it: {questions.RESULTS / name}")
