"""bundle: the chosen variant as a folder that a user copies to the device.

    python -m stages.bundle

Reads   models/config.yaml, metrics/summary.json (the choice), models/variants, models/evaluate (how outputs become an answer), models/data
Writes  models/bundle: model, code, infer.py, requirements.txt, card, checksums; or a manifest with status `none` and the reason
"""

import sys

from edgewise.bundle.assembly import make_bundle
from edgewise.errors import UserError, run_main

CODE = (
    "edgewise.bundle.assembly",
    "{formats}.run",
    "{samples}",
    "{proof}",
    "edgewise.agent.infer",
    "edgewise.agent.packages",
    "edgewise.report.table",
    "edgewise.measure.threads",
    "edgewise.compress.partition",
    "edgewise.stats.claims",
    "edgewise.plugins",
    "edgewise.artifacts.flat_metrics",
)


def main() -> None:
    if len(sys.argv) > 1:
        raise UserError(f"stages.bundle takes no arguments, not {' '.join(sys.argv[1:])!r}; for options see `edgewise bundle --help`")
    make_bundle()


if __name__ == "__main__":
    run_main(main)
