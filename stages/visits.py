"""visits: which visits of the current variants are kept on this machine, and how far visits lie apart on the device.

    python -m stages.visits

Always runs, since DVC does not see the store. `edgewise trust` and each measurement add to it; where nothing changed the files stay as they
are, and the report, which alone depends on them, is not made again.

Reads   metrics/device.json, metrics/bench; the store .edgewise/visits (or the folder that EDGEWISE_VISITS names)
Writes  metrics/visits.json, metrics/trust.json (empty where there is nothing)
"""

from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.measure.collecting import write_collected


def main() -> None:
    write_collected(schema.read())


if __name__ == "__main__":
    run_main(main)
