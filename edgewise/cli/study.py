"""Run a study, and show and keep what it gained."""

from collections.abc import Sequence
from pathlib import Path

from edgewise.report import changes
from edgewise.study import runner


def run(name: str, overrides: Sequence[str]) -> None:
    """overrides: Hydra's, over the choices of conf/studies/NAME.yaml."""
    root = Path.cwd()
    summary = runner.run_study(root, name, overrides)
    table = changes.gains_table(summary)
    (root / runner.RESULTS / name / "gains.md").write_text(table, encoding="utf-8")
    print(f"{table}\nall of it: {runner.RESULTS / name}")
