"""bundle: the chosen variant as a folder that a user copies to the device.

    python -m stages.bundle                 make models/bundle
    python -m stages.bundle --to device     copy it to the configured device and run it there once

Reads   models/config.yaml, metrics/summary.json (the choice), models/variants, models/evaluate (how an answer is made), models/data
Writes  models/bundle: model, code, infer.py, requirements.txt, card, checksums; a manifest `none` with the reason where nothing is chosen
"""

import sys

from edgewise.bundle.assembly import make, send
from edgewise.errors import ConfigError, run_main

CODE = (
    "edgewise.bundle.assembly",
    "{formats}.run",
    "edgewise.agent.infer",
    "edgewise.report.table",
    "edgewise.compress.partition",
    "edgewise.proof.describing",
    "edgewise.plugins",
    "edgewise.artifacts.figures",
    "edgewise.artifacts.samples",
)


def main() -> None:
    match sys.argv[1:]:
        case []:
            make()
        case ["--to", "device"]:
            send()
        case given:
            raise ConfigError(f"{' '.join(given)!r} is no option of bundle; allowed: --to device, or nothing")


if __name__ == "__main__":
    run_main(main)
