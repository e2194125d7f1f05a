"""scan-layers: how much each layer of the source suffers from 8 bits, for the variants that keep some layers float.

    python -m stages.scan_layers

Reads   models/source, models/data (calibration split); scans of the configuration
Writes  models/sensitivity/SCHEME for every scheme: KEY.json for each scan that a variant asks for; a manifest `skipped`, with the
        reason, where none does or where the source cannot be scanned

KEY.json: {"layers": {source layer: {"sqnr_db", "noise", "float_bytes"}}, "sqnr_db": with all of them quantized}
"""

from pathlib import Path

from edgewise.artifacts.artifact import Manifest
from edgewise.compress.scanning import scan
from edgewise.config import schema
from edgewise.errors import run_main
from edgewise.proof.describing import by_scheme

TARGET = Path("models/sensitivity")


def main() -> None:
    configuration = schema.read()
    by_scheme(TARGET, configuration.scans, Manifest(kind="sensitivity"), lambda scheme, folder: scan(scheme, configuration, folder))


if __name__ == "__main__":
    run_main(main)
