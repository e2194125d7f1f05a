"""report: every variant beside the reference, judged, drawn and chosen from.

    python -m stages.report           read all results, write the report, print the table
    python -m stages.report --show    print the table of the last report, with where to look next
    python -m stages.report --check   exit 1 and say why if a variant failed or the budget is missed

Reads   models/config.yaml; models/variants, models/evaluate, models/bench, metrics/evaluate, metrics/bench of its variants;
        metrics/device.json, data.json, train.json; models/data for the pictures that are got wrong
Writes  metrics/summary.json, report.md, points.json; models/report: the page (HTML), the figure (PNG, SVG), confusion lists
"""

import sys

from edgewise.artifacts import records
from edgewise.config import schema
from edgewise.errors import ConfigError, run_main
from edgewise.report import table
from edgewise.report.overview import NEXT_STEPS, check_run, summarize, write_report

CODE = (
    "edgewise.report",
    "{task}",
    "edgewise.stats",
    "edgewise.plugins",
    "edgewise.compress.partition",
    "edgewise.proof.checks",
    "edgewise.artifacts.figures",
    "edgewise.artifacts.samples",
    "edgewise.agent.answers",
    "edgewise.agent.preprocess",
    "edgewise.agent.sessions",
)

CODE = (
    "edgewise.report",
    "{task}",
    "edgewise.stats",
    "edgewise.plugins",
    "edgewise.compress.partition",
    "edgewise.proof.describing",
    "edgewise.artifacts.figures",
    "edgewise.artifacts.samples",
    "edgewise.agent.answers",
    "edgewise.agent.preprocess",
    "edgewise.agent.sessions",
)


def main() -> int:
    argument = sys.argv[1] if len(sys.argv) > 1 else None
    if argument not in (None, "--show", "--check") or len(sys.argv) > 2:
        raise ConfigError(f"{' '.join(sys.argv[1:])!r} is no option of report; allowed: --show, --check, or nothing")
    if argument == "--check":
        return check_run(records.read_summary())
    if argument is None:
        settings = schema.read()
        write_report(summarize(settings), settings)
    table.print_table(records.read_summary())
    print(NEXT_STEPS)
    return 0


if __name__ == "__main__":
    run_main(main)
