"""report: compare every variant with the reference, choose by the budget, and write the report.

    python -m stages.report

Reads   models/config.yaml; models/variants, models/evaluate, models/bench, metrics/evaluate, metrics/bench of its variants;
        metrics/device.json, data.json, train.json, visits.json, trust.json; models/data for the pictures that a variant gets wrong
Writes  metrics/summary.json, report.md, points.json, variants; models/report: page (HTML), figure (PNG, SVG), confusion lists
"""

import sys

from edgewise.artifacts import records
from edgewise.config import schema
from edgewise.errors import UserError, run_main
from edgewise.report import terminal
from edgewise.report.overview import summarize, write_report

CODE = (
    "edgewise.report",
    "{task}",
    "{samples}",
    "{proof}",
    "{boxes}",
    "edgewise.agent.class_maps",
    "edgewise.agent.drawing",
    "edgewise.tasks.predictions",
    "edgewise.stats",
    "edgewise.measure.collecting",
    "edgewise.measure.threads",
    "edgewise.plugins",
    "edgewise.compress.partition",
    "edgewise.artifacts.flat_metrics",
)


def main() -> None:
    if len(sys.argv) > 1:
        raise UserError(f"stages.report takes no arguments, not {' '.join(sys.argv[1:])!r}; for options see `edgewise report --help`")
    settings = schema.read()
    write_report(summarize(settings), settings)
    summary = records.read_summary()
    terminal.print_report(summary)
    print(terminal.next_steps(summary))


if __name__ == "__main__":
    run_main(main)
