"""study: a question with choices of its own, answered beside your project.

    edgewise study smart-camera                     (make case-study)
    edgewise study smart-camera train.epochs=1      the study with other choices

Reads   conf/studies/NAME.yaml as params.yaml, and the whole project as it is now
Writes  metrics/studies/NAME: its choices, metrics, report, page, figure, and what it gained. The clone stays in .edgewise/studies/NAME

Your params.yaml, metrics and models are not touched.
"""

import sys
from pathlib import Path

from edgewise.errors import run_main
from edgewise.report import changes
from edgewise.study import questions


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0
    root, name = Path.cwd(), sys.argv[1]
    summary = questions.conduct(root, name, sys.argv[2:])
    table = changes.markdown(summary)
    (root / questions.RESULTS / name / "gains.md").write_text(table, encoding="utf-8")
    print(f"{table}\nall of it: {questions.RESULTS / name}")
    return 0


if __name__ == "__main__":
    run_main(main)
